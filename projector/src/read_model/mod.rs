//! The read model's projection: [`fold`] between what it loads and what it commits.

mod fold;

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use chat_domain::{AppToken, Position};
use chat_infra::checkpoint::{Checkpoint, Opened};
use chat_infra::clock;
use chat_infra::event_store::{LogId, RecordedEvent};
use chat_infra::read_model::{
    AppRow, ChatKey, ReadModelError, ReadModelWriter, SqliteReadModel, SqliteReadModelWriter, StoredChat,
};
use quick_cache::unsync::Cache;

use crate::parking::{Letters, Parked};
use crate::projection::{Pace, Projection, ProjectionError, Target, fold_aside};
use crate::stretch::Stretch;

pub use fold::{Folded, Rows, Wanted, fold};

/// The read model in a SQLite file.
#[derive(Clone, Debug)]
pub struct SqliteReadModelTarget {
    /// The file.
    pub path: PathBuf,
}

/// The projection's name.
pub(crate) const NAME: &str = "read_model";

#[async_trait]
impl Target for SqliteReadModelTarget {
    type Projection = ReadModelProjection<SqliteReadModelWriter>;

    fn name(&self) -> &'static str {
        NAME
    }

    fn pace(&self) -> Pace {
        // A commit of one event costs a fraction of a millisecond (nothing is synced): no rest is needed.
        Pace { max_events: 4_096, max_bytes: 8 << 20, rest: 0, max_rest: Duration::ZERO }
    }

    async fn open(&self) -> Result<(Self::Projection, Opened), ProjectionError> {
        let path = self.path.clone();
        let (writer, opened) = blocking(move || SqliteReadModelWriter::open(&path)).await?;
        Ok((ReadModelProjection::load(writer).await?, opened))
    }

    async fn verify(&self) -> Result<(), ProjectionError> {
        Ok(SqliteReadModel::new(&self.path).verify().await?)
    }

    async fn open_fresh(&self) -> Result<Self::Projection, ProjectionError> {
        let path = self.path.clone();
        let writer = blocking(move || SqliteReadModelWriter::open_fresh(&path)).await?;
        Ok(ReadModelProjection::load(writer).await?)
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ReadModelError> + Send + 'static,
) -> Result<T, ReadModelError> {
    let ended = |error| ReadModelError::Unavailable(Box::new(error));
    tokio::task::spawn_blocking(work).await.map_err(ended)?
}

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
