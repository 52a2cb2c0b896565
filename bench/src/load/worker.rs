//! A worker of a load: one connection that posts scheduled messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderValue;
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use super::schedule::{MessageIndex, Schedule};
use super::setup::Targets;
use crate::client::{ApiRequest, CONSISTENCY_TOKEN, Server};
use crate::corpus::Corpus;
use crate::latency::{Latencies, RequestTimes};
use crate::retrying_client::{RequestError, RetryingClient};
use crate::tally::Tally;

/// The outcome of one worker.
pub struct WorkerOutcome {
    /// Posted messages with their numbers. A message without a number may be stored or not.
    pub posted: Vec<(MessageIndex, Option<u64>)>,
    /// The latencies of acknowledged messages, one for each. The time of repeated requests is included.
    pub latencies: Latencies,
    /// Repeated requests, by cause.
    pub retried: Tally,
    /// Messages that were not acknowledged, by cause.
    pub failed: Tally,
    /// The last acknowledgement.
    pub last_acknowledgement: Option<Acknowledgement>,
}

/// An acknowledged message, and the token with which a query sees it.
#[derive(Clone, Debug)]
pub struct Acknowledgement {
    /// The message.
    pub index: MessageIndex,
    /// The number that the server assigned.
    pub number: u64,
    /// The response's `Consistency-Token`.
    pub token: Option<HeaderValue>,
    /// The time of the response.
    pub received_at: Instant,
}

impl WorkerOutcome {
    /// Creates the outcome of a worker that has posted nothing.
    pub fn new() -> Self {
        Self {
            posted: Vec::new(),
            latencies: Latencies::new(),
            retried: Tally::default(),
            failed: Tally::default(),
            last_acknowledgement: None,
        }
    }

    /// Returns the number of acknowledged messages.
    pub fn acknowledged_count(&self) -> usize {
        self.posted.iter().filter(|(_, number)| number.is_some()).count()
    }
}

/// A connection that posts one scheduled message after another.
pub struct Worker {
    corpus: Arc<Corpus>,
    targets: Arc<Targets>,
    schedule: Arc<Schedule>,
    client: RetryingClient,
    outcome: WorkerOutcome,
}

#[derive(Deserialize)]
struct MessageCreated {
    message_number: u64,
}

impl Worker {
    /// Creates a worker with a connection of its own.
    pub fn new(
        corpus: Arc<Corpus>,
        targets: Arc<Targets>,
        server: Arc<Server>,
        schedule: Arc<Schedule>,
    ) -> Self {
        Self { corpus, targets, schedule, client: RetryingClient::new(server), outcome: WorkerOutcome::new() }
    }

    /// Posts until no message is left. Counts each message in `counter`, acknowledged or not. If the server is
    /// unreachable, ends the load without counting the message.
    pub async fn run(mut self, counter: Arc<AtomicU64>) -> WorkerOutcome {
        while let Some(scheduled) = self.schedule.next().await {
            let sent = self.schedule.now();
            match self.post(scheduled.message_index()).await {
                Ok(()) => {
                    let answered = self.schedule.now();
                    let due = scheduled.due.unwrap_or(sent);
                    self.outcome.latencies.record(RequestTimes { due, sent, answered });
                }
                Err(RequestError::Unreachable) => {
                    self.outcome.failed.count(&RequestError::Unreachable.to_string());
                    self.schedule.stop();
                    break;
                }
                Err(error) => {
                    self.outcome.failed.count(&error.to_string());
                    if let RequestError::Uncertain(_) = error {
                        self.outcome.posted.push((scheduled.message_index(), None));
                    }
                }
            }
            counter.fetch_add(1, Ordering::Relaxed);
            self.schedule.finish(&scheduled, &self.corpus);
        }
        self.outcome.retried = self.client.take_retries();
        self.outcome
    }

    async fn post(&mut self, index: MessageIndex) -> Result<(), RequestError> {
        let body = &self.corpus.chats[index.chat].bodies[index.message];
        let path = self.targets.messages_path(&self.corpus, index.chat);
        let response = self.client.send(&ApiRequest::post(path, &json!({ "body": body }))).await?;
        let received_at = Instant::now();
        let created: MessageCreated = response.json().map_err(|_| {
            RequestError::Uncertain(format!("{} with an unexpected body", response.status.as_u16()))
        })?;
        let number = created.message_number;
        self.outcome.posted.push((index, Some(number)));
        let token = response.headers.get(CONSISTENCY_TOKEN).cloned();
        self.outcome.last_acknowledgement = Some(Acknowledgement { index, number, token, received_at });
        Ok(())
    }
}
