//! The read model's projection: [`fold`] between what it loads and what it commits.

mod fold;
mod postgres_target;
mod sqlite_target;

use async_trait::async_trait;
use chat_domain::{AppToken, Position};
use chat_infra::checkpoint::Checkpoint;
use chat_infra::clock;
use chat_infra::event_store::{LogId, RecordedEvent};
use chat_infra::read_model::{AppRow, ChatKey, ReadModelError, ReadModelWriter, StoredChat};
use quick_cache::unsync::Cache;

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

/// The read model's projection, through whichever adapter.
pub struct ReadModelProjection<W> {
    writer: W,
    checkpoint: Checkpoint,
    parked: Parked,
    apps: Cache<AppToken, AppRow>,
    chats: Cache<ChatKey, StoredChat>,
}

impl<W: ReadModelWriter> ReadModelProjection<W> {
    /// Starts from where the read model stands.
    pub async fn load(writer: W) -> Result<Self, ReadModelError> {
        let checkpoint = writer.checkpoint().await?;
        let parked = Parked::load(writer.parked_streams().await?, writer.parked_events().await?);
        Ok(Self {
            writer,
            checkpoint,
            parked,
            apps: Cache::new(CACHED_APPS),
            chats: Cache::new(CACHED_CHATS),
        })
    }

    /// The rows that are wanted, as far as they exist.
    async fn rows(&self, wanted: Wanted) -> Result<Rows, ReadModelError> {
        let mut rows = Rows::default();
        let mut unknown = Vec::new();
        for token in wanted.apps {
            match self.apps.get(&token) {
                Some(app) => drop(rows.apps.insert(token, app.clone())),
                None => unknown.push(token),
            }
        }
        if !unknown.is_empty() {
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
            let messages = self.writer.messages(stored).await?;
            rows.messages.extend(
                messages.into_iter().map(|message| ((message.chat_id, message.number), message.state)),
            );
        }
        Ok(rows)
    }
}

#[async_trait]
impl<W: ReadModelWriter> Projection for ReadModelProjection<W> {
    fn checkpoint(&self) -> Checkpoint {
        self.checkpoint
    }

    fn parked(&self) -> u64 {
        self.parked.events()
    }

    async fn check(&mut self) -> Result<(), ProjectionError> {
        let stored = self.writer.checkpoint().await?;
        if stored == self.checkpoint { Ok(()) } else { Err(ProjectionError::CheckpointMoved) }
    }

    async fn apply(
        &mut self,
        log: LogId,
        events: Vec<RecordedEvent>,
        up_to: Position,
    ) -> Result<(), ProjectionError> {
        let (count, from) = (events.len(), self.checkpoint.position);
        let mut stretch = fold_aside(count, move || Stretch::read(log, from, up_to, events)).await?;
        stretch.mark(&self.parked);
        let rows = self.rows(Wanted::by(&stretch)).await?;
        let Folded { changes, apps, chats } =
            fold_aside(count, move || fold(stretch, rows, clock::now())).await?;
        let letters = Letters(changes.parked.clone());
        self.writer.commit(changes).await?;

        letters.log(NAME);
        self.parked.add(&letters);
        self.checkpoint = Checkpoint { log: Some(log), position: up_to };
        for app in apps {
            self.apps.insert(app.token, app);
        }
        for chat in chats {
            self.chats.insert(chat.key(), chat);
        }
        Ok(())
    }
}
