//! One connection's share of the posting.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderValue;
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use super::schedule::{MessageIndex, Schedule};
use super::setup::Targets;
use crate::client::{CONSISTENCY_TOKEN, Call, Server};
use crate::corpus::Corpus;
use crate::latency::{Latencies, RequestTimes};
use crate::retrying_client::{CallError, RetryingClient};
use crate::tally::Tally;

/// What a worker did.
pub struct WorkerOutcome {
    /// Messages with the number that each got; no number where the answer was lost.
    pub posted: Vec<(MessageIndex, Option<u64>)>,
    /// The latencies of those acknowledged, retries included.
    pub latencies: Latencies,
    /// Requests that were sent again.
    pub retried: Tally,
    /// Messages that were not acknowledged.
    pub failed: Tally,
    /// The last acknowledgement.
    pub last: Option<Acknowledgement>,
}

/// A message that was acknowledged, and the token with which a query sees it.
#[derive(Clone, Debug)]
pub struct Acknowledgement {
    /// Which message of the corpus.
    pub item: MessageIndex,
    /// Its number.
    pub number: u64,
    /// The answer's `Consistency-Token`.
    pub token: Option<HeaderValue>,
    /// When the answer came.
    pub at: Instant,
}

impl WorkerOutcome {
    /// Nothing done.
    pub fn new() -> Self {
        Self {
            posted: Vec::new(),
            latencies: Latencies::new(),
            retried: Tally::default(),
            failed: Tally::default(),
            last: None,
        }
    }

    /// Messages that were acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.posted.iter().filter(|(_, number)| number.is_some()).count()
    }
}

/// A connection that posts whatever message's turn it is.
pub struct Worker {
    corpus: Arc<Corpus>,
    targets: Arc<Targets>,
    schedule: Arc<Schedule>,
    caller: RetryingClient,
    outcome: WorkerOutcome,
}

#[derive(Deserialize)]
struct MessageCreated {
    message_number: u64,
}

impl Worker {
    /// A worker with a connection of its own.
    pub fn new(
        corpus: Arc<Corpus>,
        targets: Arc<Targets>,
        server: Arc<Server>,
        schedule: Arc<Schedule>,
    ) -> Self {
        Self { corpus, targets, schedule, caller: RetryingClient::new(server), outcome: WorkerOutcome::new() }
    }

    /// Posts until nothing is left, counting each message that is done with.
    pub async fn run(mut self, done: Arc<AtomicU64>) -> WorkerOutcome {
        while let Some(turn) = self.schedule.next().await {
            let sent = self.schedule.now();
            let posted = self.post(turn.message_index()).await;
            match posted {
                Ok(()) => {
                    let answered = self.schedule.now();
                    let due = turn.due.unwrap_or(sent);
                    self.outcome.latencies.record(RequestTimes { due, sent, answered });
                }
                Err(CallError::Unreachable) => {
                    self.outcome.failed.count(&CallError::Unreachable.to_string());
                    self.schedule.stop();
                    break;
                }
                Err(error) => {
                    self.outcome.failed.count(&error.to_string());
                    if let CallError::Uncertain(_) = error {
                        self.outcome.posted.push((turn.message_index(), None));
                    }
                }
            }
            done.fetch_add(1, Ordering::Relaxed);
            self.schedule.finish(&turn, &self.corpus);
        }
        self.outcome.retried = self.caller.take_retries();
        self.outcome
    }

    async fn post(&mut self, item: MessageIndex) -> Result<(), CallError> {
        let body = &self.corpus.chats[item.chat].bodies[item.message];
        let path = self.targets.messages_path(&self.corpus, item.chat);
        let reply = self.caller.call(&Call::post(path, &json!({ "body": body }))).await?;
        let at = Instant::now();
        let created: MessageCreated = reply.json().map_err(|_| {
            CallError::Uncertain(format!("{} with a body of another form", reply.status.as_u16()))
        })?;
        let number = created.message_number;
        self.outcome.posted.push((item, Some(number)));
        let token = reply.headers.get(CONSISTENCY_TOKEN).cloned();
        self.outcome.last = Some(Acknowledgement { item, number, token, at });
        Ok(())
    }
}
