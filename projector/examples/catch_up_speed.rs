//! Measures the fold of the read model: `cargo run --release -p chat-projector --example catch_up_speed`. The read
//! model is stored in SQLite, or in the Postgres database whose URL is the argument.
//!
//! Writes two logs of messages of about 80 bytes, one with few chats and one with many. For each log, prints the rate
//! and cost of reading, decoding and discarding its events, of folding them from the start, and of writing at a fixed
//! rate, without and with a projector that follows the log. The cost is the processor time of this process per event.

#![expect(clippy::print_stdout, reason = "the example prints its measurements")]
#![expect(clippy::cast_precision_loss, reason = "rates are rough")]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chat_domain::event::{AppCreated, ChatCreated, MessageCreated};
use chat_domain::metadata::EventId;
use chat_domain::{
    AppName, AppToken, ChatNumber, Event, ExpectedRevision, MessageBody, MessageNumber, Position, Revision,
    StreamId,
};
use chat_ports::event_store::{EventStore, NewEvent, StreamAppend};
use chat_postgres::{PostgresReadModelStorage, PostgresUrl};
use chat_projector::projection::ProjectionStore;
use chat_projector::read_model::ReadModelProjectionStore;
use chat_projector::{ProjectorHandle, RecoveryPolicy, spawn_projector};
use chat_sqlite::{SqliteEventStore, SqliteReadModelStorage};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

type BoxError = Box<dyn Error>;

const MESSAGES: usize = 400_000;
/// The number of messages that each run at a fixed rate writes. One run is without a projector, one with a projector
/// that follows the log.
const LIVE_MESSAGES: usize = 20_000;
const MESSAGES_PER_WRITE: usize = 10;
const WRITE_INTERVAL: Duration = Duration::from_millis(1);

const METADATA: &str = r#"{"command":"CreateMessage","actor":{"kind":"app","address":"127.0.0.1","user_agent":"a client/1.0"},"correlation_id":"0193f7a1c2d34e5f8091a2b3c4d5e6f7","causation_id":"0193f7a1c2d34e5f8091a2b3c4d5e6f7"}"#;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let folder = tempfile::tempdir()?;
    let url = std::env::args().nth(1);
    for chats in [10, 1_000] {
        println!("{chats} chats");
        let path = folder.path().join(format!("log-{chats}"));
        if let Some(url) = &url {
            let store = |name: &str| postgres(url, &format!("n{chats}_{name}"));
            measure(&path, chats, store("all")?, store("new")?).await?;
        } else {
            let store =
                |name| Arc::new(ReadModelProjectionStore::new(SqliteReadModelStorage::new(path.join(name))));
            measure(&path, chats, store("all.db"), store("new.db")).await?;
        }
    }
    Ok(())
}

fn postgres(url: &str, schema: &str) -> Result<Arc<ReadModelProjectionStore>, BoxError> {
    Ok(Arc::new(ReadModelProjectionStore::new(PostgresReadModelStorage::new(
        PostgresUrl::parse(url)?.with_schema(schema)?,
    ))))
}

async fn measure(
    folder: &Path,
    chats: usize,
    backlog_store: Arc<dyn ProjectionStore>,
    live_store: Arc<dyn ProjectionStore>,
) -> Result<(), BoxError> {
    let mut workload = Workload::new(chats)?;
    let path = folder.join("events.db");
    {
        let log = SqliteEventStore::open(&path)?;
        append(&log, workload.initial_appends()?).await?;
        while workload.messages_created < MESSAGES {
            append(&log, workload.next_messages(10_000)?).await?;
        }
    }
    // The log is opened again, so that no events are cached.
    let log: Arc<dyn EventStore> = Arc::new(SqliteEventStore::open(&path)?);
    let head = log.head().await?;
    let events = usize::try_from(head.get())?;

    let clock = Stopwatch::start();
    let mut subscription = log.subscribe(Position::START).await?;
    let mut up_to = Position::START;
    while up_to < head {
        let batch = subscription.next(512).await?;
        for event in &batch.events {
            event.decode()?;
        }
        up_to = batch.up_to;
    }
    let decode_rate = clock.print("read, decoded, discarded", events);

    let (stop, stop_receiver) = watch::channel(false);
    let clock = Stopwatch::start();
    let projector = start_projector(backlog_store, &log, stop_receiver);
    projector.wait_for_position(head).await;
    let rebuild_rate = clock.print("folded from the start", events);
    println!("  {:<30} {:>10.2} of the rate of decoding", "", rebuild_rate / decode_rate);
    stop.send(true)?;

    let clock = Stopwatch::start();
    write_at_fixed_rate(&*log, &mut workload).await?;
    clock.print("written at a fixed rate", LIVE_MESSAGES);
    let (_stop, stop_receiver) = watch::channel(false);
    let projector = start_projector(live_store, &log, stop_receiver);
    projector.wait_for_position(log.head().await?).await;
    let clock = Stopwatch::start();
    write_at_fixed_rate(&*log, &mut workload).await?;
    projector.wait_for_position(log.head().await?).await;
    clock.print("written and followed", LIVE_MESSAGES);
    Ok(())
}

fn start_projector(
    store: Arc<dyn ProjectionStore>,
    log: &Arc<dyn EventStore>,
    shutdown: watch::Receiver<bool>,
) -> ProjectorHandle {
    spawn_projector(store, Arc::clone(log), RecoveryPolicy::Rebuild, shutdown)
}

async fn write_at_fixed_rate(log: &dyn EventStore, workload: &mut Workload) -> Result<(), BoxError> {
    let mut ticks = interval(WRITE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for _ in 0..LIVE_MESSAGES / MESSAGES_PER_WRITE {
        ticks.tick().await;
        append(log, workload.next_messages(MESSAGES_PER_WRITE)?).await?;
    }
    Ok(())
}

async fn append(log: &dyn EventStore, appends: Vec<StreamAppend>) -> Result<(), BoxError> {
    for result in log.append(appends).await {
        result?;
    }
    Ok(())
}

/// Generates one app with chats, and messages that go to the chats in turn.
struct Workload {
    app: Arc<str>,
    chats: Vec<Arc<str>>,
    messages_created: usize,
}

impl Workload {
    fn new(chats: usize) -> Result<Self, BoxError> {
        let token = AppToken::parse(&"a".repeat(36))?;
        let chats = (1..=chats as u64)
            .map(|chat| Ok(StreamId::Chat(token, ChatNumber::try_from(chat)?).to_string().into()))
            .collect::<Result<_, BoxError>>()?;
        Ok(Self { app: StreamId::App(token).to_string().into(), chats, messages_created: 0 })
    }

    fn initial_appends(&self) -> Result<Vec<StreamAppend>, BoxError> {
        let mut events = vec![new_event(&AppCreated { name: AppName::parse("app".to_owned())? }.into())];
        for chat in 1..=self.chats.len() as u64 {
            events.push(new_event(&ChatCreated { chat_number: ChatNumber::try_from(chat)? }.into()));
        }
        let (stream, expected_revision) = (Arc::clone(&self.app), ExpectedRevision::NoStream);
        Ok(vec![StreamAppend { stream, expected_revision, events }])
    }

    /// Returns the appends of the next messages. Those of one chat are in one append, because one call of the event
    /// store appends to each stream at most once.
    fn next_messages(&mut self, count: usize) -> Result<Vec<StreamAppend>, BoxError> {
        let chats = self.chats.len();
        let mut appends: Vec<StreamAppend> = Vec::new();
        for index in 0..count {
            let chat_index = self.messages_created % chats;
            let messages_in_chat = (self.messages_created / chats) as u64;
            let body = format!(
                "message {}: the quick brown fox jumps over the lazy dog, and then some more",
                self.messages_created
            );
            let event = new_event(
                &MessageCreated {
                    message_number: MessageNumber::try_from(messages_in_chat + 1)?,
                    body: MessageBody::parse(body)?,
                    sender: None,
                    data: None,
                }
                .into(),
            );
            if index < chats {
                appends.push(StreamAppend {
                    stream: Arc::clone(&self.chats[chat_index]),
                    expected_revision: ExpectedRevision::from_last_revision(
                        messages_in_chat.checked_sub(1).map(Revision::new),
                    ),
                    events: vec![event],
                });
            } else {
                appends[index % chats].events.push(event);
            }
            self.messages_created += 1;
        }
        Ok(appends)
    }
}

fn new_event(event: &Event) -> NewEvent {
    NewEvent {
        id: EventId::new(chat_ports::clock::time_ordered_uuid()),
        event_type: event.event_type(),
        schema_version: event.schema_version(),
        recorded_at: chat_ports::clock::now(),
        data: event.payload(),
        metadata: METADATA.into(),
    }
}

struct Stopwatch {
    started: Instant,
    cpu_time: Duration,
}

impl Stopwatch {
    fn start() -> Self {
        Self { started: Instant::now(), cpu_time: cpu_time() }
    }

    /// Prints the number of events per second and the processor time per event. Returns the number
    /// of events per second.
    fn print(self, label: &str, events: usize) -> f64 {
        let rate = events as f64 / self.started.elapsed().as_secs_f64();
        let cpu_micros = cpu_time().saturating_sub(self.cpu_time).as_secs_f64() * 1e6 / events as f64;
        println!("  {label:<30} {rate:>10.0} events/s, {cpu_micros:>6.2} µs of processor time each");
        rate
    }
}

/// Returns the processor time of this process; zero if the system does not provide it.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // After the program's name, the fields 12 and 13 are user and system time in hundredths of a second.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}
