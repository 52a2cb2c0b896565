//! Repeats queries while the read model is unavailable: on a busy machine, a server may not answer within the adapter's
//! time limit.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chat_domain::{AppToken, ChatNumber, MessageNumber, Position, SenderId};
use tokio::time::{Instant, sleep};

use super::rows::WriterAndReader;
use crate::content_digest::ContentDigest;
use crate::dead_letter::{DeadLetter, DeadLetterPage, DeadLetterQuery};
use crate::projection_checkpoint::ProjectionCheckpoint;
use crate::projection_contents::ProjectionContents;
use crate::read_model::{
    AppRow, ChatRow, MessagePage, MessageRow, MessageWindow, Missing, ReadModel, ReadModelError, Snapshot,
};

/// Returns the same read model, with a reader that repeats each query as [`retry`] does.
pub fn retry_queries(read_model: WriterAndReader) -> WriterAndReader {
    WriterAndReader { reader: Arc::new(RetryingReader(read_model.reader)), ..read_model }
}

/// Repeats a call while the read model is unavailable, for up to 30 seconds.
pub async fn retry<T, F>(call: impl Fn() -> F) -> Result<T, ReadModelError>
where
    F: Future<Output = Result<T, ReadModelError>>,
{
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match call().await {
            Err(ReadModelError::Unavailable(_)) if Instant::now() < deadline => {
                sleep(Duration::from_millis(10)).await;
            }
            outcome => return outcome,
        }
    }
}

struct RetryingReader(Arc<dyn ReadModel>);

#[async_trait]
impl ReadModel for RetryingReader {
    async fn position(&self) -> Result<Position, ReadModelError> {
        retry(|| self.0.position()).await
    }

    async fn checkpoint(&self) -> Result<ProjectionCheckpoint, ReadModelError> {
        retry(|| self.0.checkpoint()).await
    }

    async fn app(&self, token: AppToken) -> Result<Snapshot<Result<AppRow, Missing>>, ReadModelError> {
        retry(|| self.0.app(token)).await
    }

    async fn apps(&self, after: Position, limit: usize) -> Result<Snapshot<Vec<AppRow>>, ReadModelError> {
        retry(|| self.0.apps(after, limit)).await
    }

    async fn chat(
        &self,
        token: AppToken,
        number: ChatNumber,
    ) -> Result<Snapshot<Result<ChatRow, Missing>>, ReadModelError> {
        retry(|| self.0.chat(token, number)).await
    }

    async fn chats(
        &self,
        token: AppToken,
        after: Option<ChatNumber>,
        limit: usize,
    ) -> Result<Snapshot<Result<Vec<ChatRow>, Missing>>, ReadModelError> {
        retry(|| self.0.chats(token, after, limit)).await
    }

    async fn message(
        &self,
        token: AppToken,
        chat: ChatNumber,
        number: MessageNumber,
    ) -> Result<Snapshot<Result<MessageRow, Missing>>, ReadModelError> {
        retry(|| self.0.message(token, chat, number)).await
    }

    async fn messages(
        &self,
        token: AppToken,
        chat: ChatNumber,
        window: MessageWindow,
        limit: usize,
    ) -> Result<Snapshot<Result<MessagePage, Missing>>, ReadModelError> {
        retry(|| self.0.messages(token, chat, window, limit)).await
    }

    async fn messages_of_sender(
        &self,
        token: AppToken,
        chat: ChatNumber,
        sender: SenderId,
        window: MessageWindow,
        limit: usize,
    ) -> Result<Snapshot<Result<MessagePage, Missing>>, ReadModelError> {
        retry(|| self.0.messages_of_sender(token, chat, sender.clone(), window, limit)).await
    }

    async fn dead_letters(&self, limit: usize) -> Result<(Vec<DeadLetter>, u64), ReadModelError> {
        retry(|| self.0.dead_letters(limit)).await
    }

    async fn dead_letter_page(&self, query: DeadLetterQuery) -> Result<DeadLetterPage, ReadModelError> {
        retry(|| self.0.dead_letter_page(query.clone())).await
    }

    async fn digest(&self) -> Result<Snapshot<ContentDigest>, ReadModelError> {
        retry(|| self.0.digest()).await
    }

    async fn contents(&self) -> Result<Snapshot<ProjectionContents>, ReadModelError> {
        retry(|| self.0.contents()).await
    }
}
