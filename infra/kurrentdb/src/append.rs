//! Appends to one stream. An append is repeated after a retryable error. The ids of its events show whether an earlier
//! attempt has stored them.

use std::error::Error as StdError;

use chat_domain::{Position, Revision};
use chat_kurrentdb_protocol::AllStreamPosition;

use super::batch_append::StoredAppend;
use super::call_error::{CallError, Damage};
use super::connection::{Connection, Node, RetryTimer};
use super::event_encoding;
use super::read::StreamPart;
use chat_ports::event_store::{AppendError, AppendReceipt, ReadStart, StreamAppend, TruncationCause};

impl Connection {
    /// Appends, and repeats the append while its errors are retryable and time is left: for the same ids and expected
    /// revision, KurrentDB returns the result of the first append.
    pub(super) async fn append(&self, append: &StreamAppend) -> Result<AppendReceipt, AppendError> {
        if let Some(truncated) = self.truncated.get(&append.stream) {
            return Err(AppendError::StreamTruncated(truncated));
        }
        let mut retry_timer = RetryTimer::new(self.timeouts);
        // Whether an earlier attempt may have stored the events.
        let mut may_be_stored = false;
        loop {
            let failure = match self.try_append(append, &mut may_be_stored).await {
                Ok(appended) => return Ok(appended),
                Err(CallError::WrongExpectedRevision) => return Err(AppendError::Conflict),
                // If `may_be_stored`, an earlier attempt may have stored the events before the stream was deleted, so
                // the outcome is unknown.
                Err(CallError::StreamDeleted) if !may_be_stored => {
                    let truncated = self.truncated.insert(&append.stream, TruncationCause::Deleted);
                    return Err(AppendError::StreamTruncated(truncated));
                }
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

    /// Makes one attempt. Sets `may_be_stored` if this attempt may have stored the events, even if it returns an error.
    async fn try_append(
        &self,
        append: &StreamAppend,
        may_be_stored: &mut bool,
    ) -> Result<AppendReceipt, CallError> {
        let node = self.node().await?;
        let outcome = match node.append(append, self.timeouts.attempt).await {
            Ok(stored) => {
                *may_be_stored = true;
                match receipt(append, stored) {
                    Some(appended) => Ok(appended),
                    None => self
                        .find_stored_append(&node, append)
                        .await
                        .and_then(|found| found.ok_or(Damage::UnexpectedRevision.into())),
                }
            }
            // Either an earlier attempt without a reply has stored this append, or the stream has other events at this
            // revision.
            Err(CallError::WrongExpectedRevision) if *may_be_stored => self
                .find_stored_append(&node, append)
                .await
                .and_then(|found| found.ok_or(CallError::WrongExpectedRevision)),
            Err(failure) => {
                *may_be_stored |= failure.leaves_outcome_unknown();
                Err(failure)
            }
        };
        if let Err(failure) = &outcome {
            self.report_failure(&node, failure);
        }
        outcome
    }

    /// Looks for the append in its stream: events with the same ids, directly after the expected revision.
    async fn find_stored_append(
        &self,
        node: &Node,
        append: &StreamAppend,
    ) -> Result<Option<AppendReceipt>, CallError> {
        let first = append.expected_revision.next();
        let part = StreamPart {
            stream: &append.stream,
            from: ReadStart::Forwards(first),
            count: append.events.len(),
        };
        let mut read = self.timeouts.within(node.read_stream(&part)).await?;
        let mut last = None;
        for (revision, event) in (first.get()..).zip(&append.events) {
            let Some(stored) = read.next_event(self.timeouts).await? else { return Ok(None) };
            if stored.stream_revision != revision || event_encoding::event_id(&stored)? != event.id.uuid() {
                return Ok(None);
            }
            let position = event_encoding::position(&stored)?;
            last = Some(AppendReceipt { position, revision: Revision::new(revision) });
        }
        Ok(last)
    }
}

/// The receipt from the server's answer. `None` if the answer has another revision than expected, or no usable
/// position: the server omits the position of a repeated append that other events have followed.
fn receipt(append: &StreamAppend, stored: StoredAppend) -> Option<AppendReceipt> {
    let revision = Revision::new(append.expected_revision.next().get() + append.events.len() as u64 - 1);
    let AllStreamPosition { commit_position: commit, prepare_position: prepare } = stored.position?;
    (stored.revision == Some(revision) && commit > 0 && commit == prepare)
        .then(|| AppendReceipt { position: Position::new(commit), revision })
}
