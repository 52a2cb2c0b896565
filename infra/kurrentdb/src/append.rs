//! Appending to one stream.

use std::error::Error as StdError;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chat_domain::{ExpectedRevision, Position, Revision};
use kurrentdb::{
    AppendToStreamOptions, Client, ReadStreamOptions, StreamPosition, StreamState, Streaming, WriteResult,
};

use super::call_error::{CallError, Damage};
use super::connection::{Connection, RetryBackoff};
use super::event_encoding;
use chat_ports::event_store::{AppendError, AppendReceipt, StreamAppend};

impl Connection {
    /// Appends, and sends again what was not answered: with the same ids and the same expected revision, KurrentDB
    /// answers as if it had just stored what it had stored before.
    pub(super) async fn append(&self, append: Arc<StreamAppend>) -> Result<AppendReceipt, AppendError> {
        let mut attempts = RetryBackoff::new(self.patience);
        // Whether an attempt that was not answered may have stored the events.
        let mut open = false;
        loop {
            let failure = match self.try_append(&append, &mut open).await {
                Ok(appended) => return Ok(appended),
                Err(CallError::WrongExpectedRevision) => return Err(AppendError::Conflict),
                Err(failure) => failure,
            };
            if failure.is_retryable() && attempts.wait_for_retry().await {
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

    async fn try_append(
        &self,
        append: &Arc<StreamAppend>,
        open: &mut bool,
    ) -> Result<AppendReceipt, CallError> {
        let lease = self.lease().await?;
        let sent = Arc::new(AtomicBool::new(false));
        let outcome = match self.send_append(lease.client(), append, &sent).await {
            Ok(written) => {
                *open = true;
                match receipt_from_result(append, &written) {
                    Some(appended) => Ok(appended),
                    None => self
                        .find_stored_append(lease.client(), append)
                        .await
                        .and_then(|stored| stored.ok_or(Damage::UnexpectedPosition.into())),
                }
            }
            // Somebody else's events stand there, or those of an attempt that was not answered.
            Err(CallError::WrongExpectedRevision) if *open => self
                .find_stored_append(lease.client(), append)
                .await
                .and_then(|stored| stored.ok_or(CallError::WrongExpectedRevision)),
            Err(failure) => {
                *open |= sent.load(Ordering::SeqCst) && failure.leaves_outcome_unknown();
                Err(failure)
            }
        };
        if let Err(failure) = &outcome {
            self.report_failure(&lease, failure);
        }
        outcome
    }

    async fn send_append(
        &self,
        client: &Client,
        append: &Arc<StreamAppend>,
        sent: &Arc<AtomicBool>,
    ) -> Result<WriteResult, CallError> {
        let options = AppendToStreamOptions::default()
            .requires_leader(true)
            .deadline(self.patience.attempt)
            .stream_state(match append.expected_revision {
                ExpectedRevision::NoStream => StreamState::NoStream,
                ExpectedRevision::Exact(last) => StreamState::StreamRevision(last.get()),
            });
        let options = self.authenticated(options, AppendToStreamOptions::authenticated);
        let (events, sent) = (Arc::clone(append), Arc::clone(sent));
        // The client takes an event when there is a connection to send it on: what it did not take, nobody has stored.
        let events = (0..append.events.len()).map(move |index| {
            sent.store(true, Ordering::SeqCst);
            event_encoding::to_wire(&events.events[index])
        });
        self.patience.within(client.append_to_stream(&*append.stream, &options, Streaming(events))).await
    }

    /// Where the events stand, if they do: the same ids, from the revision on that they were sent for.
    async fn find_stored_append(
        &self,
        client: &Client,
        append: &StreamAppend,
    ) -> Result<Option<AppendReceipt>, CallError> {
        let first = append.expected_revision.next();
        let options = ReadStreamOptions::default()
            .requires_leader(true)
            .max_count(append.events.len())
            .forwards()
            .position(StreamPosition::Position(first.get()));
        let options = self.authenticated(options, ReadStreamOptions::authenticated);
        let mut read = self.patience.within(client.read_stream(&*append.stream, &options)).await?;
        let mut last = None;
        for (revision, event) in (first.get()..).zip(&append.events) {
            let Some(stored) =
                self.patience.within(read.next()).await?.and_then(event_encoding::original_event)
            else {
                return Ok(None);
            };
            if stored.revision != revision || stored.id != event.id.uuid() {
                return Ok(None);
            }
            let position = event_encoding::position(&stored)?;
            last = Some(AppendReceipt { position, revision: Revision::new(revision) });
        }
        Ok(last)
    }
}

/// Where the server says that the events stand; `None` where it does not say, or names another place than was asked
/// for. It leaves the position out where events that come again were moved on from.
fn receipt_from_result(append: &StreamAppend, written: &WriteResult) -> Option<AppendReceipt> {
    let revision = append.expected_revision.next().get() + append.events.len() as u64 - 1;
    let kurrentdb::Position { commit, prepare } = written.position;
    (written.next_expected_version == revision && commit > 0 && commit == prepare)
        .then(|| AppendReceipt { position: Position::new(commit), revision: Revision::new(revision) })
}
