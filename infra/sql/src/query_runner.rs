//! The read model port over any SQL engine.

use std::ops::Deref;

use async_trait::async_trait;
use chat_domain::{AppToken, ChatNumber, MessageNumber, Position, SenderId};

use super::dead_letters::{ListDeadLetters, ListPendingDeadLetters};
use super::get::{GetApp, GetChat, GetCheckpoint, GetMessage, GetPosition};
use super::list::{ListApps, ListChats, ListMessages};
use super::query::Query;
use chat_ports::content_digest::ContentDigest;
use chat_ports::dead_letter::{DeadLetter, DeadLetterPage, DeadLetterQuery};
use chat_ports::projection_checkpoint::ProjectionCheckpoint;
use chat_ports::projection_contents::ProjectionContents;
use chat_ports::read_model::{
    AppRow, ChatRow, MessagePage, MessageRow, MessageWindow, Missing, ReadModel, ReadModelError, Snapshot,
};

/// A database engine that runs the statements of this crate.
pub trait SqlEngine: Send + Sync + 'static {
    /// The file or URL of a read model.
    type Location;

    /// Creates the engine of the read model at `location`, with a number of connections that suits the machine.
    /// Connects when it is first used; the read model need not exist yet.
    fn new(location: Self::Location) -> Self;

    /// Like [`Self::new`], with a limited number of connections: further queries wait for a free one.
    fn with_connections(location: Self::Location, connections: usize) -> Self;

    /// Runs a query.
    fn run_query<Q: Query>(&self, query: Q)
    -> impl Future<Output = Result<Q::Output, ReadModelError>> + Send;

    /// Reads all contents in one snapshot.
    fn read_contents(
        &self,
    ) -> impl Future<Output = Result<Snapshot<ProjectionContents>, ReadModelError>> + Send;
}

/// A read model in a SQL database, for queries.
#[derive(Clone)]
pub struct SqlReadModel<E>(E);

impl<E: SqlEngine> SqlReadModel<E> {
    /// The read model at `location`. It need not exist yet: until a projector has created it, queries return
    /// [`ReadModelError::Unavailable`].
    pub fn new(location: impl Into<E::Location>) -> Self {
        Self(E::new(location.into()))
    }

    /// Like [`Self::new`], with a limited number of connections: further queries wait for a free one.
    pub fn with_connections(location: impl Into<E::Location>, connections: usize) -> Self {
        Self(E::with_connections(location.into(), connections))
    }
}

impl<E> Deref for SqlReadModel<E> {
    type Target = E;

    fn deref(&self) -> &E {
        &self.0
    }
}

#[async_trait]
impl<E: SqlEngine> ReadModel for SqlReadModel<E> {
    async fn position(&self) -> Result<Position, ReadModelError> {
        self.0.run_query(GetPosition::default()).await
    }

    async fn checkpoint(&self) -> Result<ProjectionCheckpoint, ReadModelError> {
        self.0.run_query(GetCheckpoint::default()).await
    }

    async fn app(&self, token: AppToken) -> Result<Snapshot<Result<AppRow, Missing>>, ReadModelError> {
        self.0.run_query(GetApp::new(token)).await
    }

    async fn apps(&self, after: Position, limit: usize) -> Result<Snapshot<Vec<AppRow>>, ReadModelError> {
        self.0.run_query(ListApps::new(after, limit)).await
    }

    async fn chat(
        &self,
        token: AppToken,
        number: ChatNumber,
    ) -> Result<Snapshot<Result<ChatRow, Missing>>, ReadModelError> {
        self.0.run_query(GetChat::new(token, number)).await
    }

    async fn chats(
        &self,
        token: AppToken,
        after: Option<ChatNumber>,
        limit: usize,
    ) -> Result<Snapshot<Result<Vec<ChatRow>, Missing>>, ReadModelError> {
        self.0.run_query(ListChats::new(token, after, limit)).await
    }

    async fn message(
        &self,
        token: AppToken,
        chat: ChatNumber,
        number: MessageNumber,
    ) -> Result<Snapshot<Result<MessageRow, Missing>>, ReadModelError> {
        self.0.run_query(GetMessage::new(token, chat, number)).await
    }

    async fn messages(
        &self,
        token: AppToken,
        chat: ChatNumber,
        window: MessageWindow,
        limit: usize,
    ) -> Result<Snapshot<Result<MessagePage, Missing>>, ReadModelError> {
        let mut result = self.0.run_query(ListMessages::optimistic(token, chat, window, limit)).await?;
        // `None`: the optimistic fetch range was too small.
        if result.value == Ok(None) {
            result = self.0.run_query(ListMessages::exhaustive(token, chat, window, limit)).await?;
        }
        // The exhaustive fetch range is never too small.
        let Snapshot { position, value } = result;
        Ok(Snapshot { position, value: value.map(Option::unwrap_or_default) })
    }

    async fn messages_of_sender(
        &self,
        token: AppToken,
        chat: ChatNumber,
        sender: SenderId,
        window: MessageWindow,
        limit: usize,
    ) -> Result<Snapshot<Result<MessagePage, Missing>>, ReadModelError> {
        let optimistic = ListMessages::optimistic(token, chat, window, limit).of_sender(sender.clone());
        let mut result = self.0.run_query(optimistic).await?;
        // `None`: the optimistic fetch range was too small.
        if result.value == Ok(None) {
            let exhaustive = ListMessages::exhaustive(token, chat, window, limit).of_sender(sender);
            result = self.0.run_query(exhaustive).await?;
        }
        // The exhaustive fetch range is never too small.
        let Snapshot { position, value } = result;
        Ok(Snapshot { position, value: value.map(Option::unwrap_or_default) })
    }

    async fn dead_letters(&self, limit: usize) -> Result<(Vec<DeadLetter>, u64), ReadModelError> {
        self.0.run_query(ListPendingDeadLetters::new(limit)).await
    }

    async fn dead_letter_page(&self, query: DeadLetterQuery) -> Result<DeadLetterPage, ReadModelError> {
        self.0.run_query(ListDeadLetters::new(query)).await
    }

    async fn digest(&self) -> Result<Snapshot<ContentDigest>, ReadModelError> {
        let Snapshot { position, value } = self.0.read_contents().await?;
        Ok(Snapshot { position, value: value.digest })
    }

    async fn contents(&self) -> Result<Snapshot<ProjectionContents>, ReadModelError> {
        let Snapshot { position, value } = self.0.read_contents().await?;
        Ok(Snapshot { position, value: value.sorted() })
    }
}
