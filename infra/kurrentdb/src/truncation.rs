//! Detects from the metadata of this system's streams which of them were deleted or truncated.
//!
//! KurrentDB truncates the stream `NAME` by settings in its metadata, which is the last event of the stream `$$NAME`.
//! The settings are `$maxCount`, `$maxAge`, `$tmp` and `$tb` ("truncate before"). A soft delete sets the highest `$tb`.
//! The truncated events disappear from reads of the stream at once, except with `$tmp`, and for good with the next
//! scavenge. A stream that is deleted permanently ends with an event of the type `$streamDeleted`.

use std::sync::Arc;
use std::time::Duration;

use chat_domain::{Position, Revision};
use chat_kurrentdb_protocol::streams::read_req::options::{CountOption, ReadDirection, SubscriptionOptions};
use chat_kurrentdb_protocol::streams::read_resp::Content;
use chat_kurrentdb_protocol::streams::read_resp::read_event::RecordedEvent as StoredEvent;
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::task::JoinHandle;
use tonic::Status;

use super::call_error::CallError;
use super::connection::{Connection, Executor};
use super::event_encoding;
use super::read::{self, METADATA_PREFIX, StreamPart};
use chat_ports::backoff::Backoff;
use chat_ports::event_store::{ReadStart, TruncationCause};

/// The `$tb` of a stream that was soft-deleted.
const SOFT_DELETED: i64 = i64::MAX;

const INITIAL_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// The settings in a stream's metadata that remove events.
#[derive(Default, Deserialize)]
struct StreamMetadata {
    #[serde(rename = "$maxCount")]
    max_count: Option<IgnoredAny>,
    #[serde(rename = "$maxAge")]
    max_age: Option<IgnoredAny>,
    /// Marks a temporary stream, which scavenges remove.
    #[serde(rename = "$tmp", default)]
    is_temporary: bool,
    #[serde(rename = "$tb", default)]
    truncate_before: i64,
}

impl StreamMetadata {
    fn truncation(&self) -> Option<TruncationCause> {
        match self {
            Self { truncate_before: SOFT_DELETED, .. } => Some(TruncationCause::SoftDeleted),
            Self { truncate_before: 1.., .. } => Some(TruncationCause::Limited("$tb")),
            Self { max_count: Some(_), .. } => Some(TruncationCause::Limited("$maxCount")),
            Self { max_age: Some(_), .. } => Some(TruncationCause::Limited("$maxAge")),
            Self { is_temporary: true, .. } => Some(TruncationCause::Limited("$tmp")),
            _ => None,
        }
    }
}

fn event_type(stored: &StoredEvent) -> &str {
    stored.metadata.get("type").map_or("", String::as_str)
}

/// Returns why metadata truncates its stream. If a field has an unexpected type, KurrentDB ignores all of the metadata.
fn truncation_by(metadata: &StoredEvent) -> Option<TruncationCause> {
    serde_json::from_slice::<StreamMetadata>(&metadata.data).unwrap_or_default().truncation()
}

impl Connection {
    /// Fails if a stream was deleted or truncated, or has a setting that truncates it. Records the result. Checks only
    /// this system's streams.
    pub(super) async fn check_truncation(&self, stream: &Arc<str>) -> Result<(), CallError> {
        if !read::STREAM_PREFIXES.iter().any(|prefix| stream.starts_with(prefix)) {
            return Ok(());
        }
        let metadata = self.read_one(&format!("{METADATA_PREFIX}{stream}"), ReadStart::End).await;
        let cause = match metadata {
            Err(CallError::StreamDeleted) => Some(TruncationCause::Deleted),
            Err(error) => return Err(error),
            Ok(None) => None,
            Ok(Some(metadata)) => {
                let cause = truncation_by(&metadata);
                // A setting that is gone now may have removed events.
                if cause.is_none() && self.lacks_first_event(stream).await? {
                    Some(TruncationCause::FirstEventsMissing)
                } else {
                    cause
                }
            }
        };
        if let Some(cause) = cause {
            return Err(self.truncated.insert(stream, cause).into());
        }
        self.truncated.remove(stream);
        Ok(())
    }

    /// Records the deletion if the error is that the stream was deleted permanently, and returns an error that names
    /// the stream. Returns other errors unchanged.
    pub(super) fn name_deleted_stream(&self, error: CallError, stream: &Arc<str>) -> CallError {
        match error {
            CallError::StreamDeleted => self.truncated.insert(stream, TruncationCause::Deleted).into(),
            error => error,
        }
    }

    async fn lacks_first_event(&self, stream: &str) -> Result<bool, CallError> {
        let first = self.read_one(stream, ReadStart::Forwards(Revision::FIRST)).await?;
        Ok(first.is_some_and(|first| first.stream_revision > 0))
    }

    async fn read_one(&self, stream: &str, from: ReadStart) -> Result<Option<StoredEvent>, CallError> {
        self.with_retries(async |node| {
            let part = StreamPart { stream, from, count: 1 };
            let mut read = self.timeouts.within(node.read_stream(&part)).await?;
            read.next_event(self.timeouts).await
        })
        .await
    }

    /// Returns whether an event is one of KurrentDB's own. If so, records the truncation that it causes or ends.
    pub(super) async fn record_if_system_event(&self, stored: &StoredEvent) -> bool {
        let is_system_event = event_type(stored).starts_with('$');
        if is_system_event {
            // After an error, the next read of the stream's end or the metadata watcher records the truncation.
            let _ = self.record_truncation(stored).await;
        }
        is_system_event
    }

    /// Records the truncation that an event of KurrentDB causes or ends. Fails if the metadata of the stream concerned
    /// can't be read now.
    async fn record_truncation(&self, stored: &StoredEvent) -> Result<(), CallError> {
        let identifier = stored.stream_identifier.as_ref();
        let name = identifier.map(|identifier| String::from_utf8_lossy(&identifier.stream_name));
        let name = name.unwrap_or_default();
        if event_type(stored) == "$streamDeleted" {
            self.truncated.insert(&name.into(), TruncationCause::Deleted);
        } else if let Some(stream_name) = name.strip_prefix(METADATA_PREFIX) {
            let stream = Arc::from(stream_name);
            if truncation_by(stored).is_some() || self.truncated.get(&stream).is_some() {
                // The newest metadata counts, which may no longer be this event.
                return match self.check_truncation(&stream).await {
                    Err(error) if error.is_retryable() => Err(error),
                    _ => Ok(()),
                };
            }
        }
        Ok(())
    }

    /// Follows the metadata of this system's streams after a position, to detect the soft deletion or truncation of a
    /// stream whose end is not read again because its state is cached. Ends when it is aborted.
    async fn watch_metadata(self: Arc<Self>, mut after: Position) {
        let mut backoff = Backoff::new(INITIAL_BACKOFF, MAX_BACKOFF);
        loop {
            // Errors are those of the connection, which other calls report.
            let _ = self.follow_metadata(&mut after, &mut backoff).await;
            tokio::time::sleep(backoff.next_pause()).await;
        }
    }

    async fn follow_metadata(&self, after: &mut Position, backoff: &mut Backoff) -> Result<(), CallError> {
        let connection = Self::to_leader(self.url.clone(), self.timeouts);
        let node = connection.node().await?;
        let options = read::read_options(
            read::all_from(*after),
            ReadDirection::Forwards,
            CountOption::Subscription(SubscriptionOptions {}),
            read::metadata_filter(),
        );
        let mut source = self.timeouts.within(node.read(options, Executor::Leader)).await?;
        while let Some(message) = source.message().await? {
            backoff.reset();
            match message.content {
                Some(Content::Event(event)) => {
                    let Some(stored) = event_encoding::original_event(event) else { continue };
                    // After an error the event is read again.
                    self.record_truncation(&stored).await?;
                    *after = Position::new(stored.commit_position);
                }
                // As in a subscription, a position counts only if its numbers are equal and not −1.
                Some(Content::Checkpoint(reached))
                    if reached.commit_position == reached.prepare_position
                        && reached.commit_position != u64::MAX =>
                {
                    *after = Position::new(reached.commit_position);
                }
                _ => {}
            }
        }
        Err(Status::unavailable("the server has ended the subscription").into())
    }
}

/// Follows the metadata of streams until it is dropped.
pub(super) struct MetadataWatcher(JoinHandle<()>);

impl MetadataWatcher {
    pub(super) fn spawn(connection: &Arc<Connection>, after: Position) -> Self {
        Self(tokio::spawn(Arc::clone(connection).watch_metadata(after)))
    }
}

impl Drop for MetadataWatcher {
    fn drop(&mut self) {
        self.0.abort();
    }
}
