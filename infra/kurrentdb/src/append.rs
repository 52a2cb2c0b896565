//! Appends to one stream.

use std::error::Error as StdError;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chat_domain::{ExpectedRevision, Position, Revision};
use kurrentdb::{
    AppendToStreamOptions, Client, ReadStreamOptions, StreamPosition, StreamState, Streaming, WriteResult,
};

use super::call_error::{CallError, Damage};
use super::connection::{Connection, RetryTimer};
use super::event_encoding;
use chat_ports::event_store::{AppendError, AppendReceipt, StreamAppend};

impl Connection {
    /// Appends, and repeats the append if no reply arrives: for the same ids and expected revision, KurrentDB returns the
    /// result of the first append.
    pub(super) async fn append(&self, append: Arc<StreamAppend>) -> Result<AppendReceipt, AppendError> {
        let mut retry_timer = RetryTimer::new(self.timeouts);
        // Whether an attempt without a reply may have stored the events.
        let mut may_be_stored = false;
        loop {
            let failure = match self.try_append(&append, &mut may_be_stored).await {
                Ok(appended) => return Ok(appended),
                Err(CallError::WrongExpectedRevision) => return Err(AppendError::Conflict),
                Err(failure) => failure,
            };
            if failure.is_retryable() && retry_timer.wait_for_retry().await {
                continue;
            }
            let cause: Box<dyn StdError + Send + Sync> = failure.into();
            return Err(if may_be_stored {
                AppendError::OutcomeUnknown(cause)
            } else {
                AppendError::Unavailable(cause)
            });
        }
    }

    async fn try_append(
        &self,
        append: &Arc<StreamAppend>,
        may_be_stored: &mut bool,
    ) -> Result<AppendReceipt, CallError> {
        let handle = self.client_handle().await?;
        let sent = Arc::new(AtomicBool::new(false));
        let outcome = match self.send_append(handle.client(), append, &sent).await {
            Ok(written) => {
                *may_be_stored = true;
                match receipt_from_result(append, &written) {
                    Some(appended) => Ok(appended),
                    None => self
                        .find_stored_append(handle.client(), append)
                        .await
                        .and_then(|stored| stored.ok_or(Damage::UnexpectedRevision.into())),
                }
            }
            // The stream has other events at this revision, or those of an attempt without a reply.
            Err(CallError::WrongExpectedRevision) if *may_be_stored => self
                .find_stored_append(handle.client(), append)
                .await
                .and_then(|stored| stored.ok_or(CallError::WrongExpectedRevision)),
            Err(failure) => {
                *may_be_stored |= sent.load(Ordering::SeqCst) && failure.leaves_outcome_unknown();
                Err(failure)
            }
        };
        if let Err(failure) = &outcome {
            self.report_failure(&handle, failure);
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
            .deadline(self.timeouts.attempt)
            .stream_state(match append.expected_revision {
                ExpectedRevision::NoStream => StreamState::NoStream,
                ExpectedRevision::Exact(last) => StreamState::StreamRevision(last.get()),
            });
        let options = self.authenticated(options, AppendToStreamOptions::authenticated);
        let (events, sent) = (Arc::clone(append), Arc::clone(sent));
        // The client takes events from this iterator once it is connected: events that it did not take are not stored.
        let events = (0..append.events.len()).map(move |index| {
            sent.store(true, Ordering::SeqCst);
            event_encoding::to_wire(&events.events[index])
        });
        self.timeouts.within(client.append_to_stream(&*append.stream, &options, Streaming(events))).await
    }

    /// Finds the append in its stream: the same ids from the expected revision on.
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
        let mut read = self.timeouts.within(client.read_stream(&*append.stream, &options)).await?;
        let mut last = None;
        for (revision, event) in (first.get()..).zip(&append.events) {
            let Some(stored) =
                self.timeouts.within(read.next()).await?.and_then(event_encoding::original_event)
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

/// The receipt from the server's result. `None` if the result has no position, or another revision than expected: the
/// server omits the position of a repeated append that other events have followed.
fn receipt_from_result(append: &StreamAppend, written: &WriteResult) -> Option<AppendReceipt> {
    let revision = append.expected_revision.next().get() + append.events.len() as u64 - 1;
    let kurrentdb::Position { commit, prepare } = written.position;
    (written.next_expected_version == revision && commit > 0 && commit == prepare)
        .then(|| AppendReceipt { position: Position::new(commit), revision: Revision::new(revision) })
}
