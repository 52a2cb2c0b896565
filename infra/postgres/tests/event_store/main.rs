//! The contract suite of the event store on Postgres, and further tests of this adapter.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod failures;
mod lost_events;
mod notifications;
mod ordering;
mod rights;

use std::sync::Arc;
use std::time::Duration;

use chat_domain::{ExpectedRevision, Position, Revision};
use chat_ports::contract_tests::event_store::scoped_log::{Log, event};
use chat_ports::event_store::{
    AppendError, AppendReceipt, EventStore, EventStoreError, NewEvent, StreamAppend,
};
use chat_ports::event_store_contract;
use chat_postgres::{PostgresEventStore, PostgresUrl};
use chat_testing::Postgres;
use sqlx::{AssertSqlSafe, Connection, PgConnection, raw_sql};

/// The time limit of retries, long enough for a busy machine.
const DEADLINE: Duration = Duration::from_secs(30);

/// An empty database.
struct Database {
    /// The text of `url`.
    url_text: String,
    url: PostgresUrl,
}

impl Database {
    #[expect(clippy::unnecessary_wraps, reason = "the contract suite expects an Option")]
    fn new() -> Option<Self> {
        Some(Self::on(Postgres::shared()))
    }

    fn on(postgres: &Postgres) -> Self {
        let url_text = postgres.create_database();
        let url = PostgresUrl::parse(&url_text).unwrap();
        Self { url_text, url }
    }

    async fn open(&self) -> Log {
        Arc::new(open(&self.url).await)
    }

    /// Connects outside the adapter, as the owner of the tables and superuser.
    async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url_text).await.unwrap()
    }

    /// Runs SQL outside the adapter.
    async fn run_sql(&self, sql: &str) {
        raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut self.connect().await).await.unwrap();
    }
}

const STREAM: &str = "app-1";

fn new_append(stream: &str, expected_revision: ExpectedRevision, events: Vec<NewEvent>) -> StreamAppend {
    StreamAppend { stream: stream.into(), expected_revision, events }
}

/// Appends one event to a stream.
async fn append(
    log: &dyn EventStore,
    stream: &str,
    expected: ExpectedRevision,
) -> Result<AppendReceipt, AppendError> {
    log.append(vec![new_append(stream, expected, vec![event("A")])]).await.pop().unwrap()
}

/// Appends `events` events, one by one, to a stream that has `from` events.
async fn fill(log: &dyn EventStore, stream: &str, from: u64, events: u64) {
    for revision in from..from + events {
        append(log, stream, expected_before(revision)).await.unwrap();
    }
}

/// The expected revision of an append whose first event gets this revision.
fn expected_before(revision: u64) -> ExpectedRevision {
    ExpectedRevision::from_last_revision(revision.checked_sub(1).map(Revision::new))
}

/// The positions of all events.
async fn positions(log: &dyn EventStore) -> Vec<u64> {
    let mut positions: Vec<u64> = Vec::new();
    loop {
        let after = positions.last().map_or(Position::START, |last| Position::new(*last));
        let events = log.read_all(after, 1_000).await.unwrap();
        let Some(first) = events.first() else { return positions };
        assert!(first.position > after, "position {} follows {after}", first.position);
        positions.extend(events.iter().map(|event| event.position.get()));
    }
}

/// Opens the log, and retries while the server is too busy to answer in time.
async fn open(url: &PostgresUrl) -> PostgresEventStore {
    until_answered(async || PostgresEventStore::open(url).await).await.unwrap()
}

/// Repeats a call while the server is too busy to answer in time.
async fn until_answered<T>(call: impl AsyncFn() -> Result<T, EventStoreError>) -> Result<T, EventStoreError> {
    let calling = async {
        loop {
            match call().await {
                Err(EventStoreError::Unavailable(_)) => {}
                answered => return answered,
            }
        }
    };
    tokio::time::timeout(DEADLINE, calling).await.unwrap()
}

event_store_contract!(Database);
