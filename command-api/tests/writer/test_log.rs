//! A log in a temporary folder, and command services on it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chat_command_api::command::{Command, CommandError, CommandOutcome};
use chat_command_api::service::CommandService;
use chat_command_api::writer::{WriterConfig, WriterHandle};
use chat_domain::{
    AppName, AppToken, ChatNumber, DataChange, Event, MessageBody, MessageNumber, Metadata, Position,
    Precondition, Timestamp,
};
use chat_kurrentdb::CallTimeouts;
use chat_ports::counters::{Counters, InProcessCounters};
use chat_ports::event_store::{EventStore, LogId, RecordedEvent};
use chat_sqlite::{SqliteEventStore, SqliteIdempotencyStore};
use tempfile::TempDir;
use tokio::time::timeout;
use uuid::Uuid;

/// The time limit of waits, which allows for a busy machine.
pub const TIMEOUT: Duration = Duration::from_secs(20);

/// Time limits of calls to KurrentDB, long enough for a busy machine.
pub const PATIENT_TIMEOUTS: CallTimeouts =
    CallTimeouts { attempt: Duration::from_millis(2_500), total: TIMEOUT };

pub struct TestLog {
    pub log: Arc<dyn EventStore>,
    pub counters: Arc<dyn Counters>,
    pub folder: TempDir,
}

impl TestLog {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = Arc::new(SqliteEventStore::open(&folder.path().join("events.db")).unwrap());
        Self { log, counters: Arc::new(InProcessCounters::default()), folder }
    }

    /// Opens another handle on the same log, as another process does.
    pub fn another_handle(&self) -> Arc<dyn EventStore> {
        Arc::new(SqliteEventStore::open(&self.folder.path().join("events.db")).unwrap())
    }

    /// Starts a writer on this log, and returns its client.
    pub fn writer(&self) -> Client {
        writer_on(Arc::clone(&self.log), Arc::clone(&self.counters))
    }

    pub async fn events(&self) -> Vec<RecordedEvent> {
        let mut events: Vec<RecordedEvent> = Vec::new();
        loop {
            let after = events.last().map_or(Position::START, |event| event.position);
            let batch = self.log.read_all(after, 10_000).await.unwrap();
            if batch.is_empty() {
                return events;
            }
            events.extend(batch);
        }
    }
}

/// Starts a writer on a log, and returns its client.
pub fn writer_on(event_store: Arc<dyn EventStore>, counters: Arc<dyn Counters>) -> Client {
    let clock = || Timestamp::from_millis(1_790_000_000_000);
    let config = WriterConfig {
        event_store,
        counters,
        clock,
        queue_capacity: 4_096,
        cache_bytes: WriterConfig::DEFAULT_CACHE_BYTES,
        head: Position::START,
    };
    Client::new(WriterHandle::spawn(config).0)
}

/// Sends commands without idempotency keys to one writer.
#[derive(Clone)]
pub struct Client {
    pub service: CommandService,
}

pub type Outcome = Result<CommandOutcome, CommandError>;

impl Client {
    pub fn new(writer: WriterHandle) -> Self {
        // The store creates its file when it reserves the first key, and this client sends no keys.
        let log = LogId(Uuid::nil());
        let idempotency_store = SqliteIdempotencyStore::new(Path::new("unused.db"), log).unwrap();
        Self { service: CommandService::new(writer, Arc::new(idempotency_store), log) }
    }

    pub async fn send(&self, command: Command) -> Outcome {
        self.service.execute(command, Metadata::default(), None).await
    }

    pub async fn create_app(&self) -> AppToken {
        let app = AppToken::generate(|bytes| getrandom::fill(bytes).unwrap());
        let name = AppName::parse("app".to_owned()).unwrap();
        self.send(Command::CreateApp { app, name }).await.unwrap();
        app
    }

    pub async fn create_chat(&self, app: AppToken) -> Result<ChatNumber, CommandError> {
        match self.send(Command::CreateChat { app }).await?.event {
            Event::ChatCreated(created) => Ok(created.chat_number),
            event => panic!("{event:?}"),
        }
    }

    pub async fn create_message(&self, app: AppToken, chat: ChatNumber) -> Result<u64, CommandError> {
        let body = MessageBody::parse("Hi".to_owned()).unwrap();
        match self.send(Command::CreateMessage { app, chat, body, sender: None, data: None }).await?.event {
            Event::MessageCreated(created) => Ok(created.message_number.get()),
            event => panic!("{event:?}"),
        }
    }

    pub async fn edit(
        &self,
        app: AppToken,
        chat: ChatNumber,
        message: u64,
        precondition: Precondition,
    ) -> Outcome {
        let body = MessageBody::parse("Hello".to_owned()).unwrap();
        let message = MessageNumber::try_from(message).unwrap();
        self.send(Command::EditMessage { app, chat, message, body, data: DataChange::Keep, precondition })
            .await
    }

    pub async fn delete(&self, app: AppToken, chat: ChatNumber, message: u64) -> Outcome {
        let message = MessageNumber::try_from(message).unwrap();
        let precondition = Precondition::Unconditional;
        self.send(Command::DeleteMessage { app, chat, message, precondition }).await
    }
}

/// The variant name of a rejection.
pub fn rejection_name<T: std::fmt::Debug>(outcome: Result<T, CommandError>) -> String {
    match outcome {
        Err(CommandError::Rejected(rejection)) => format!("{rejection:?}"),
        other => format!("{other:?}"),
    }
}

/// Awaits a future with a timeout that allows for a busy machine.
pub async fn within_timeout<T>(future: impl Future<Output = T>) -> T {
    timeout(TIMEOUT, future).await.expect("the future should be ready within the timeout")
}
