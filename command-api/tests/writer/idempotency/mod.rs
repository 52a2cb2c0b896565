//! Commands that are sent repeatedly under one key: the log holds one event, despite faults, dead processes and data
//! loss.
//!
//! Each case runs on both combinations of engines:
//! - the SQLite log, which rejects a repeated event id, with keys in a file;
//! - the log of a fake KurrentDB, which does not check event ids across streams, with keys in Redis.

mod chaos;
mod failures;
mod repeated_commands;

use std::sync::Arc;
use std::time::Duration;

use chat_command_api::command::{Command, CommandError, CommandOutcome};
use chat_command_api::idempotency::FingerprintedKey;
use chat_command_api::service::CommandService;
use chat_command_api::writer::{WriterConfig, WriterHandle};
use chat_domain::{AppName, AppToken, ChatNumber, Event, MessageBody, Metadata, Position};
use chat_kurrentdb::{KurrentDbEventStore, KurrentDbUrl};
use chat_ports::clock;
use chat_ports::contract_tests::idempotency::retry_calls;
use chat_ports::counters::{CounterKey, Counters, InProcessCounters, ReservationRequest};
use chat_ports::event_store::{EventStore, LogId, RecordedEvent};
use chat_ports::idempotency::{IdempotencyStore, IdempotencyTerms};
use chat_redis::{RedisConnection, RedisIdempotencyStore, RedisUrl};
use chat_sqlite::{SqliteEventStore, SqliteIdempotencyStore};
use chat_testing::kurrentdb::FakeKurrentDb;
use chat_testing::redis::Redis;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use uuid::Uuid;

use crate::faults::{FaultyIdempotencyStore, FaultyLog};
use crate::test_log::{PATIENT_TIMEOUTS, TIMEOUT, within_timeout};

/// Defines a test of each case for each combination of engines.
macro_rules! on_all_engines {
    ($($case:ident)+) => {
        mod on_sqlite {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    super::$case($crate::idempotency::Engines::Sqlite).await;
                }
            )+
        }
        mod on_kurrentdb_and_redis {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    super::$case($crate::idempotency::Engines::KurrentDbAndRedis).await;
                }
            )+
        }
    };
}
pub(crate) use on_all_engines;

/// The engines of the log and of the idempotency store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engines {
    Sqlite,
    KurrentDbAndRedis,
}

/// A short lease, so that tests that wait for its end are fast.
pub const TERMS: IdempotencyTerms =
    IdempotencyTerms { lease: Duration::from_millis(400), retention: Duration::from_hours(24) };

/// A log and an idempotency store that several simulated processes share.
pub struct Cluster {
    storage: Storage,
    counters: Arc<dyn Counters>,
    terms: IdempotencyTerms,
}

enum Storage {
    Files(TempDir),
    Servers { kurrentdb: FakeKurrentDb, redis: Box<Redis> },
}

/// The command side of one process, with injectable faults.
#[derive(Clone)]
pub struct Process {
    pub commands: CommandService,
    pub log: Arc<FaultyLog>,
    pub idempotency_store: Arc<FaultyIdempotencyStore>,
}

impl Cluster {
    pub fn new(engines: Engines) -> Self {
        Self::with_terms(engines, TERMS)
    }

    pub fn with_terms(engines: Engines, terms: IdempotencyTerms) -> Self {
        let storage = match engines {
            Engines::Sqlite => Storage::Files(tempfile::tempdir().unwrap()),
            Engines::KurrentDbAndRedis => Storage::Servers {
                kurrentdb: FakeKurrentDb::start().unwrap(),
                redis: Box::new(Redis::start().unwrap()),
            },
        };
        Self { storage, counters: Arc::new(InProcessCounters::default()), terms }
    }

    /// Opens another handle on the log.
    pub async fn open_log(&self) -> Arc<dyn EventStore> {
        match &self.storage {
            Storage::Files(folder) => {
                Arc::new(SqliteEventStore::open(&folder.path().join("events.db")).unwrap())
            }
            Storage::Servers { kurrentdb, .. } => {
                let url = KurrentDbUrl::parse(&kurrentdb.url()).unwrap();
                Arc::new(KurrentDbEventStore::open_with_timeouts(&url, PATIENT_TIMEOUTS).await.unwrap())
            }
        }
    }

    fn open_idempotency_store(&self) -> Arc<dyn IdempotencyStore> {
        let log = LogId(Uuid::nil());
        let store: Arc<dyn IdempotencyStore> = match &self.storage {
            Storage::Files(folder) => {
                let path = folder.path().join("idempotency.db");
                Arc::new(SqliteIdempotencyStore::with_terms(&path, log, self.terms).unwrap())
            }
            Storage::Servers { redis, .. } => {
                let url: RedisUrl = redis.url().parse().unwrap();
                let connection = RedisConnection::open_with_timeout(&url, TIMEOUT).unwrap();
                Arc::new(RedisIdempotencyStore::with_terms(connection, log, self.terms))
            }
        };
        // On a busy machine, a store may not answer within its time limit.
        retry_calls(store)
    }

    /// Starts a process with its own handles on the shared stores.
    pub async fn start_process(&self) -> Process {
        let log = Arc::new(FaultyLog::on(self.open_log().await));
        let idempotency_store = Arc::new(FaultyIdempotencyStore::on(self.open_idempotency_store()));
        let config = WriterConfig {
            event_store: Arc::clone(&log) as Arc<dyn EventStore>,
            counters: Arc::clone(&self.counters),
            clock: clock::now,
            queue_capacity: 4_096,
            cache_bytes: WriterConfig::DEFAULT_CACHE_BYTES,
            head: Position::START,
        };
        let (writer, _) = WriterHandle::spawn(config);
        let store = Arc::clone(&idempotency_store) as Arc<dyn IdempotencyStore>;
        let commands = CommandService::new(writer, store, LogId(Uuid::nil()));
        commands.initialize_idempotency_store().await.unwrap();
        Process { commands, log, idempotency_store }
    }

    /// Reserves the next message number of the app's first chat.
    pub async fn reserve_message_number(&self, app: AppToken) -> u64 {
        let key = CounterKey::Messages(app, ChatNumber::FIRST);
        self.counters.reserve(&[ReservationRequest { key, count: 1, floor: 0 }]).await.unwrap()[0]
    }

    /// Empties the idempotency store, as if it had lost its data.
    pub fn wipe_idempotency_store(&self) {
        match &self.storage {
            Storage::Files(folder) => {
                let connection = rusqlite::Connection::open(folder.path().join("idempotency.db")).unwrap();
                connection.busy_timeout(TIMEOUT).unwrap();
                connection
                    .execute_batch("BEGIN IMMEDIATE; DELETE FROM memory; DELETE FROM reservations; COMMIT")
                    .unwrap();
            }
            Storage::Servers { redis, .. } => redis.flush().unwrap(),
        }
    }

    pub async fn events(&self) -> Vec<Event> {
        let log = self.open_log().await;
        let mut events: Vec<RecordedEvent> = Vec::new();
        loop {
            let after = events.last().map_or(Position::START, |event| event.position);
            let batch = log.read_all(after, 1_000).await.unwrap();
            if batch.is_empty() {
                return events.into_iter().map(|event| event.decode().unwrap()).collect();
            }
            events.extend(batch);
        }
    }

    /// The bodies of all messages, in the order of the log.
    pub async fn bodies(&self) -> Vec<String> {
        let body = |event| match event {
            Event::MessageCreated(created) => Some(created.body.into_string()),
            _ => None,
        };
        self.events().await.into_iter().filter_map(body).collect()
    }
}

pub type Outcome = Result<CommandOutcome, CommandError>;

impl Process {
    pub async fn send(&self, command: Command, key: &str, payload: &str) -> Outcome {
        self.commands.execute(command, Metadata::default(), Some(FingerprintedKey::new(key, payload))).await
    }

    pub async fn create_app(&self, key: &str) -> Outcome {
        let app = AppToken::generate(|bytes| getrandom::fill(bytes).unwrap());
        let name = AppName::parse("app".to_owned()).unwrap();
        self.send(Command::CreateApp { app, name }, key, "app").await
    }

    pub async fn create_chat(&self, app: AppToken, key: &str) -> Outcome {
        self.send(Command::CreateChat { app }, key, "").await
    }

    /// Creates a message; the key is also the body.
    pub async fn create_message(&self, app: AppToken, key: &str) -> Outcome {
        self.create_message_with_body(app, key, key).await
    }

    pub async fn create_message_with_body(&self, app: AppToken, key: &str, body: &str) -> Outcome {
        let message = MessageBody::parse(body.to_owned()).unwrap();
        self.send(
            Command::CreateMessage { app, chat: ChatNumber::FIRST, body: message, sender: None, data: None },
            key,
            body,
        )
        .await
    }

    /// Creates an app with a chat, without keys.
    pub async fn create_app_with_chat(&self) -> AppToken {
        let app = AppToken::generate(|bytes| getrandom::fill(bytes).unwrap());
        let name = AppName::parse("app".to_owned()).unwrap();
        for command in [Command::CreateApp { app, name }, Command::CreateChat { app }] {
            self.commands.execute(command, Metadata::default(), None).await.unwrap();
        }
        app
    }

    /// Creates a message; retries while its key is in flight.
    pub async fn create_message_with_retries(&self, app: AppToken, key: &str) -> Outcome {
        retry_in_flight(|| self.create_message(app, key)).await
    }

    /// Creates a message in a separate task.
    pub fn spawn_message(&self, app: AppToken, key: &'static str) -> JoinHandle<Outcome> {
        let process = self.clone();
        tokio::spawn(async move { process.create_message(app, key).await })
    }
}

/// Sends a command; retries while its key is in flight.
pub async fn retry_in_flight<F: Future<Output = Outcome>>(send: impl Fn() -> F) -> Outcome {
    let attempts = async {
        loop {
            match send().await {
                Err(CommandError::KeyInFlight) => sleep(Duration::from_millis(5)).await,
                outcome => break outcome,
            }
        }
    };
    within_timeout(attempts).await
}

/// Repeats a command if it failed with `Overloaded`: a writer retries a command only in the five seconds after the
/// command's arrival, and on a busy machine a test may hold the command for longer.
pub async fn repeat_if_overloaded<F: Future<Output = Outcome>>(
    outcome: Outcome,
    send: impl Fn() -> F,
) -> Outcome {
    match outcome {
        Err(CommandError::Overloaded) => retry_in_flight(send).await,
        outcome => outcome,
    }
}

/// The number of the message or chat that a command created.
pub fn created_number(outcome: &CommandOutcome) -> u64 {
    match &outcome.event {
        Event::ChatCreated(created) => created.chat_number.get(),
        Event::MessageCreated(created) => created.message_number.get(),
        event => panic!("the event creates no chat or message: {event:?}"),
    }
}
