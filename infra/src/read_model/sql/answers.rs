//! The port's queries, answered by whatever engine runs the statements.

use async_trait::async_trait;
use chat_domain::{AppToken, ChatNumber, MessageNumber, Position};

use super::get::{GetApp, GetChat, GetMessage, GetPosition};
use super::letters::{ListLetters, ListParked};
use super::list::{ListApps, ListChats, ListMessages};
use super::query::Query;
use crate::contents::Contents;
use crate::dead_letter::{DeadLetter, LetterList, LetterPage};
use crate::digest::ContentDigest;
use crate::read_model::{
    AppRow, ChatRow, MessagePage, MessageRow, Missing, ReadModel, ReadModelError, Snapshot, Window,
};

/// What runs statements.
pub trait Engine: Send + Sync + 'static {
    /// Runs a query.
    fn ask<Q: Query>(&self, query: Q) -> impl Future<Output = Result<Q::Answer, ReadModelError>> + Send;

    /// Reads everything in one snapshot.
    fn read_through(&self) -> impl Future<Output = Result<Snapshot<Contents>, ReadModelError>> + Send;
}

#[async_trait]
impl<E: Engine> ReadModel for E {
    async fn position(&self) -> Result<Position, ReadModelError> {
        self.ask(GetPosition::default()).await
    }

    async fn app(&self, token: AppToken) -> Result<Snapshot<Result<AppRow, Missing>>, ReadModelError> {
        self.ask(GetApp::new(token)).await
    }

    async fn apps(&self, after: Position, limit: usize) -> Result<Snapshot<Vec<AppRow>>, ReadModelError> {
        self.ask(ListApps::new(after, limit)).await
    }

    async fn chat(
        &self,
        token: AppToken,
        number: ChatNumber,
    ) -> Result<Snapshot<Result<ChatRow, Missing>>, ReadModelError> {
        self.ask(GetChat::new(token, number)).await
    }

    async fn chats(
        &self,
        token: AppToken,
        after: Option<ChatNumber>,
        limit: usize,
    ) -> Result<Snapshot<Result<Vec<ChatRow>, Missing>>, ReadModelError> {
        self.ask(ListChats::new(token, after, limit)).await
    }

    async fn message(
        &self,
        token: AppToken,
        chat: ChatNumber,
        number: MessageNumber,
    ) -> Result<Snapshot<Result<MessageRow, Missing>>, ReadModelError> {
        self.ask(GetMessage::new(token, chat, number)).await
    }

    async fn messages(
        &self,
        token: AppToken,
        chat: ChatNumber,
        window: Window,
        limit: usize,
    ) -> Result<Snapshot<Result<MessagePage, Missing>>, ReadModelError> {
        let mut answer = self.ask(ListMessages::near(token, chat, window, limit)).await?;
        if answer.value == Ok(None) {
            answer = self.ask(ListMessages::whole(token, chat, window, limit)).await?;
        }
        // All that is there is in the whole.
        let Snapshot { position, value } = answer;
        Ok(Snapshot { position, value: value.map(Option::unwrap_or_default) })
    }

    async fn dead_letters(&self, limit: usize) -> Result<(Vec<DeadLetter>, u64), ReadModelError> {
        self.ask(ListParked::new(limit)).await
    }

    async fn letters(&self, list: LetterList) -> Result<LetterPage, ReadModelError> {
        self.ask(ListLetters::new(list)).await
    }

    async fn digest(&self) -> Result<Snapshot<ContentDigest>, ReadModelError> {
        let Snapshot { position, value } = self.read_through().await?;
        Ok(Snapshot { position, value: value.digest })
    }

    async fn contents(&self) -> Result<Snapshot<Contents>, ReadModelError> {
        let Snapshot { position, value } = self.read_through().await?;
        Ok(Snapshot { position, value: value.in_order() })
    }
}
