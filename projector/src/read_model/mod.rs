//! The read model's projection: [`fold`] between what it loads and what it commits.

mod fold;
mod postgres_target;
mod sqlite_target;

use std::sync::Arc;

use async_trait::async_trait;
use chat_domain::operation::ProjectionName;
use chat_domain::{AppToken, Position};
use chat_ports::checkpoint::Checkpoint;
use chat_ports::clock;
use chat_ports::dead_letter::DeadLetter;
use chat_ports::event_store::{LogId, RecordedEvent};
use chat_ports::read_model::{AppRow, Changes, ChatKey, ReadModelError, ReadModelWriter, StoredChat};
use quick_cache::unsync::Cache;
use tokio::task::JoinHandle;

use crate::letters::{Again, LetterBox, Settled};
use crate::parking::{Letters, Parked};
use crate::projection::{Projection, ProjectionError, fold_aside};
use crate::stretch::Stretch;

pub use fold::{Folded, Rows, Wanted, fold};
pub use postgres_target::PostgresReadModelTarget;
pub use sqlite_target::SqliteReadModelTarget;

/// The projection's name.
pub(crate) const NAME: &str = "read_model";

/// Rows of apps and chats that are kept between stretches, at most. A chat's row is read and written with every
/// message, so it pays; messages are written once and seldom again.
const CACHED_APPS: usize = 4_096;
const CACHED_CHATS: usize = 16_384;

/// A longer stretch is folded in pieces of so many events, each with a commit of its own: while one is stored, the next is
/// folded.
const PIECE: usize = 8_192;

/// The read model's projection, through whichever adapter.
pub struct ReadModelProjection<W> {
    writer: Arc<W>,
    checkpoint: Checkpoint,
    parked: Parked,
    apps: Cache<AppToken, AppRow>,
    chats: Cache<ChatKey, StoredChat>,
}

/// Events that are folded together: after which position of which log they start, and where they end.
#[derive(Clone, Copy)]
struct Span {
    log: LogId,
    from: Position,
    to: Position,
}

/// A piece of a stretch that is being stored. Dropped before, it is given up: whether it was stored shows when the
/// projection is opened again.
struct Storing {
    letters: Letters,
    /// Where it ends.
    checkpoint: Checkpoint,
    commit: JoinHandle<Result<(), ReadModelError>>,
}

impl Drop for Storing {
    fn drop(&mut self) {
        self.commit.abort();
    }
}

impl<W: ReadModelWriter + 'static> ReadModelProjection<W> {
    /// Starts from where the read model stands.
    pub async fn load(writer: W) -> Result<Self, ReadModelError> {
        let checkpoint = writer.checkpoint().await?;
        let parked = Parked::load(writer.parked_streams().await?, writer.letter_counts().await?);
        Ok(Self {
            writer: Arc::new(writer),
            checkpoint,
            parked,
            apps: Cache::new(CACHED_APPS),
            chats: Cache::new(CACHED_CHATS),
        })
    }

    /// Folds events that follow `from`, while an earlier piece may still be on its way into storage. What becomes of them
    /// counts from here on: where it can't be stored, this projection is of no more use.
    async fn fold_piece(
        &mut self,
        Span { log, from, to }: Span,
        events: Vec<RecordedEvent>,
        storing: &mut Option<Storing>,
    ) -> Result<(Changes, Letters), ProjectionError> {
        let count = events.len();
        let mut stretch = fold_aside(count, move || Stretch::read(log, from, to, events)).await?;
        stretch.mark(&self.parked);
        let rows = self.rows(Wanted::by(&stretch), storing).await?;
        let Folded { changes, apps, chats } =
            fold_aside(count, move || fold(stretch, rows, clock::now())).await?;
        let letters = Letters(changes.parked.clone());
        self.parked.add(&letters);
        self.remember(apps, chats);
        Ok((changes, letters))
    }

    /// Waits until an earlier piece is stored, and stands where it ends.
    async fn stored(&mut self, storing: &mut Option<Storing>) -> Result<(), ReadModelError> {
        let Some(mut storing) = storing.take() else { return Ok(()) };
        (&mut storing.commit).await.map_err(|ended| ReadModelError::Unavailable(Box::new(ended)))??;
        storing.letters.log(NAME);
        self.checkpoint = storing.checkpoint;
        Ok(())
    }

    /// The rows that are wanted, as far as they exist. Those that are not kept here are read once an earlier piece is
    /// stored.
    async fn rows(&mut self, wanted: Wanted, storing: &mut Option<Storing>) -> Result<Rows, ReadModelError> {
        let mut rows = Rows::default();
        let mut unknown = Vec::new();
        for token in wanted.apps {
            match self.apps.get(&token) {
                Some(app) => drop(rows.apps.insert(token, app.clone())),
                None => unknown.push(token),
            }
        }
        if !unknown.is_empty() {
            self.stored(storing).await?;
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
            self.stored(storing).await?;
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
            self.stored(storing).await?;
            let messages = self.writer.messages(stored).await?;
            rows.messages.extend(
                messages.into_iter().map(|message| ((message.chat_id, message.number), message.state)),
            );
        }
        Ok(rows)
    }

    fn remember(&mut self, apps: Vec<AppRow>, chats: Vec<StoredChat>) {
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
    fn checkpoint(&self) -> Checkpoint {
        self.checkpoint
    }

    fn parked(&self) -> u64 {
        self.parked.events()
    }

    fn discarded(&self) -> u64 {
        self.parked.discarded()
    }

    fn letter_box(&mut self) -> &mut dyn LetterBox {
        self
    }

    async fn check(&mut self) -> Result<(), ProjectionError> {
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
            let piece: Vec<_> = events.by_ref().take(PIECE).collect();
            let to = match piece.last() {
                Some(event) if events.len() > 0 => event.position,
                _ => up_to,
            };
            let folded = self.fold_piece(Span { log, from, to }, piece, &mut storing).await;
            self.stored(&mut storing).await?;
            let (changes, letters) = folded?;
            let checkpoint = Checkpoint { log: Some(log), position: to };
            if events.len() == 0 {
                self.writer.commit(changes).await?;
                letters.log(NAME);
                self.checkpoint = checkpoint;
                return Ok(());
            }
            let writer = Arc::clone(&self.writer);
            let commit = tokio::spawn(async move { writer.commit(changes).await });
            storing = Some(Storing { letters, checkpoint, commit });
            from = to;
        }
    }
}

#[async_trait]
impl<W: ReadModelWriter + 'static> LetterBox for ReadModelProjection<W> {
    fn projection(&self) -> ProjectionName {
        ProjectionName::ReadModel
    }

    async fn letter(&mut self, position: Position) -> Result<Option<DeadLetter>, ProjectionError> {
        Ok(self.writer.letter(position).await?)
    }

    async fn parked_of(&mut self, stream: &str, limit: usize) -> Result<Vec<DeadLetter>, ProjectionError> {
        Ok(self.writer.parked_of(stream.to_owned(), limit).await?)
    }

    async fn fold_again(&mut self, again: Again) -> Result<Settled, ProjectionError> {
        let (count, log) = (again.events.len(), again.log);
        let from = self.checkpoint.position;
        let (stretch, piece) = fold_aside(count, move || again.open(from)).await?;
        let mut nothing_before = None;
        let rows = self.rows(Wanted::by(&stretch), &mut nothing_before).await?;
        let Folded { mut changes, apps, chats } =
            fold_aside(count, move || fold(stretch, rows, clock::now())).await?;
        let settled = piece.settle(std::mem::take(&mut changes.parked));
        changes.to = settled.to;
        changes.unparked.clone_from(&settled.unparked);
        changes.marked.clone_from(&settled.marked);
        self.writer.commit(changes).await?;

        self.parked.settle(&settled);
        self.checkpoint = Checkpoint { log: Some(log), position: settled.to };
        self.remember(apps, chats);
        Ok(settled)
    }

    async fn pass(
        &mut self,
        log: LogId,
        to: Position,
        acknowledged: Option<DeadLetter>,
    ) -> Result<(), ProjectionError> {
        let marks = acknowledged.is_some();
        let marked = acknowledged.into_iter().collect();
        let from = self.checkpoint.position;
        self.writer.commit(Changes { marked, ..Changes::none(log, from, to) }).await?;
        if marks {
            self.parked.acknowledge();
        }
        self.checkpoint = Checkpoint { log: Some(log), position: to };
        Ok(())
    }
}
