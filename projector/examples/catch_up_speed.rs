//! How fast the read model's projection folds: `cargo run --release -p chat-projector --example catch_up_speed`, into
//! SQLite, or into the Postgres database whose URL is the argument.
//!
//! Writes a log of messages of about 80 bytes, over few and many chats, and prints for each: how fast its events are read,
//! decoded and thrown away; how fast they are folded from the start; and what following the log as it is written takes,
//! on top of writing it. Beside each rate is the time that this process was on a processor.

#![expect(clippy::print_stdout, reason = "its purpose")]
#![expect(clippy::cast_precision_loss, reason = "rates are rough")]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chat_domain::event::{AppCreated, ChatCreated, MessageCreated, SchemaVersion};
use chat_domain::metadata::EventId;
use chat_domain::{
    AppName, AppToken, ChatNumber, Event, ExpectedRevision, MessageBody, MessageNumber, Position, Revision,
    StreamId,
};
use chat_ports::event_store::{EventStore, NewEvent, StreamAppend};
use chat_postgres::PostgresUrl;
use chat_projector::Projector;
use chat_projector::projection::Target;
use chat_projector::read_model::{PostgresReadModelTarget, SqliteReadModelTarget};
use chat_sqlite::SqliteEventStore;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;

type Failed = Box<dyn Error>;

const MESSAGES: usize = 400_000;
/// Messages that are followed as they come: so many every so often.
const FOLLOWED: usize = 20_000;
const AT_ONCE: usize = 10;
const EVERY: Duration = Duration::from_millis(1);

const METADATA: &str = r#"{"command":"CreateMessage","actor":{"kind":"app","address":"127.0.0.1","user_agent":"a client/1.0"},"correlation_id":"0193f7a1c2d34e5f8091a2b3c4d5e6f7","causation_id":"0193f7a1c2d34e5f8091a2b3c4d5e6f7"}"#;

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let url = std::env::args().nth(1);
    for chats in [10, 1_000] {
        println!("{chats} chats");
        let path = folder.path().join(format!("log-{chats}"));
        if let Some(url) = &url {
            let target = |name: &str| postgres(url, &format!("n{chats}_{name}"));
            measure(&path, chats, target("all")?, target("new")?).await?;
        } else {
            let target = |name| SqliteReadModelTarget { path: path.join(name) };
            measure(&path, chats, target("all.db"), target("new.db")).await?;
        }
    }
    Ok(())
}

fn postgres(url: &str, namespace: &str) -> Result<PostgresReadModelTarget, Failed> {
    Ok(PostgresReadModelTarget { url: PostgresUrl::parse(url)?.with_namespace(namespace)? })
}

async fn measure(folder: &Path, chats: usize, all: impl Target, new: impl Target) -> Result<(), Failed> {
    let mut story = Story::new(chats)?;
    let path = folder.join("events.db");
    {
        let log = SqliteEventStore::open(&path)?;
        append(&log, story.beginning()?).await?;
        while story.messages < MESSAGES {
            append(&log, story.messages(10_000)?).await?;
        }
    }
    // Opened again: nothing of it is in memory.
    let log: Arc<dyn EventStore> = Arc::new(SqliteEventStore::open(&path)?);
    let head = log.head().await?;
    let events = usize::try_from(head.get())?;

    let clock = Clock::start();
    let mut subscription = log.subscribe(Position::START).await?;
    let mut up_to = Position::START;
    while up_to < head {
        let batch = subscription.next(512).await?;
        for event in &batch.events {
            event.decode()?;
        }
        up_to = batch.up_to;
    }
    let thrown_away = clock.print("read, decoded, thrown away", events);

    let (stop, stopped) = watch::channel(false);
    let clock = Clock::start();
    let projector = Projector::spawn(Arc::clone(&log), all, stopped);
    projector.reached(head).await;
    let rebuilt = clock.print("folded from the start", events);
    println!("  {:<30} {:>10.2} of that", "", rebuilt / thrown_away);
    stop.send(true)?;

    let clock = Clock::start();
    trickle(&*log, &mut story).await?;
    clock.print("written as they come", FOLLOWED);
    let (_stop, stopped) = watch::channel(false);
    let projector = Projector::spawn(Arc::clone(&log), new, stopped);
    projector.reached(log.head().await?).await;
    let clock = Clock::start();
    trickle(&*log, &mut story).await?;
    projector.reached(log.head().await?).await;
    clock.print("written and followed", FOLLOWED);
    Ok(())
}

async fn trickle(log: &dyn EventStore, story: &mut Story) -> Result<(), Failed> {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for _ in 0..FOLLOWED / AT_ONCE {
        ticks.tick().await;
        append(log, story.messages(AT_ONCE)?).await?;
    }
    Ok(())
}

async fn append(log: &dyn EventStore, appends: Vec<StreamAppend>) -> Result<(), Failed> {
    for appended in log.append(appends).await {
        appended?;
    }
    Ok(())
}

/// One app, its chats, and messages to each in turn.
struct Story {
    app: Arc<str>,
    chats: Vec<Arc<str>>,
    messages: usize,
}

impl Story {
    fn new(chats: usize) -> Result<Self, Failed> {
        let token = AppToken::parse(&"a".repeat(36))?;
        let chats = (1..=chats as u64)
            .map(|chat| Ok(StreamId::Chat(token, ChatNumber::try_from(chat)?).to_string().into()))
            .collect::<Result<_, Failed>>()?;
        Ok(Self { app: StreamId::App(token).to_string().into(), chats, messages: 0 })
    }

    fn beginning(&self) -> Result<Vec<StreamAppend>, Failed> {
        let mut events = vec![new(&AppCreated { name: AppName::parse("app".to_owned())? }.into())];
        for chat in 1..=self.chats.len() as u64 {
            events.push(new(&ChatCreated { chat_number: ChatNumber::try_from(chat)? }.into()));
        }
        let (stream, expected) = (Arc::clone(&self.app), ExpectedRevision::NoStream);
        Ok(vec![StreamAppend { stream, expected, events }])
    }

    /// The next messages. A batch names a stream at most once: each chat has its own together.
    fn messages(&mut self, count: usize) -> Result<Vec<StreamAppend>, Failed> {
        let chats = self.chats.len();
        let mut appends: Vec<StreamAppend> = Vec::new();
        for index in 0..count {
            let (chat, before) = (self.messages % chats, (self.messages / chats) as u64);
            let body = format!(
                "message {}: the quick brown fox jumps over the lazy dog, and then some more",
                self.messages
            );
            let event = new(&MessageCreated {
                message_number: MessageNumber::try_from(before + 1)?,
                body: MessageBody::parse(body)?,
            }
            .into());
            if index < chats {
                appends.push(StreamAppend {
                    stream: Arc::clone(&self.chats[chat]),
                    expected: ExpectedRevision::after(before.checked_sub(1).map(Revision::new)),
                    events: vec![event],
                });
            } else {
                appends[index % chats].events.push(event);
            }
            self.messages += 1;
        }
        Ok(appends)
    }
}

fn new(event: &Event) -> NewEvent {
    NewEvent {
        id: EventId::new(Uuid::now_v7()),
        event_type: event.event_type(),
        schema_version: SchemaVersion::CURRENT,
        recorded_at: chat_ports::clock::now(),
        data: event.payload(),
        metadata: METADATA.into(),
    }
}

struct Clock {
    started: Instant,
    busy: Duration,
}

impl Clock {
    fn start() -> Self {
        Self { started: Instant::now(), busy: busy() }
    }

    /// Prints and returns events a second.
    fn print(self, what: &str, events: usize) -> f64 {
        let rate = events as f64 / self.started.elapsed().as_secs_f64();
        let busy = busy().saturating_sub(self.busy).as_secs_f64() * 1e6 / events as f64;
        println!("  {what:<30} {rate:>10.0} events/s, {busy:>6.2} µs of processor time each");
        rate
    }
}

/// How long this process has been on a processor; zero where the system does not tell.
fn busy() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // After the program's name: the 12th and 13th are user's and system's time, in hundredths of a second.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}
