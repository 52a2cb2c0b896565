//! A log with many messages, written as the chat API writes it but without HTTP, which would take much longer.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chat_domain::event::{AppCreated, ChatCreated, MessageCreated};
use chat_domain::metadata::{ActorKind, EventId};
use chat_domain::{
    Actor, AppName, AppToken, ChatNumber, Event, ExpectedRevision, MessageBody, MessageNumber, Metadata,
    Revision, StreamId, Timestamp,
};
use chat_ports::clock;
use chat_ports::event_store::{EventStore, NewEvent, StreamAppend};
use chat_sqlite::SqliteEventStore;
use uuid::Uuid;

use super::text_generator::TextGenerator;

/// The number of messages in each batch but the last. It is rounded up to a multiple of the number of chats, so that
/// all chats have equally many messages in such a batch.
const MESSAGES_PER_BATCH: u64 = 16_384;

/// A log of one app with chats of nearly the same number of messages.
#[derive(Clone, Debug)]
pub struct SeededLog {
    /// The token of the app.
    pub token: AppToken,
    /// The number of chats.
    pub chats: u64,
    /// The number of messages in all chats.
    pub messages: u64,
    texts: TextGenerator,
    /// The time of the first message. Each other message is a millisecond later than the one before.
    first_recorded_at: Timestamp,
}

/// A message of a seeded log.
pub struct SeededMessage {
    /// The number of the chat.
    pub chat: u64,
    /// The number in the chat.
    pub number: u64,
    /// The text.
    pub body: String,
}

impl SeededLog {
    /// Creates a log of a new app, not written yet.
    pub fn new(texts: &TextGenerator, chats: u64, messages: u64) -> Self {
        let token = AppToken::generate(rand::fill);
        let millis = clock::now().millis() - i64::try_from(messages).unwrap_or(0);
        Self {
            token,
            chats,
            messages,
            texts: texts.clone(),
            first_recorded_at: Timestamp::from_millis(millis),
        }
    }

    /// Returns the `nth` message, from 0. Consecutive messages are in consecutive chats.
    pub fn message(&self, nth: u64) -> SeededMessage {
        SeededMessage { chat: nth % self.chats + 1, number: nth / self.chats + 1, body: self.texts.text(nth) }
    }

    /// Writes the log into a data folder, and returns its head.
    pub async fn write(&self, folder: &Path) -> io::Result<u64> {
        let log = SqliteEventStore::open(&folder.join("events.db")).map_err(io::Error::other)?;
        append(&log, vec![self.app_append()?]).await?;
        let mut next = self.batch(0);
        while let Some((range, batch)) = next.take() {
            // The next batch is generated while this one is stored.
            let log_to_write = self.clone();
            let following = tokio::task::spawn_blocking(move || log_to_write.batch(range.end));
            append(&log, batch?).await?;
            next = following.await.map_err(io::Error::other)?;
        }
        Ok(log.head().await.map_err(io::Error::other)?.get())
    }

    fn app_append(&self) -> io::Result<StreamAppend> {
        let name = AppName::parse("bench".to_owned()).map_err(io::Error::other)?;
        let mut events = vec![self.new_event(0, "CreateApp", &AppCreated { name }.into())];
        for chat in 1..=self.chats {
            let chat_number = chat_number(chat)?;
            events.push(self.new_event(0, "CreateChat", &ChatCreated { chat_number }.into()));
        }
        let stream = StreamId::App(self.token).to_string().into();
        Ok(StreamAppend { stream, expected_revision: ExpectedRevision::from_last_revision(None), events })
    }

    /// Returns the batch that starts with the message `first`: the range of its messages, and an append for each chat.
    /// Returns `None` after the last message.
    fn batch(&self, first: u64) -> Option<(Range<u64>, io::Result<Vec<StreamAppend>>)> {
        let range = first..(first + MESSAGES_PER_BATCH.next_multiple_of(self.chats)).min(self.messages);
        if range.is_empty() {
            return None;
        }
        let appends = (range.start..range.end.min(range.start + self.chats))
            .map(|nth| self.chat_append(nth..range.end))
            .collect();
        Some((range, appends))
    }

    /// Returns the append of those messages in a range that are in the same chat as the range's first message.
    fn chat_append(&self, range: Range<u64>) -> io::Result<StreamAppend> {
        let step = usize::try_from(self.chats).map_err(io::Error::other)?;
        let SeededMessage { chat, number, .. } = self.message(range.start);
        let events = range.step_by(step).map(|nth| {
            let SeededMessage { number, body, .. } = self.message(nth);
            let message_number = MessageNumber::try_from(number).map_err(io::Error::other)?;
            let body = MessageBody::parse(body).map_err(io::Error::other)?;
            Ok(self.new_event(
                nth,
                "CreateMessage",
                &MessageCreated { message_number, body, sender: None, data: None }.into(),
            ))
        });
        let stream = StreamId::Chat(self.token, chat_number(chat)?).to_string().into();
        // Message n has revision n - 1, so the revision before it is n - 2. The stream is empty before message 1.
        let last_revision = number.checked_sub(2).map(Revision::new);
        Ok(StreamAppend {
            stream,
            expected_revision: ExpectedRevision::from_last_revision(last_revision),
            events: events.collect::<io::Result<_>>()?,
        })
    }

    /// Returns an event in the form in which a request to the API stores it, recorded at the time of the message `nth`.
    fn new_event(&self, nth: u64, command: &str, event: &Event) -> NewEvent {
        let recorded_at = Timestamp::from_millis(self.first_recorded_at.millis() + nth.cast_signed());
        let since_epoch = Duration::from_millis(recorded_at.millis().unsigned_abs());
        let time =
            uuid::Timestamp::from_unix(uuid::NoContext, since_epoch.as_secs(), since_epoch.subsec_nanos());
        let request = Uuid::new_v7(time).to_string();
        let metadata = Metadata {
            command: command.to_owned(),
            actor: Actor { kind: ActorKind::App, address: Some("127.0.0.1".to_owned()), ..Actor::default() },
            correlation_id: request.clone(),
            causation_id: request,
            idempotency: None,
        };
        NewEvent {
            id: EventId::new(Uuid::new_v7(time)),
            event_type: event.event_type(),
            schema_version: event.schema_version(),
            recorded_at,
            data: event.payload(),
            // Encoding a struct of strings can't fail.
            metadata: serde_json::to_string(&metadata).unwrap_or_default().into(),
        }
    }
}

fn chat_number(chat: u64) -> io::Result<ChatNumber> {
    ChatNumber::try_from(chat).map_err(io::Error::other)
}

async fn append(log: &dyn EventStore, appends: Vec<StreamAppend>) -> io::Result<()> {
    for appended in log.append(appends).await {
        appended.map_err(io::Error::other)?;
    }
    Ok(())
}

/// Reads and decodes the events of a data folder's log up to a position. Returns their number and the duration.
pub async fn read_and_decode(folder: &Path, up_to: u64) -> io::Result<(u64, Duration)> {
    /// The number of events of one read.
    const BATCH: usize = 4_096;
    let log: Arc<dyn EventStore> =
        Arc::new(SqliteEventStore::open(&folder.join("events.db")).map_err(io::Error::other)?);
    let started = std::time::Instant::now();
    let (mut after, mut events) = (chat_domain::Position::START, 0);
    loop {
        let batch = log.read_all(after, BATCH).await.map_err(io::Error::other)?;
        let Some(last) = batch.last() else { break };
        after = last.position;
        for event in batch.iter().filter(|event| event.position.get() <= up_to) {
            std::hint::black_box(event.decode().map_err(io::Error::other)?);
            events += 1;
        }
    }
    Ok((events, started.elapsed()))
}

#[cfg(test)]
mod tests {
    use chat_domain::Position;

    use super::*;

    #[tokio::test]
    async fn writes_all_messages_and_keeps_a_chat_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let texts = TextGenerator::new(vec!["one two".to_owned(), "three".to_owned()]);
        let seeded_log = SeededLog::new(&texts, 7, 20_000);
        let head = seeded_log.write(folder.path()).await.unwrap();
        assert_eq!(head, 1 + 7 + 20_000);
        assert_eq!(read_and_decode(folder.path(), head).await.unwrap().0, head);
        let log = SqliteEventStore::open(&folder.path().join("events.db")).unwrap();
        let chat = StreamId::Chat(seeded_log.token, ChatNumber::FIRST).to_string();
        let mut numbers = Vec::new();
        let mut after = Position::START;
        loop {
            let events = log.read_all(after, 4_096).await.unwrap();
            let Some(last) = events.last() else { break };
            after = last.position;
            let chat_events = events.iter().filter(|event| *event.stream == *chat);
            numbers.extend(chat_events.map(|event| event.decode().unwrap().message_number().unwrap().get()));
        }
        assert_eq!(numbers, (1..=20_000_u64.div_ceil(7)).collect::<Vec<_>>());
    }
}
