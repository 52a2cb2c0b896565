//! Appending to one stream.

use std::error::Error as StdError;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chat_domain::{ExpectedRevision, Position, Revision};
use kurrentdb::{
    AppendToStreamOptions, Client, ReadStreamOptions, StreamPosition, StreamState, Streaming, WriteResult,
};

use super::connection::{Attempts, Connection};
use super::failure::{Damage, Failure};
use super::record;
use chat_ports::event_store::{AppendError, Appended, StreamAppend};

impl Connection {
    /// Appends, and sends again what was not answered: with the same ids and the same expected revision, KurrentDB
    /// answers as if it had just stored what it had stored before.
    pub(super) async fn append(&self, append: Arc<StreamAppend>) -> Result<Appended, AppendError> {
        let mut attempts = Attempts::new(self.patience);
        // Whether an attempt that was not answered may have stored the events.
        let mut open = false;
        loop {
            let failure = match self.attempt(&append, &mut open).await {
                Ok(appended) => return Ok(appended),
                Err(Failure::WrongRevision) => return Err(AppendError::Conflict),
                Err(failure) => failure,
            };
            if failure.retryable() && attempts.again().await {
                continue;
            }
            let cause: Box<dyn StdError + Send + Sync> = failure.into();
            return Err(if open {
                AppendError::OutcomeUnknown(cause)
            } else {
                AppendError::Unavailable(cause)
            });
        }
    }

    async fn attempt(&self, append: &Arc<StreamAppend>, open: &mut bool) -> Result<Appended, Failure> {
        let lease = self.lease().await?;
        let sent = Arc::new(AtomicBool::new(false));
        let outcome = match self.send(lease.client(), append, &sent).await {
            Ok(written) => {
                *open = true;
                match appended(append, &written) {
                    Some(appended) => Ok(appended),
                    None => self
                        .look(lease.client(), append)
                        .await
                        .and_then(|stored| stored.ok_or(Damage::Misplaced.into())),
                }
            }
            // Somebody else's events stand there, or those of an attempt that was not answered.
            Err(Failure::WrongRevision) if *open => self
                .look(lease.client(), append)
                .await
                .and_then(|stored| stored.ok_or(Failure::WrongRevision)),
            Err(failure) => {
                *open |= sent.load(Ordering::SeqCst) && failure.leaves_open();
                Err(failure)
            }
        };
        if let Err(failure) = &outcome {
            self.note(&lease, failure);
        }
        outcome
    }

    async fn send(
        &self,
        client: &Client,
        append: &Arc<StreamAppend>,
        sent: &Arc<AtomicBool>,
    ) -> Result<WriteResult, Failure> {
        let options = AppendToStreamOptions::default()
            .requires_leader(true)
            .deadline(self.patience.attempt)
            .stream_state(match append.expected {
                ExpectedRevision::NoStream => StreamState::NoStream,
                ExpectedRevision::Exact(last) => StreamState::StreamRevision(last.get()),
            });
        let options = self.authenticated(options, AppendToStreamOptions::authenticated);
        let (events, sent) = (Arc::clone(append), Arc::clone(sent));
        // The client takes an event when there is a connection to send it on: what it did not take, nobody has stored.
        let events = (0..append.events.len()).map(move |index| {
            sent.store(true, Ordering::SeqCst);
            record::to_wire(&events.events[index])
        });
        self.patience.within(client.append_to_stream(&*append.stream, &options, Streaming(events))).await
    }

    /// Where the events stand, if they do: the same ids, from the revision on that they were sent for.
    async fn look(&self, client: &Client, append: &StreamAppend) -> Result<Option<Appended>, Failure> {
        let first = append.expected.next();
        let options = ReadStreamOptions::default()
            .requires_leader(true)
            .max_count(append.events.len())
            .forwards()
            .position(StreamPosition::Position(first.get()));
        let options = self.authenticated(options, ReadStreamOptions::authenticated);
        let mut read = self.patience.within(client.read_stream(&*append.stream, &options)).await?;
        let mut last = None;
        for (revision, event) in (first.get()..).zip(&append.events) {
            let Some(stored) = self.patience.within(read.next()).await?.and_then(record::itself) else {
                return Ok(None);
            };
            if stored.revision != revision || stored.id != event.id.uuid() {
                return Ok(None);
            }
            let position = record::position(&stored)?;
            last = Some(Appended { position, revision: Revision::new(revision) });
        }
        Ok(last)
    }
}

/// Where the server says that the events stand; `None` where it does not say, or names another place than was asked
/// for. It leaves the position out where events that come again were moved on from.
fn appended(append: &StreamAppend, written: &WriteResult) -> Option<Appended> {
    let revision = append.expected.next().get() + append.events.len() as u64 - 1;
    let kurrentdb::Position { commit, prepare } = written.position;
    (written.next_expected_version == revision && commit > 0 && commit == prepare)
        .then(|| Appended { position: Position::new(commit), revision: Revision::new(revision) })
}
