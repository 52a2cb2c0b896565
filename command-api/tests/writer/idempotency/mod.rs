//! Commands that are sent more than once under a key: one event, whatever fails, dies or forgets in between.
//!
//! Each case runs on two logs: one that takes an id once, as SQLite's does, and one that does not look at ids elsewhere,
//! as KurrentDB's does not.

mod chaos;
mod failures;
mod faults;
mod sending_again;
mod unchecked_ids;

use std::sync::Arc;
use std::time::Duration;

use chat_command_api::command::{Carried, Command, CommandError};
use chat_command_api::idempotency::{Idempotency, RequestKey};
use chat_command_api::writer::{CommandHandler, WriterConfig};
use chat_domain::{AppName, AppToken, ChatNumber, Event, MessageBody, Metadata, Position};
use chat_infra::clock;
use chat_infra::counters::Counters;
use chat_infra::event_store::EventStore;
use chat_infra::idempotency::{Reservations, Terms};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::stage::Stage;
use faults::{FaultyKeys, FaultyLog};
use unchecked_ids::UncheckedIds;

/// Defines each case twice, once for each kind of log.
macro_rules! on_both_logs {
    ($($case:ident)+) => {
        mod on_a_log_that_takes_an_id_once {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    super::$case($crate::idempotency::Ids::Once).await;
                }
            )+
        }
        mod on_a_log_that_does_not_look_at_ids {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    super::$case($crate::idempotency::Ids::Unchecked).await;
                }
            )+
        }
    };
}
pub(crate) use on_both_logs;

/// What a log does with an id that it holds elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ids {
    Once,
    Unchecked,
}

/// Short, so that a test that waits for a lease to run out does not wait long.
pub const TERMS: Terms = Terms { lease: Duration::from_millis(400), kept: Duration::from_hours(24) };

/// A log and a store of reservations, on which processes come and go.
pub struct Scene {
    pub stage: Stage,
    ids: Ids,
    terms: Terms,
}

/// A process, as far as commands go, and what may go wrong in it.
#[derive(Clone)]
pub struct Process {
    pub commands: Idempotency,
    pub log: Arc<FaultyLog>,
    pub keys: Arc<FaultyKeys>,
}

impl Scene {
    pub fn new(ids: Ids) -> Self {
        Self::on_terms(ids, TERMS)
    }

    pub fn on_terms(ids: Ids, terms: Terms) -> Self {
        Self { stage: Stage::new(), ids, terms }
    }

    /// A process with handles of its own on what all share.
    pub async fn process(&self) -> Process {
        let below: Arc<dyn EventStore> = match self.ids {
            Ids::Once => self.stage.another_handle(),
            Ids::Unchecked => Arc::new(UncheckedIds(self.stage.another_handle())),
        };
        let log = Arc::new(FaultyLog::on(below));
        let keys = Arc::new(FaultyKeys::on(self.stage.reservations(self.terms)));
        let config = WriterConfig {
            event_store: Arc::clone(&log) as Arc<dyn EventStore>,
            counters: Arc::clone(&self.stage.counters) as Arc<dyn Counters>,
            clock: clock::now,
            queue: WriterConfig::QUEUE,
            cache_bytes: WriterConfig::CACHE_BYTES,
            head: Position::START,
        };
        let (handler, _) = CommandHandler::spawn(config);
        let commands = Idempotency::new(handler, Arc::clone(&keys) as Arc<dyn Reservations>);
        commands.begin().await.unwrap();
        Process { commands, log, keys }
    }

    /// Takes everything that was reserved and answered out of the store, as a Redis that was flushed.
    pub fn wipe(&self) {
        let connection = rusqlite::Connection::open(self.stage.folder.path().join("idempotency.db")).unwrap();
        connection.busy_timeout(Duration::from_secs(5)).unwrap();
        connection
            .execute_batch("BEGIN IMMEDIATE; DELETE FROM memory; DELETE FROM reservations; COMMIT")
            .unwrap();
    }

    /// The bodies of all messages, in the order of the log.
    pub async fn bodies(&self) -> Vec<String> {
        let decoded = self.stage.events().await.into_iter().map(|event| event.decode().unwrap());
        let body = |event| match event {
            Event::MessageCreated(created) => Some(created.body.into_string()),
            _ => None,
        };
        decoded.filter_map(body).collect()
    }
}

pub type Outcome = Result<Carried, CommandError>;

impl Process {
    pub async fn send(&self, command: Command, key: &str, payload: &str) -> Outcome {
        self.commands.handle(command, Metadata::default(), Some(RequestKey::new(key, payload))).await
    }

    pub async fn create_app(&self, key: &str) -> Outcome {
        let app = AppToken::generate(|bytes| getrandom::fill(bytes).unwrap());
        let name = AppName::parse("app".to_owned()).unwrap();
        self.send(Command::CreateApp { app, name }, key, "app").await
    }

    pub async fn create_chat(&self, app: AppToken, key: &str) -> Outcome {
        self.send(Command::CreateChat { app }, key, "").await
    }

    /// Creates a message whose body is its key.
    pub async fn create_message(&self, app: AppToken, key: &str) -> Outcome {
        self.create_message_of(app, key, key).await
    }

    pub async fn create_message_of(&self, app: AppToken, key: &str, body: &str) -> Outcome {
        let message = MessageBody::parse(body.to_owned()).unwrap();
        self.send(Command::CreateMessage { app, chat: ChatNumber::FIRST, body: message }, key, body).await
    }

    /// An app with a chat, created without keys.
    pub async fn app_with_chat(&self) -> AppToken {
        let app = AppToken::generate(|bytes| getrandom::fill(bytes).unwrap());
        let name = AppName::parse("app".to_owned()).unwrap();
        for command in [Command::CreateApp { app, name }, Command::CreateChat { app }] {
            self.commands.handle(command, Metadata::default(), None).await.unwrap();
        }
        app
    }

    /// Sends a message again and again while its key is in flight.
    pub async fn insist(&self, app: AppToken, key: &str) -> Outcome {
        insist(|| self.create_message(app, key)).await
    }

    /// Sends a message and goes on, as other clients do.
    pub fn spawn_message(&self, app: AppToken, key: &'static str) -> JoinHandle<Outcome> {
        let process = self.clone();
        tokio::spawn(async move { process.create_message(app, key).await })
    }
}

/// Sends again and again while the key is in flight.
pub async fn insist<F: Future<Output = Outcome>>(send: impl Fn() -> F) -> Outcome {
    let answered = async {
        loop {
            match send().await {
                Err(CommandError::KeyInFlight) => sleep(Duration::from_millis(5)).await,
                outcome => break outcome,
            }
        }
    };
    soon(answered).await
}

/// What must happen, within a time that a busy machine needs.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), what).await.expect("it should have happened by now")
}

/// The number of a message or a chat.
pub fn number(carried: &Carried) -> u64 {
    match &carried.recorded.event {
        Event::ChatCreated(created) => created.chat_number.get(),
        Event::MessageCreated(created) => created.message_number.get(),
        event => panic!("{event:?}"),
    }
}
