//! The read model's projection: loads rows, folds a batch, commits the changes.

use std::sync::Arc;

use async_trait::async_trait;
use chat_domain::projection::ProjectionName;
use chat_domain::{AppToken, Position};
use chat_ports::clock;
use chat_ports::dead_letter::DeadLetter;
use chat_ports::event_store::{LogId, RecordedEvent};
use chat_ports::projection_checkpoint::ProjectionCheckpoint;
use chat_ports::read_model::{
    AppRow, ChatKey, ReadModelChanges, ReadModelError, ReadModelWriter, StoredChat,
};
use quick_cache::unsync::Cache;
use tokio::task::JoinHandle;

use super::fold::{FoldOutput, LoadedRows, RowsToLoad, fold};
use crate::dead_letters::blocked_streams::{BlockedStreams, log_dead_letters};
use crate::dead_letters::{DeadLetterQueue, RetryBatch, RetryOutcome};
use crate::decoded_batch::DecodedBatch;
use crate::projection::blocking::run_inline_or_blocking;
use crate::projection::{Projection, ProjectionError};

/// The numbers of rows that are cached between batches. Chats are cached because every message changes its chat's row,
/// apps because every new chat changes its app's row. Messages are not cached because they seldom change.
const MAX_CACHED_APPS: usize = 4_096;
const MAX_CACHED_CHATS: usize = 16_384;

/// The maximal number of events of a chunk. While one chunk of a batch is being stored, the next one is decoded. It is
/// also folded meanwhile if all rows that it needs are cached.
const CHUNK_EVENTS: usize = 8_192;

/// The read model's projection, for any storage engine.
pub struct ReadModelProjection {
    writer: Arc<dyn ReadModelWriter>,
    checkpoint: ProjectionCheckpoint,
    blocked_streams: BlockedStreams,
    apps: Cache<AppToken, AppRow>,
    chats: Cache<ChatKey, StoredChat>,
}

/// The log and the positions of events that are folded together.
#[derive(Clone, Copy)]
struct BatchRange {
    log: LogId,
    from: Position,
    to: Position,
}

/// A chunk that is being stored. Dropping it aborts the commit. The chunk may be stored nevertheless: when the
/// projection is opened again, the checkpoint shows whether it was.
struct PendingCommit {
    dead_letters: Vec<DeadLetter>,
    checkpoint: ProjectionCheckpoint,
    commit: JoinHandle<Result<(), ReadModelError>>,
}

impl Drop for PendingCommit {
    fn drop(&mut self) {
        self.commit.abort();
    }
}

impl ReadModelProjection {
    /// Loads the checkpoint, the blocked streams and the counts of dead letters of a read model.
    pub async fn load(writer: Arc<dyn ReadModelWriter>) -> Result<Self, ReadModelError> {
        let checkpoint = writer.checkpoint().await?;
        let blocked_streams =
            BlockedStreams::load(writer.blocked_streams().await?, writer.dead_letter_counts().await?);
        Ok(Self {
            writer,
            checkpoint,
            blocked_streams,
            apps: Cache::new(MAX_CACHED_APPS),
            chats: Cache::new(MAX_CACHED_CHATS),
        })
    }

    /// Folds events that follow `range.from`, also while the previous chunk (`pending`) is not stored yet. Afterwards
    /// the caches and counts include the changes. If the changes can't be stored, this projection must be dropped.
    async fn fold_chunk(
        &mut self,
        range: BatchRange,
        events: Vec<RecordedEvent>,
        pending: &mut Option<PendingCommit>,
    ) -> Result<ReadModelChanges, ProjectionError> {
        let count = events.len();
        let BatchRange { log, from, to } = range;
        let mut batch =
            run_inline_or_blocking(count, move || DecodedBatch::decode(log, from, to, events)).await?;
        self.blocked_streams.mark(&mut batch);
        let rows = self.load_rows(RowsToLoad::for_batch(&batch), pending).await?;
        let FoldOutput { changes, apps, chats } =
            run_inline_or_blocking(count, move || fold(batch, rows, clock::now())).await?;
        self.blocked_streams.record_dead_letters(&changes.new_dead_letters);
        self.cache_rows(apps, chats);
        Ok(changes)
    }

    /// Waits until the pending chunk, if any, is stored, and moves the checkpoint to its end.
    async fn wait_for_commit(&mut self, pending: &mut Option<PendingCommit>) -> Result<(), ProjectionError> {
        let Some(mut pending) = pending.take() else { return Ok(()) };
        (&mut pending.commit).await??;
        log_dead_letters(ProjectionName::ReadModel, &pending.dead_letters);
        self.checkpoint = pending.checkpoint;
        Ok(())
    }

    /// Loads the existing rows with these keys. Rows that are not cached are read after the pending chunk is stored.
    async fn load_rows(
        &mut self,
        keys: RowsToLoad,
        pending: &mut Option<PendingCommit>,
    ) -> Result<LoadedRows, ProjectionError> {
        let mut rows = LoadedRows::default();
        let mut uncached = Vec::new();
        for token in keys.apps {
            match self.apps.get(&token) {
                Some(app) => drop(rows.apps.insert(token, app.clone())),
                None => uncached.push(token),
            }
        }
        if !uncached.is_empty() {
            self.wait_for_commit(pending).await?;
            let apps = self.writer.apps(uncached).await?;
            rows.apps.extend(apps.into_iter().map(|app| (app.token, app)));
        }
        let mut uncached = Vec::new();
        for key in keys.chats {
            match self.chats.get(&key) {
                Some(chat) => drop(rows.chats.insert(key, chat.clone())),
                None => uncached.push(key),
            }
        }
        if !uncached.is_empty() {
            self.wait_for_commit(pending).await?;
            let chats = self.writer.chats(uncached).await?;
            rows.chats.extend(chats.into_iter().map(|chat| (chat.key(), chat)));
        }
        let may_be_stored: Vec<_> = keys
            .messages
            .into_iter()
            .filter_map(|(key, number)| {
                let chat = rows.chats.get(&key)?;
                (Some(number) <= chat.last_message).then_some((chat.id, number))
            })
            .collect();
        if !may_be_stored.is_empty() {
            self.wait_for_commit(pending).await?;
            let messages = self.writer.messages(may_be_stored).await?;
            rows.messages.extend(
                messages.into_iter().map(|message| ((message.chat_id, message.number), message.state)),
            );
        }
        Ok(rows)
    }

    fn cache_rows(&mut self, apps: Vec<AppRow>, chats: Vec<StoredChat>) {
        for app in apps {
            self.apps.insert(app.token, app);
        }
        for chat in chats {
            self.chats.insert(chat.key(), chat);
        }
    }
}

#[async_trait]
impl Projection for ReadModelProjection {
    fn checkpoint(&self) -> ProjectionCheckpoint {
        self.checkpoint
    }

    fn dead_letter_count(&self) -> u64 {
        self.blocked_streams.dead_letter_count()
    }

    fn discarded_count(&self) -> u64 {
        self.blocked_streams.discarded_count()
    }

    fn dead_letter_queue(&mut self) -> &mut dyn DeadLetterQueue {
        self
    }

    async fn verify_checkpoint(&mut self) -> Result<(), ProjectionError> {
        let stored = self.writer.checkpoint().await?;
        if stored == self.checkpoint { Ok(()) } else { Err(ProjectionError::CheckpointMoved) }
    }

    async fn adopt_log(&mut self, log: LogId) -> Result<(), ProjectionError> {
        self.writer.adopt_log(self.checkpoint, log).await?;
        self.checkpoint.log = Some(log);
        Ok(())
    }

    async fn fold(
        &mut self,
        log: LogId,
        events: Vec<RecordedEvent>,
        up_to: Position,
    ) -> Result<(), ProjectionError> {
        let mut from = self.checkpoint.position;
        let mut events = events.into_iter();
        let mut pending = None;
        loop {
            let chunk: Vec<_> = events.by_ref().take(CHUNK_EVENTS).collect();
            let is_last = events.len() == 0;
            let to = match chunk.last() {
                Some(event) if !is_last => event.position,
                _ => up_to,
            };
            let folded = self.fold_chunk(BatchRange { log, from, to }, chunk, &mut pending).await;
            // The wait is necessary also if the fold failed, so that the checkpoint includes the previous chunk.
            self.wait_for_commit(&mut pending).await?;
            let changes = folded?;
            let dead_letters = changes.new_dead_letters.clone();
            let checkpoint = ProjectionCheckpoint { log: Some(log), position: to };
            if is_last {
                self.writer.commit(changes).await?;
                log_dead_letters(ProjectionName::ReadModel, &dead_letters);
                self.checkpoint = checkpoint;
                return Ok(());
            }
            let writer = Arc::clone(&self.writer);
            let commit = tokio::spawn(async move { writer.commit(changes).await });
            pending = Some(PendingCommit { dead_letters, checkpoint, commit });
            from = to;
        }
    }
}

#[async_trait]
impl DeadLetterQueue for ReadModelProjection {
    fn projection(&self) -> ProjectionName {
        ProjectionName::ReadModel
    }

    async fn dead_letter(&mut self, position: Position) -> Result<Option<DeadLetter>, ProjectionError> {
        Ok(self.writer.dead_letter(position).await?)
    }

    async fn dead_letters_of_stream(
        &mut self,
        stream: &str,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, ProjectionError> {
        Ok(self.writer.dead_letters_of_stream(stream.to_owned(), limit).await?)
    }

    async fn retry(&mut self, batch: RetryBatch) -> Result<RetryOutcome, ProjectionError> {
        let (count, log) = (batch.events.len(), batch.log);
        let from = self.checkpoint.position;
        let (batch, pending_retry) = run_inline_or_blocking(count, move || batch.into_batch(from)).await?;
        let rows = self.load_rows(RowsToLoad::for_batch(&batch), &mut None).await?;
        let FoldOutput { mut changes, apps, chats } =
            run_inline_or_blocking(count, move || fold(batch, rows, clock::now())).await?;
        let outcome = pending_retry.into_outcome(std::mem::take(&mut changes.new_dead_letters));
        changes.to = outcome.checkpoint_position;
        changes.resolved_dead_letters.clone_from(&outcome.applied);
        changes.changed_dead_letters.clone_from(&outcome.updated);
        self.writer.commit(changes).await?;

        self.blocked_streams.record_retry(&outcome);
        self.checkpoint = ProjectionCheckpoint { log: Some(log), position: outcome.checkpoint_position };
        self.cache_rows(apps, chats);
        Ok(outcome)
    }

    async fn advance_checkpoint(
        &mut self,
        log: LogId,
        to: Position,
        acknowledged: Option<DeadLetter>,
    ) -> Result<(), ProjectionError> {
        let is_acknowledgement = acknowledged.is_some();
        let changed_dead_letters = acknowledged.into_iter().collect();
        let from = self.checkpoint.position;
        self.writer
            .commit(ReadModelChanges { changed_dead_letters, ..ReadModelChanges::empty(log, from, to) })
            .await?;
        if is_acknowledgement {
            self.blocked_streams.record_acknowledgement();
        }
        self.checkpoint = ProjectionCheckpoint { log: Some(log), position: to };
        Ok(())
    }
}
