//! The tail of a search index: follows the log in a process that answers queries, and keeps in memory what the index
//! has not committed yet.
//!
//! The tail has the changes that a projector would commit, because it is made by the same fold. After two kinds of events
//! it can't tell what a projector would commit. The tail stops before such an event until the index has committed it:
//!
//! - an operator action on dead letters, because it changes the content that the fold starts from;
//! - an event that it can't decode, because the projector may be of another version.
//!
//! At the [bounds of its memory](TailLimits), too, the tail takes no more events until the index has committed a part
//! of the tail.
//!
//! Searches are answered from the committed index alone while there is no tail, for example because the log can't be
//! read.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use chat_domain::projection::ProjectionName;
use chat_domain::{Position, StreamId};
use chat_ports::clock;
use chat_ports::dead_letter::DeadLetterCounts;
use chat_ports::error_chain;
use chat_ports::event_store::{EventBatch, EventStore, LogId, Subscription};
use chat_ports::projection_checkpoint::ProjectionCheckpoint;
use chat_ports::search_index::SearchError;
use chat_search::{SearchIndexReader, TailWriter, TantivyIndex};
use metrics::{describe_gauge, gauge};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use super::fold::{documents_to_load, fold};
use crate::dead_letters::{BlockedStreams, DeadLetterAction};
use crate::decoded_batch::{BatchEvent, DecodedBatch};
use crate::projection::ProjectionError;
use crate::projection::blocking::run_blocking;

/// The largest number of events that are folded together.
const MAX_BATCH_EVENTS: usize = 512;
/// The pause after a batch. Under load, more events are folded together; a lone event does not wait.
const REST: Duration = Duration::from_millis(2);
/// The interval at which the tail looks for commits of the index, to drop the changes that they contain.
const TRIM_INTERVAL: Duration = Duration::from_millis(250);
/// The interval at which the tail looks for commits while it waits for one.
const COMMIT_POLL_INTERVAL: Duration = Duration::from_millis(20);
/// The interval at which the tail checks that the log is still the same.
const LOG_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// The pause after a failure.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// The pause while the index is far behind.
const FAR_BEHIND_PAUSE: Duration = Duration::from_secs(1);
/// The time after which a failure that lasts is logged as a warning.
const FAILURE_GRACE: Duration = Duration::from_secs(10);

/// The bounds of a tail. A tail that has reached one of them takes no batch until the index has committed a part of the
/// tail. The last batch before that may exceed the bound.
#[derive(Clone, Copy, Debug)]
pub struct TailLimits {
    /// The number of changes.
    pub changes: usize,
    /// The size, in bytes.
    pub bytes: usize,
}

impl Default for TailLimits {
    /// Several seconds of the highest load.
    fn default() -> Self {
        Self { changes: 100_000, bytes: 64 << 20 }
    }
}

const TAIL_CHANGES: &str = "chat_search_tail_changes";

/// Registers the metrics of a process that answers searches.
pub fn register_tail_metrics() {
    describe_gauge!(
        TAIL_CHANGES,
        "Changes of messages that the search index has not committed, kept in memory for searches. An edit counts twice."
    );
    gauge!(TAIL_CHANGES).set(0.0);
}

/// Starts a task on the current runtime that keeps the tail of an index until `reader` is dropped. Returns a receiver
/// of the position up to which searches find the events of the log.
pub fn spawn_tail(
    reader: &Arc<SearchIndexReader>,
    event_store: Arc<dyn EventStore>,
    limits: TailLimits,
) -> watch::Receiver<Position> {
    let (progress, receiver) = watch::channel(Position::START);
    let task = TailTask {
        reader: Arc::downgrade(reader),
        event_store,
        limits,
        progress,
        tail: None,
        delivered: Position::START,
        failure: None,
    };
    tokio::spawn(task.run());
    receiver
}

struct TailTask {
    reader: Weak<SearchIndexReader>,
    event_store: Arc<dyn EventStore>,
    limits: TailLimits,
    progress: watch::Sender<Position>,
    /// `None` while there is no tail, and while a blocking thread has it.
    tail: Option<TailFold>,
    /// The position up to which the subscription has delivered events.
    delivered: Position,
    failure: Option<Failure>,
}

/// Failures in a row.
struct Failure {
    since: Instant,
    is_logged: bool,
}

/// The tail and the state of its fold.
struct TailFold {
    log: LogId,
    index: TantivyIndex,
    writer: TailWriter,
    blocked_streams: BlockedStreams,
    /// An event that the index has to commit before the tail goes on.
    ends_before: Option<Position>,
}

/// The reader was dropped.
struct ReaderDropped;

impl TailTask {
    async fn run(mut self) {
        loop {
            match self.follow().await {
                Ok(ReaderDropped) => return,
                Err(error) => self.log_failure(&error),
            }
            self.publish_progress();
            sleep(RETRY_PAUSE).await;
        }
    }

    /// Logs one warning about failures in a row, once they have lasted [`FAILURE_GRACE`]. Shorter failures are normal:
    /// the index may not exist yet when the process starts, and engines restart.
    fn log_failure(&mut self, error: &ProjectionError) {
        let failure = self.failure.get_or_insert(Failure { since: Instant::now(), is_logged: false });
        let error = error_chain(error);
        if failure.since.elapsed() < FAILURE_GRACE || failure.is_logged {
            tracing::debug!(error, "the newest messages can't be searched in memory");
        } else {
            failure.is_logged = true;
            tracing::warn!(
                error,
                "the newest messages can't be searched in memory: searches find them once the search index has committed them"
            );
        }
    }

    async fn follow(&mut self) -> Result<ReaderDropped, ProjectionError> {
        let mut subscription: Option<Box<dyn Subscription>> = None;
        let mut log_check_due = Instant::now();
        loop {
            let Some(reader) = self.reader.upgrade() else { return Ok(ReaderDropped) };
            if log_check_due <= Instant::now() {
                self.check_log(&reader).await?;
                log_check_due = Instant::now() + LOG_CHECK_INTERVAL;
            }
            self.follow_index(reader).await?;
            let Some(tail) = self.tail.as_ref().filter(|tail| !tail.is_paused(self.limits)) else {
                sleep(COMMIT_POLL_INTERVAL).await;
                continue;
            };
            let position = tail.writer.position();
            let active_subscription = match &mut subscription {
                // A subscription that is past the end of the tail is not used, because it does not deliver the events
                // in between again.
                Some(subscription) if self.delivered <= position => subscription,
                _ if self.log_is_far_ahead_of(position).await? => {
                    // The projector folds such a backlog faster than the tail would.
                    self.tail = None;
                    subscription = None;
                    sleep(FAR_BEHIND_PAUSE).await;
                    continue;
                }
                _ => {
                    self.delivered = position;
                    subscription.insert(self.event_store.subscribe(position).await?)
                }
            };
            self.fold_events(&mut **active_subscription, Instant::now() + TRIM_INTERVAL).await?;
            self.failure = None;
        }
    }

    /// Drops the tail if it is of another log, or of events that the log has lost.
    async fn check_log(&mut self, reader: &SearchIndexReader) -> Result<(), ProjectionError> {
        let Some(tail) = &self.tail else { return Ok(()) };
        let is_same = self.event_store.log_id().await? == tail.log
            && tail.writer.position() <= self.event_store.head().await?;
        if !is_same {
            reader.discard_tail();
            self.tail = None;
        }
        Ok(())
    }

    /// Returns whether the log has more events after a position than the tail can hold.
    async fn log_is_far_ahead_of(&self, position: Position) -> Result<bool, ProjectionError> {
        let distance = self.event_store.head().await?.get().saturating_sub(position.get());
        // Where positions are not contiguous, they are byte offsets, so the distance is in bytes.
        let is_contiguous = self.event_store.has_contiguous_positions();
        let limit = if is_contiguous { self.limits.changes } else { self.limits.bytes };
        Ok(distance > limit as u64)
    }

    /// Runs [`follow_commits`] on a blocking thread.
    async fn follow_index(&mut self, reader: Arc<SearchIndexReader>) -> Result<(), ProjectionError> {
        let log = match &self.tail {
            Some(tail) => tail.log,
            None => self.event_store.log_id().await?,
        };
        let mut tail = self.tail.take();
        let (tail, followed) = run_blocking(move || {
            let followed = follow_commits(&mut tail, log, &reader);
            Ok::<_, SearchError>((tail, followed))
        })
        .await?;
        self.tail = tail;
        self.publish_progress();
        Ok(followed?)
    }

    /// Folds events as they arrive. Ends at the time `until`, or earlier if the tail pauses or has to begin again.
    async fn fold_events(
        &mut self,
        subscription: &mut dyn Subscription,
        until: Instant,
    ) -> Result<(), ProjectionError> {
        while Instant::now() < until {
            let Ok(batch) = timeout_at(until, subscription.next(MAX_BATCH_EVENTS)).await else { break };
            let batch = batch?;
            self.delivered = batch.up_to;
            let Some(tail) = self.tail.take() else { break };
            let (tail, folded) = tail.fold_inline_or_blocking(batch).await?;
            let is_paused = tail.is_paused(self.limits);
            self.tail = Some(tail);
            self.publish_progress();
            if folded? == Folded::IndexIsAhead || is_paused {
                break;
            }
            sleep(REST).await;
        }
        Ok(())
    }

    fn publish_progress(&self) {
        let changes = self.tail.as_ref().map_or(0, |tail| tail.writer.len());
        #[expect(clippy::cast_precision_loss, reason = "gauges are floating-point")]
        gauge!(TAIL_CHANGES).set(changes as f64);
        let Some(tail) = &self.tail else { return };
        let position = tail.writer.position().max(tail.index.position());
        self.progress.send_if_modified(|last| std::mem::replace(last, position) != position);
    }
}

/// Drops from the tail what the index has committed. If the tail does not continue the index, begins a new tail, unless
/// the index is of another log. Blocks.
fn follow_commits(
    tail: &mut Option<TailFold>,
    log: LogId,
    reader: &SearchIndexReader,
) -> Result<(), SearchError> {
    let index = reader.newest()?;
    let committed = index.checkpoint();
    if let Some(tail) = tail
        && tail.continues(committed)
    {
        tail.writer.trim(committed.position);
        return Ok(());
    }
    // An index of another log has no tail: its projector has not adopted this log yet, or never will.
    let is_of_other_log = committed.log.is_some_and(|other| other != log);
    *tail = if is_of_other_log { None } else { Some(TailFold::begin(log, reader, index)?) };
    Ok(())
}

/// The events that follow a tail.
struct TailBatch {
    batch: DecodedBatch,
    /// The event after the batch, if the tail has to end before it.
    ends_before: Option<Position>,
}

/// The result of folding a batch into the tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Folded {
    /// The changes are in the tail.
    Appended,
    /// The index has committed events that the tail lacks, so the tail has to begin again.
    IndexIsAhead,
}

impl TailFold {
    /// Begins a tail after the newest commit. Blocks.
    fn begin(log: LogId, reader: &SearchIndexReader, index: TantivyIndex) -> Result<Self, SearchError> {
        let (position, streams) = index.blocked_streams()?;
        let blocked_streams = BlockedStreams::load(streams, DeadLetterCounts::default());
        let writer = reader.begin_tail(log, position);
        Ok(Self { log, index, writer, blocked_streams, ends_before: None })
    }

    /// Whether the tail can go on after a commit of the index.
    fn continues(&self, committed: ProjectionCheckpoint) -> bool {
        let position = committed.position;
        committed.log.is_none_or(|log| log == self.log)
            && self.writer.start() <= position
            && position <= self.writer.position()
            && self.ends_before.is_none_or(|event| position < event)
    }

    /// Whether the index has to commit before the tail takes more events.
    fn is_paused(&self, limits: TailLimits) -> bool {
        self.ends_before.is_some()
            || self.writer.len() >= limits.changes
            || self.writer.size_in_bytes() >= limits.bytes
    }

    /// Folds a batch, on a blocking thread if the batch is large or documents may have to be loaded.
    async fn fold_inline_or_blocking(
        mut self,
        batch: EventBatch,
    ) -> Result<(Self, Result<Folded, SearchError>), ProjectionError> {
        /// The largest batch that is folded on a thread of the runtime.
        const MAX_INLINE_EVENTS: usize = 64;
        /// The same in bytes of payloads.
        const MAX_INLINE_BYTES: usize = 64 << 10;
        let bytes: usize = batch.events.iter().map(|event| event.data.len()).sum();
        if batch.events.len() > MAX_INLINE_EVENTS || bytes > MAX_INLINE_BYTES {
            let decode_and_fold = move || {
                let decoded = self.decode(batch);
                let folded = self.fold(decoded);
                Ok::<_, SearchError>((self, folded))
            };
            return run_blocking(decode_and_fold).await;
        }
        let decoded = self.decode(batch);
        let changes_messages = decoded.batch.events.iter().any(|event| event.modified_message().is_some());
        let fold_decoded = move || {
            let folded = self.fold(decoded);
            Ok::<_, SearchError>((self, folded))
        };
        if changes_messages { run_blocking(fold_decoded).await } else { Ok(fold_decoded()?) }
    }

    /// Decodes the events that follow the tail, up to the next event at which it has to end.
    fn decode(&self, batch: EventBatch) -> TailBatch {
        let from = self.writer.position();
        let EventBatch { mut events, mut up_to } = batch;
        // A tail that began again may be ahead of the subscription.
        events.retain(|event| event.position > from);
        let is_action = |event| DeadLetterAction::from_event(event, ProjectionName::SearchIndex).is_some();
        let mut ends_before = None;
        if let Some(index) = events.iter().position(is_action) {
            ends_before = Some(events[index].position);
            events.truncate(index);
            up_to = events.last().map_or(from, |event| event.position);
        }
        let mut batch = DecodedBatch::decode(self.log, from, up_to, events);
        self.blocked_streams.mark(&mut batch);
        // The tail ends before an event that it can't decode. The projector may be of a version that can.
        let is_unreadable = |event: &BatchEvent| {
            let stream = &batch.streams[event.stream_index];
            event.event.is_err() && !stream.is_blocked && matches!(stream.id, Ok(StreamId::Chat(..)))
        };
        if let Some(index) = batch.events.iter().position(is_unreadable) {
            ends_before = Some(batch.events[index].position);
            batch.events.truncate(index);
            batch.to = batch.events.last().map_or(from, |event| event.position);
        }
        TailBatch { batch, ends_before }
    }

    fn fold(&mut self, TailBatch { batch, ends_before }: TailBatch) -> Result<Folded, SearchError> {
        let from = batch.from;
        if batch.to <= from {
            self.ends_before = ends_before;
            return Ok(Folded::Appended);
        }
        let (mut documents, mut committed_keys) = (Vec::new(), Vec::new());
        for key in documents_to_load(&batch) {
            match self.writer.document(&key) {
                // `Some(None)`: the tail has deleted the message. `None`: the tail has no change of it.
                Some(document) => documents.extend(document.cloned()),
                None => committed_keys.push(key),
            }
        }
        if !committed_keys.is_empty() {
            let (position, committed) = self.index.documents_with_position(&committed_keys)?;
            // The committed documents may already have changes of this batch, which must not be folded again.
            if position > from {
                return Ok(Folded::IndexIsAhead);
            }
            documents.extend(committed.into_values());
        }
        let created_positions: HashMap<_, _> =
            documents.iter().map(|document| (document.key, document.created_position)).collect();
        let changes = fold(batch, documents, clock::now());
        self.blocked_streams.record_dead_letters(&changes.new_dead_letters);
        self.writer.append(changes, &created_positions);
        self.ends_before = ends_before;
        Ok(Folded::Appended)
    }
}
