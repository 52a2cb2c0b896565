//! The read model's projection: [`fold`] between what it loads and what it commits.

mod fold;
mod postgres_store;
mod sqlite_store;

use std::sync::Arc;

use async_trait::async_trait;
use chat_domain::operator_action::ProjectionName;
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

use crate::dead_letters::{BlockedStreams, DeadLetters};
use crate::dead_letters::{DeadLetterQueue, RetryBatch, RetryOutcome};
use crate::decoded_batch::DecodedBatch;
use crate::projection::{Projection, ProjectionError, run_inline_or_blocking};

pub use fold::{FoldOutput, LoadedRows, RowsToLoad, fold};
pub use postgres_store::PostgresReadModelStore;
pub use sqlite_store::SqliteReadModelStore;

/// The projection's name.
pub(crate) const NAME: &str = "read_model";

/// Rows of apps and chats that are kept between stretches, at most. A chat's row is read and written with every
/// message, so it pays; messages are written once and seldom again.
const MAX_CACHED_APPS: usize = 4_096;
const MAX_CACHED_CHATS: usize = 16_384;

/// A longer stretch is folded in pieces of so many events, each with a commit of its own: while one is stored, the next is
/// folded.
const CHUNK_EVENTS: usize = 8_192;

/// The read model's projection, through whichever adapter.
pub struct ReadModelProjection<W> {
    writer: Arc<W>,
    checkpoint: ProjectionCheckpoint,
    blocked_streams: BlockedStreams,
    apps: Cache<AppToken, AppRow>,
    chats: Cache<ChatKey, StoredChat>,
}

/// Events that are folded together: after which position of which log they start, and where they end.
#[derive(Clone, Copy)]
struct BatchRange {
    log: LogId,
    from: Position,
    to: Position,
}

/// A piece of a stretch that is being stored. Dropped before, it is given up: whether it was stored shows when the
/// projection is opened again.
struct PendingCommit {
    letters: DeadLetters,
    /// Where it ends.
    checkpoint: ProjectionCheckpoint,
    commit: JoinHandle<Result<(), ReadModelError>>,
}

impl Drop for PendingCommit {
    fn drop(&mut self) {
        self.commit.abort();
    }
}

impl<W: ReadModelWriter + 'static> ReadModelProjection<W> {
    /// Starts from where the read model stands.
    pub async fn load(writer: W) -> Result<Self, ReadModelError> {
        let checkpoint = writer.checkpoint().await?;
        let parked =
            BlockedStreams::load(writer.blocked_streams().await?, writer.dead_letter_counts().await?);
        Ok(Self {
            writer: Arc::new(writer),
            checkpoint,
            blocked_streams: parked,
            apps: Cache::new(MAX_CACHED_APPS),
            chats: Cache::new(MAX_CACHED_CHATS),
        })
    }

    /// Folds events that follow `from`, while an earlier piece may still be on its way into storage. What becomes of them
    /// counts from here on: where it can't be stored, this projection is of no more use.
    async fn fold_chunk(
        &mut self,
        BatchRange { log, from, to }: BatchRange,
        events: Vec<RecordedEvent>,
        storing: &mut Option<PendingCommit>,
    ) -> Result<(ReadModelChanges, DeadLetters), ProjectionError> {
        let count = events.len();
        let mut stretch =
            run_inline_or_blocking(count, move || DecodedBatch::decode(log, from, to, events)).await?;
        stretch.mark_blocked_streams(&self.blocked_streams);
        let rows = self.load_rows(RowsToLoad::for_batch(&stretch), storing).await?;
        let FoldOutput { changes, apps, chats } =
            run_inline_or_blocking(count, move || fold(stretch, rows, clock::now())).await?;
        let letters = DeadLetters(changes.new_dead_letters.clone());
        self.blocked_streams.record_dead_letters(&letters);
        self.cache_rows(apps, chats);
        Ok((changes, letters))
    }

    /// Waits until an earlier piece is stored, and stands where it ends.
    async fn wait_for_commit(&mut self, storing: &mut Option<PendingCommit>) -> Result<(), ReadModelError> {
        let Some(mut storing) = storing.take() else { return Ok(()) };
        (&mut storing.commit).await.map_err(|ended| ReadModelError::Unavailable(Box::new(ended)))??;
        storing.letters.log_warnings(NAME);
        self.checkpoint = storing.checkpoint;
        Ok(())
    }

    /// The rows that are wanted, as far as they exist. Those that are not kept here are read once an earlier piece is
    /// stored.
    async fn load_rows(
        &mut self,
        wanted: RowsToLoad,
        storing: &mut Option<PendingCommit>,
    ) -> Result<LoadedRows, ReadModelError> {
        let mut rows = LoadedRows::default();
        let mut unknown = Vec::new();
        for token in wanted.apps {
            match self.apps.get(&token) {
                Some(app) => drop(rows.apps.insert(token, app.clone())),
                None => unknown.push(token),
            }
        }
        if !unknown.is_empty() {
            self.wait_for_commit(storing).await?;
            let apps = self.writer.apps(unknown).await?;
            rows.apps.extend(apps.into_iter().map(|app| (app.token, app)));
        }
        let mut unknown = Vec::new();
        for key in wanted.chats {
            match self.chats.get(&key) {
                Some(chat) => drop(rows.chats.insert(key, chat.clone())),
                None => unknown.push(key),
            }
        }
        if !unknown.is_empty() {
            self.wait_for_commit(storing).await?;
            let chats = self.writer.chats(unknown).await?;
            rows.chats.extend(chats.into_iter().map(|chat| (chat.key(), chat)));
        }
        let stored: Vec<_> = wanted
            .messages
            .into_iter()
            .filter_map(|(key, number)| {
                let chat = rows.chats.get(&key)?;
                (Some(number) <= chat.last_message).then_some((chat.id, number))
            })
            .collect();
        if !stored.is_empty() {
            self.wait_for_commit(storing).await?;
            let messages = self.writer.messages(stored).await?;
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
impl<W: ReadModelWriter + 'static> Projection for ReadModelProjection<W> {
    fn checkpoint(&self) -> ProjectionCheckpoint {
        self.checkpoint
    }

    fn dead_letter_count(&self) -> u64 {
        self.blocked_streams.events()
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

    async fn fold(
        &mut self,
        log: LogId,
        events: Vec<RecordedEvent>,
        up_to: Position,
    ) -> Result<(), ProjectionError> {
        let mut from = self.checkpoint.position;
        let mut events = events.into_iter();
        let mut storing = None;
        loop {
            let piece: Vec<_> = events.by_ref().take(CHUNK_EVENTS).collect();
            let to = match piece.last() {
                Some(event) if events.len() > 0 => event.position,
                _ => up_to,
            };
            let folded = self.fold_chunk(BatchRange { log, from, to }, piece, &mut storing).await;
            self.wait_for_commit(&mut storing).await?;
            let (changes, letters) = folded?;
            let checkpoint = ProjectionCheckpoint { log: Some(log), position: to };
            if events.len() == 0 {
                self.writer.commit(changes).await?;
                letters.log_warnings(NAME);
                self.checkpoint = checkpoint;
                return Ok(());
            }
            let writer = Arc::clone(&self.writer);
            let commit = tokio::spawn(async move { writer.commit(changes).await });
            storing = Some(PendingCommit { letters, checkpoint, commit });
            from = to;
        }
    }
}

#[async_trait]
impl<W: ReadModelWriter + 'static> DeadLetterQueue for ReadModelProjection<W> {
    fn projection(&self) -> ProjectionName {
        ProjectionName::ReadModel
    }

    async fn letter(&mut self, position: Position) -> Result<Option<DeadLetter>, ProjectionError> {
        Ok(self.writer.letter(position).await?)
    }

    async fn dead_letters_of_stream(
        &mut self,
        stream: &str,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, ProjectionError> {
        Ok(self.writer.dead_letters_of_stream(stream.to_owned(), limit).await?)
    }

    async fn retry(&mut self, again: RetryBatch) -> Result<RetryOutcome, ProjectionError> {
        let (count, log) = (again.events.len(), again.log);
        let from = self.checkpoint.position;
        let (stretch, piece) = run_inline_or_blocking(count, move || again.into_batch(from)).await?;
        let mut nothing_before = None;
        let rows = self.load_rows(RowsToLoad::for_batch(&stretch), &mut nothing_before).await?;
        let FoldOutput { mut changes, apps, chats } =
            run_inline_or_blocking(count, move || fold(stretch, rows, clock::now())).await?;
        let settled = piece.into_outcome(std::mem::take(&mut changes.new_dead_letters));
        changes.to = settled.checkpoint_position;
        changes.resolved_dead_letters.clone_from(&settled.applied);
        changes.changed_dead_letters.clone_from(&settled.updated);
        self.writer.commit(changes).await?;

        self.blocked_streams.record_retry(&settled);
        self.checkpoint = ProjectionCheckpoint { log: Some(log), position: settled.checkpoint_position };
        self.cache_rows(apps, chats);
        Ok(settled)
    }

    async fn advance_checkpoint(
        &mut self,
        log: LogId,
        to: Position,
        acknowledged: Option<DeadLetter>,
    ) -> Result<(), ProjectionError> {
        let marks = acknowledged.is_some();
        let changed_dead_letters = acknowledged.into_iter().collect();
        let from = self.checkpoint.position;
        self.writer
            .commit(ReadModelChanges { changed_dead_letters, ..ReadModelChanges::empty(log, from, to) })
            .await?;
        if marks {
            self.blocked_streams.record_acknowledgement();
        }
        self.checkpoint = ProjectionCheckpoint { log: Some(log), position: to };
        Ok(())
    }
}
