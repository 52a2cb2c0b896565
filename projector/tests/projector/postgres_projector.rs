//! Tests of the projector of a read model in Postgres, with failures of the database.

use std::sync::Arc;
use std::time::Duration;

use chat_domain::Position;
use chat_ports::event_store::EventStore;
use chat_ports::read_model::{ReadModel, Snapshot};
use chat_postgres::{PostgresReadModel, PostgresReadModelStorage, PostgresUrl};
use chat_projector::ProjectorState;
use chat_projector::read_model::ReadModelProjectionStore;
use chat_sqlite::SqliteEventStore;
use chat_testing::Postgres;
use sqlx::{AssertSqlSafe, Connection, PgConnection, raw_sql};
use tempfile::TempDir;
use tokio::task::block_in_place;

use crate::deadline::within;
use crate::log_builder::*;
use crate::running::RunningProjector;
use crate::scratch_build::compute_scratch_digests;

struct Fixture {
    _folder: TempDir,
    log: Arc<dyn EventStore>,
    /// The same URL as `url`, as text.
    database: String,
    url: PostgresUrl,
}

impl Fixture {
    fn on(postgres: &Postgres) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = Arc::new(SqliteEventStore::open(&folder.path().join("events.db")).unwrap());
        let database = postgres.create_database();
        let url = PostgresUrl::parse(&database).unwrap();
        Self { _folder: folder, log, database, url }
    }

    fn start(&self) -> RunningProjector {
        RunningProjector::start(
            ReadModelProjectionStore::new(PostgresReadModelStorage::new(self.url.clone())),
            &self.log,
        )
    }

    /// Appends a chat with messages, starts a projector, and waits until it has folded them.
    async fn start_with_chat(&self, messages: u64) -> (RunningProjector, Position) {
        let head = append_chat(&self.log, 1, messages).await;
        let running = self.start();
        running.wait_for_position(head).await;
        (running, head)
    }

    /// Waits until the rows are equal to those of a rebuild into SQLite.
    async fn wait_until_equal_to_a_rebuild(&self, position: Position) {
        let folder = tempfile::tempdir().unwrap();
        let rebuilt = compute_scratch_digests(&*self.log, folder.path()).await;
        assert_eq!(rebuilt.position, position);
        let expected = Snapshot { position, value: rebuilt.read_model };
        let reader = PostgresReadModel::new(self.url.clone());
        let is_equal = async {
            while !reader.digest().await.is_ok_and(|digest| digest == expected) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        within("the same content in Postgres", is_equal).await;
    }

    /// Runs SQL in the database, on a connection other than the projector's.
    async fn execute(&self, sql: &str) {
        let mut connection = PgConnection::connect(&self.database).await.unwrap();
        raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
    }
}

#[tokio::test]
async fn catches_up_and_then_follows() {
    let fixture = Fixture::on(Postgres::shared());
    let (running, head) = fixture.start_with_chat(6_000).await;
    running.wait_for_state(ProjectorState::Live).await;
    fixture.wait_until_equal_to_a_rebuild(head).await;
    let next_revision = 6_000;
    let next = append(&fixture.log, chat(1, 1), next_revision, &created(6_001, "live")).await;
    running.wait_for_position(next).await;
    fixture.wait_until_equal_to_a_rebuild(next).await;
}

#[tokio::test]
async fn a_second_projector_stands_by_and_takes_over() {
    let fixture = Fixture::on(Postgres::shared());
    let (active, _) = fixture.start_with_chat(5).await;
    let standby = fixture.start();
    standby.wait_for_state(ProjectorState::StandingBy).await;

    active.handle.join.abort();
    let head = append_chat(&fixture.log, 2, 5).await;
    standby.wait_for_position(head).await;
    fixture.wait_until_equal_to_a_rebuild(head).await;
}

#[tokio::test]
async fn damage_found_while_running_causes_a_rebuild() {
    let fixture = Fixture::on(Postgres::shared());
    let (running, _) = fixture.start_with_chat(50).await;
    // Deletes a row that the projection has in its cache.
    fixture.execute("DELETE FROM chat_read_model.chats").await;
    let next_revision = 50;
    let head = append(&fixture.log, chat(1, 1), next_revision, &created(51, "onto nothing")).await;
    running.wait_for_position(head).await;
    fixture.wait_until_equal_to_a_rebuild(head).await;
}

#[tokio::test]
async fn damage_in_unused_rows_is_found_when_a_projector_starts() {
    let fixture = Fixture::on(Postgres::shared());
    let (running, head) = fixture.start_with_chat(50).await;
    running.handle.join.abort();
    fixture.execute("DELETE FROM chat_read_model.messages WHERE number = 7").await;
    let _running = fixture.start();
    fixture.wait_until_equal_to_a_rebuild(head).await;
}

#[tokio::test]
async fn a_dropped_schema_is_rebuilt_without_new_events() {
    let fixture = Fixture::on(Postgres::shared());
    let (_running, head) = fixture.start_with_chat(50).await;
    fixture.execute("DROP SCHEMA chat_read_model CASCADE").await;
    fixture.wait_until_equal_to_a_rebuild(head).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recovers_from_a_restart_or_kill_of_postgres_without_new_events() {
    let mut postgres = block_in_place(Postgres::start);
    let fixture = Fixture::on(&postgres);
    let (running, _) = fixture.start_with_chat(50).await;
    for (app, end) in [(2, Postgres::stop as fn(&mut Postgres)), (3, Postgres::kill)] {
        let head = append_chat(&fixture.log, app, 50).await;
        running.wait_for_position(head).await;
        block_in_place(|| {
            end(&mut postgres);
            postgres.restart();
        });
        fixture.wait_until_equal_to_a_rebuild(head).await;
    }
}
