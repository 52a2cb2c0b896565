//! The writing side: one connection, which holds the lock for as long as it lives.

use std::time::Duration;

use async_trait::async_trait;
use chat_domain::{AppToken, MessageNumber, Position};
use futures::future::BoxFuture;
use sqlx::{Connection, PgConnection, query_scalar, raw_sql};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::failure::{NotCreated, SessionLost, Silent, failure};
use super::layout::{self, Found};
use super::session;
use super::url::{Namespace, PostgresUrl};
use super::{commit, load};
use chat_ports::checkpoint::{Checkpoint, Opened};
use chat_ports::dead_letter::{DeadLetter, LetterCounts};
use chat_ports::read_model::{
    AppRow, Changes, ChatKey, ReadModelError, ReadModelWriter, StoredChat, StoredMessage,
};

/// How long a set of statements may take. Postgres itself ends a statement after a minute; this is for a Postgres that
/// says nothing any more.
const ANSWER: Duration = Duration::from_secs(75);

/// The read model in Postgres, for the projection. There is one a namespace, in whatever process: the connection that
/// commits holds an advisory lock, and loses it when it is lost itself.
pub struct PostgresReadModelWriter {
    /// `None` after an error: what became of the session is not known.
    session: Mutex<Option<PgConnection>>,
    /// Whether everything happens in one transaction that is never committed.
    trial: bool,
}

impl PostgresReadModelWriter {
    /// Opens the read model at `url`, and lays it out where there is none.
    ///
    /// [`ReadModelError::InUse`] while another writer has it; [`ReadModelError::Damaged`] where it is of another version
    /// or incomplete; [`ReadModelError::Unavailable`] where Postgres can't be reached, or the namespace holds tables of
    /// something else, which is no reason to move them.
    pub async fn open(url: &PostgresUrl) -> Result<(Self, Opened), ReadModelError> {
        let mut session = lock(url).await?;
        let namespace = url.namespace();
        let found = answered(layout::find(&mut session, namespace)).await?;
        let checked = timeout(ANSWER, layout::check(&mut session, namespace, found)).await;
        checked.map_err(|_| ReadModelError::Unavailable(Box::new(Silent(ANSWER))))??;
        let opened = if found == Found::ReadModel {
            Opened::Existing
        } else {
            answered(lay_out(&mut session, namespace, found)).await?;
            Opened::Created
        };
        Ok((Self { session: Mutex::new(Some(session)), trial: false }, opened))
    }

    /// Renames the namespace, where there is one, to `<name>_damaged` (what was put there before is dropped), and lays
    /// out a new and empty one, in one transaction: readers see one or the other.
    pub async fn open_fresh(url: &PostgresUrl) -> Result<Self, ReadModelError> {
        let mut session = lock(url).await?;
        answered(lay_out_anew(&mut session, url.namespace())).await?;
        Ok(Self { session: Mutex::new(Some(session)), trial: false })
    }

    /// Opens the read model beside whoever writes it, to find out what changes would come to: all that is committed here
    /// is undone when this is dropped, and until then nobody else can commit.
    ///
    /// [`ReadModelError::Unavailable`] where there is no read model, or Postgres can't be reached.
    pub async fn try_out(url: &PostgresUrl) -> Result<Self, ReadModelError> {
        let mut session = session::connect(&session::writes(url)).await?;
        let namespace = url.namespace();
        let found = answered(layout::find(&mut session, namespace)).await?;
        let checked = timeout(ANSWER, layout::check(&mut session, namespace, found)).await;
        checked.map_err(|_| ReadModelError::Unavailable(Box::new(Silent(ANSWER))))??;
        if found != Found::ReadModel {
            return Err(ReadModelError::Unavailable(Box::new(NotCreated)));
        }
        // Nothing ever commits it; the session's end undoes it.
        answered(raw_sql("BEGIN").execute(&mut session)).await?;
        // Before anything is read: what the projector commits in between would move the checkpoint away from it.
        answered(raw_sql("SELECT 1 FROM checkpoint FOR UPDATE").execute(&mut session)).await?;
        Ok(Self { session: Mutex::new(Some(session)), trial: true })
    }

    /// Removes the read model at `url`, and what was put aside of it. Nothing happens where there is none.
    ///
    /// [`ReadModelError::InUse`] while a writer has it; [`ReadModelError::Unavailable`] where the namespace holds tables
    /// of something else, too.
    pub async fn remove(url: &PostgresUrl) -> Result<(), ReadModelError> {
        let mut session = lock(url).await?;
        let namespace = url.namespace();
        match answered(layout::find(&mut session, namespace)).await? {
            Found::Nothing => Ok(()),
            Found::Empty | Found::Incomplete | Found::ReadModel => {
                answered(layout::remove(&mut session, namespace)).await
            }
            found @ Found::Foreign => layout::check(&mut session, namespace, found).await,
        }
    }

    async fn run<T>(
        &self,
        work: impl for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, sqlx::Result<T>> + Send,
    ) -> Result<T, ReadModelError> {
        let mut place = self.session.lock().await;
        // Taken out: neither an error nor a caller that gives up leaves a session in the middle of something.
        let lost = || ReadModelError::Unavailable(Box::new(SessionLost));
        let mut session = place.take().ok_or_else(lost)?;
        let answer = answered(work(&mut session)).await?;
        *place = Some(session);
        Ok(answer)
    }
}

async fn answered<T>(work: impl Future<Output = sqlx::Result<T>>) -> Result<T, ReadModelError> {
    match timeout(ANSWER, work).await {
        Ok(answer) => answer.map_err(failure),
        Err(_) => Err(ReadModelError::Unavailable(Box::new(Silent(ANSWER)))),
    }
}

/// Connects and takes the lock. Its key is of the namespace; Postgres keeps those of each database apart.
async fn lock(url: &PostgresUrl) -> Result<PgConnection, ReadModelError> {
    let mut session = session::connect(&session::writes(url)).await?;
    let taken =
        query_scalar("SELECT pg_try_advisory_lock(hashtextextended('chat-api read model ' || $1, 0))")
            .bind(url.namespace().as_str())
            .fetch_one(&mut session);
    if answered(taken).await? { Ok(session) } else { Err(ReadModelError::InUse) }
}

async fn lay_out(session: &mut PgConnection, namespace: &Namespace, found: Found) -> sqlx::Result<()> {
    let mut transaction = session.begin().await?;
    layout::lay_out(&mut transaction, namespace, found).await?;
    transaction.commit().await
}

async fn lay_out_anew(session: &mut PgConnection, namespace: &Namespace) -> sqlx::Result<()> {
    let mut transaction = session.begin().await?;
    let mut found = layout::find(&mut transaction, namespace).await?;
    if !matches!(found, Found::Nothing | Found::Empty) {
        layout::put_aside(&mut transaction, namespace).await?;
        found = Found::Nothing;
    }
    layout::lay_out(&mut transaction, namespace, found).await?;
    transaction.commit().await
}

#[async_trait]
impl ReadModelWriter for PostgresReadModelWriter {
    async fn checkpoint(&self) -> Result<Checkpoint, ReadModelError> {
        self.run(|db| Box::pin(load::checkpoint(db))).await
    }

    async fn parked_streams(&self) -> Result<Vec<String>, ReadModelError> {
        self.run(|db| Box::pin(load::parked_streams(db))).await
    }

    async fn letter_counts(&self) -> Result<LetterCounts, ReadModelError> {
        self.run(|db| Box::pin(load::letter_counts(db))).await
    }

    async fn letter(&self, position: Position) -> Result<Option<DeadLetter>, ReadModelError> {
        self.run(|db| Box::pin(load::letter(db, position))).await
    }

    async fn parked_of(&self, stream: String, limit: usize) -> Result<Vec<DeadLetter>, ReadModelError> {
        self.run(|db| Box::pin(load::parked_of(db, stream, limit))).await
    }

    async fn apps(&self, tokens: Vec<AppToken>) -> Result<Vec<AppRow>, ReadModelError> {
        self.run(|db| Box::pin(load::apps(db, tokens))).await
    }

    async fn chats(&self, keys: Vec<ChatKey>) -> Result<Vec<StoredChat>, ReadModelError> {
        self.run(|db| Box::pin(load::chats(db, keys))).await
    }

    async fn messages(
        &self,
        keys: Vec<(Position, MessageNumber)>,
    ) -> Result<Vec<StoredMessage>, ReadModelError> {
        self.run(|db| Box::pin(load::messages(db, keys))).await
    }

    async fn commit(&self, changes: Changes) -> Result<(), ReadModelError> {
        let moved = if self.trial {
            self.run(|db| Box::pin(commit::write(db, changes))).await?
        } else {
            self.run(|db| Box::pin(commit::commit(db, changes))).await?
        };
        if moved { Ok(()) } else { Err(ReadModelError::CheckpointMoved) }
    }
}
