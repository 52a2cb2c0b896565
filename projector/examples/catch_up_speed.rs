//! How fast the read model's projection folds: `cargo run --release -p chat-projector --example catch_up_speed`, into
//! SQLite, or into the Postgres database whose URL is the argument.
//!
//! Folds messages of about 80 bytes, in batches of several sizes, over few and many chats, and prints messages a
//! second: of fold and commit together, and of the whole runner on a log in a file.

#![expect(clippy::print_stdout, reason = "its purpose")]
#![expect(clippy::cast_precision_loss, reason = "rates are rough")]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use chat_domain::event::{AppCreated, ChatCreated, MessageCreated, SchemaVersion};
use chat_domain::metadata::EventId;
use chat_domain::{
    AppName, AppToken, ChatNumber, Event, ExpectedRevision, MessageBody, MessageNumber, Position, Revision,
    StreamId, Timestamp,
};
use chat_infra::event_store::{EventStore, LogId, NewEvent, RecordedEvent, SqliteEventStore, StreamAppend};
use chat_infra::read_model::PostgresUrl;
use chat_projector::Projector;
use chat_projector::projection::{Projection, Target};
use chat_projector::read_model::{PostgresReadModelTarget, SqliteReadModelTarget};
use tokio::sync::watch;
use uuid::Uuid;

type Failed = Box<dyn Error>;

const MESSAGES: usize = 400_000;

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let url = std::env::args().nth(1);
    for chats in [10_usize, 1_000] {
        let events = events(chats)?;
        for batch in [1, 64, 512, 4_096, 16_384] {
            let count = if batch == 1 { MESSAGES / 100 } else { MESSAGES };
            let events = &events[..1 + chats + count];
            let name = format!("n{chats}_{batch}");
            let rate = match &url {
                Some(url) => fold(&postgres(url, &name)?, events, batch).await?,
                None => {
                    fold(&SqliteReadModelTarget { path: folder.path().join(name) }, events, batch).await?
                }
            };
            println!("fold and commit, {chats:>5} chats, batches of {batch:>5}: {rate:>8.0} messages/s");
        }
        let log = folder.path().join(format!("log-{chats}"));
        let rate = match &url {
            Some(url) => follow(&log, postgres(url, &format!("n{chats}"))?, &events).await?,
            None => follow(&log, SqliteReadModelTarget { path: log.join("read-model.db") }, &events).await?,
        };
        println!("runner on a log file, {chats:>5} chats: {rate:>8.0} messages/s");
    }
    Ok(())
}

fn postgres(url: &str, namespace: &str) -> Result<PostgresReadModelTarget, Failed> {
    Ok(PostgresReadModelTarget { url: PostgresUrl::parse(url)?.with_namespace(namespace)? })
}

/// One app, its chats, and messages to each in turn.
fn events(chats: usize) -> Result<Vec<RecordedEvent>, Failed> {
    let token = AppToken::parse(&"a".repeat(36))?;
    let app: Arc<str> = StreamId::App(token).to_string().into();
    let streams = (1..=chats as u64)
        .map(|chat| Ok(StreamId::Chat(token, ChatNumber::try_from(chat)?).to_string().into()))
        .collect::<Result<Vec<Arc<str>>, Failed>>()?;
    let mut events = Vec::new();
    let mut add = |stream: &Arc<str>, revision, event: Event| {
        let position = events.len() as u64 + 1;
        events.push(RecordedEvent {
            position: Position::new(position),
            stream: Arc::clone(stream),
            revision: Revision::new(revision),
            id: EventId::new(Uuid::from_u128(u128::from(position))),
            event_type: event.event_type().to_owned(),
            schema_version: SchemaVersion::CURRENT,
            recorded_at: Timestamp::from_millis(1_790_000_000_000 + position.cast_signed()),
            data: event.payload().into_bytes(),
            metadata: br#"{"command":"CreateMessage","actor":{"kind":"app"},"correlation_id":"c"}"#.to_vec(),
        });
    };
    add(&app, 0, AppCreated { name: AppName::parse("app".to_owned())? }.into());
    for chat in 1..=chats as u64 {
        add(&app, chat, ChatCreated { chat_number: ChatNumber::try_from(chat)? }.into());
    }
    for n in 0..MESSAGES {
        let body = format!("message {n}: the quick brown fox jumps over the lazy dog, and then some more");
        let number = (n / chats) as u64 + 1;
        let event = MessageCreated {
            message_number: MessageNumber::try_from(number)?,
            body: MessageBody::parse(body)?,
        };
        add(&streams[n % chats], number - 1, event.into());
    }
    Ok(events)
}

async fn fold(target: &impl Target, events: &[RecordedEvent], batch: usize) -> Result<f64, Failed> {
    let mut projection = target.open_fresh().await?;
    let batches: Vec<_> = events.chunks(batch).map(<[_]>::to_vec).collect();
    let started = Instant::now();
    for batch in batches {
        let up_to = batch.last().map_or(Position::START, |event| event.position);
        projection.fold(LogId(Uuid::nil()), batch, up_to).await?;
    }
    Ok(events.len() as f64 / started.elapsed().as_secs_f64())
}

async fn follow(folder: &Path, target: impl Target, events: &[RecordedEvent]) -> Result<f64, Failed> {
    let log: Arc<dyn EventStore> = Arc::new(SqliteEventStore::open(&folder.join("events.db"))?);
    for event in events.chunks(10_000) {
        // A batch names a stream at most once: group the events of each.
        let mut appends: Vec<StreamAppend> = Vec::new();
        for event in event {
            let new = NewEvent {
                id: event.id,
                event_type: match event.event_type.as_str() {
                    "AppCreated" => "AppCreated",
                    "ChatCreated" => "ChatCreated",
                    _ => "MessageCreated",
                },
                schema_version: event.schema_version,
                recorded_at: event.recorded_at,
                data: String::from_utf8(event.data.clone())?,
                metadata: String::from_utf8(event.metadata.clone())?.into(),
            };
            match appends.iter_mut().find(|append| append.stream == event.stream) {
                Some(append) => append.events.push(new),
                None => appends.push(StreamAppend {
                    stream: Arc::clone(&event.stream),
                    expected: ExpectedRevision::after(event.revision.get().checked_sub(1).map(Revision::new)),
                    events: vec![new],
                }),
            }
        }
        for appended in log.append(appends).await {
            appended?;
        }
    }
    let head = log.head().await?;
    let (_stop, stopped) = watch::channel(false);
    let started = Instant::now();
    let projector = Projector::spawn(log, target, stopped);
    projector.reached(head).await;
    Ok(events.len() as f64 / started.elapsed().as_secs_f64())
}
