//! The projector of a read model in Postgres, with failures of the database.

use std::sync::Arc;
use std::time::Duration;

use chat_domain::Position;
use chat_ports::event_store::EventStore;
use chat_ports::read_model::{ReadModel, Snapshot};
use chat_postgres::{PostgresReadModel, PostgresUrl};
use chat_projector::read_model::PostgresReadModelStore;
use chat_projector::{ProjectorHandle, ProjectorState, RecoveryPolicy, spawn_projector};
use chat_sqlite::SqliteEventStore;
use chat_testing::Postgres;
use sqlx::{AssertSqlSafe, Connection, PgConnection, raw_sql};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::block_in_place;

use crate::deadline::within;
use crate::log_builder::*;
use crate::scratch_build::compute_scratch_digests;

struct Bench {
    _folder: TempDir,
    log: Arc<dyn EventStore>,
    database: String,
    url: PostgresUrl,
}

impl Bench {
    fn on(postgres: &Postgres) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = Arc::new(SqliteEventStore::open(&folder.path().join("events.db")).unwrap());
        let database = postgres.create_database();
        let url = PostgresUrl::parse(&database).unwrap();
        Self { _folder: folder, log, database, url }
    }

    fn start(&self) -> Running {
        let (stop, stopped) = watch::channel(false);
        let store = Arc::new(PostgresReadModelStore { url: self.url.clone() });
        let handle = spawn_projector(store, Arc::clone(&self.log), RecoveryPolicy::Rebuild, stopped);
        Running { handle, _stop: stop }
    }

    /// Waits until the rows equal those of a rebuild into SQLite.
    async fn becomes_as_rebuilt(&self, position: Position) {
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

    /// Runs SQL that the projector does not know of.
    async fn execute(&self, sql: &str) {
        let mut connection = PgConnection::connect(&self.database).await.unwrap();
        raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
    }
}

struct Running {
    handle: ProjectorHandle,
    _stop: watch::Sender<bool>,
}

impl Running {
    async fn reaches(&self, position: Position) {
        assert!(within("reaching the position", self.handle.wait_for_position(position)).await);
    }

    async fn is(&self, state: ProjectorState) {
        let mut status = self.handle.status.clone();
        within(state.as_str(), status.wait_for(|status| status.state == state)).await.unwrap();
    }
}

#[tokio::test]
async fn catches_up_and_then_follows() {
    let bench = Bench::on(Postgres::shared());
    let backlog = append_chat(&bench.log, 1, 6_000).await;
    let running = bench.start();
    running.reaches(backlog).await;
    running.is(ProjectorState::Live).await;
    bench.becomes_as_rebuilt(backlog).await;
    let next = append(&bench.log, chat(1, 1), 6_000, &created(6_001, "live")).await;
    running.reaches(next).await;
    bench.becomes_as_rebuilt(next).await;
}

#[tokio::test]
async fn a_second_projector_stands_by_and_takes_over() {
    let bench = Bench::on(Postgres::shared());
    let first = append_chat(&bench.log, 1, 5).await;
    let active = bench.start();
    active.reaches(first).await;
    let standby = bench.start();
    standby.is(ProjectorState::StandingBy).await;

    active.handle.join.abort();
    let second = append_chat(&bench.log, 2, 5).await;
    standby.reaches(second).await;
    bench.becomes_as_rebuilt(second).await;
}

#[tokio::test]
async fn damage_found_while_running_causes_a_rebuild() {
    let bench = Bench::on(Postgres::shared());
    let first = append_chat(&bench.log, 1, 50).await;
    let running = bench.start();
    running.reaches(first).await;
    // Deletes a row that the projection has in its cache.
    bench.execute("DELETE FROM chat_read_model.chats").await;
    let second = append(&bench.log, chat(1, 1), 50, &created(51, "onto nothing")).await;
    running.reaches(second).await;
    bench.becomes_as_rebuilt(second).await;
}

#[tokio::test]
async fn damage_in_unused_rows_is_found_at_the_start() {
    let bench = Bench::on(Postgres::shared());
    let head = append_chat(&bench.log, 1, 50).await;
    let running = bench.start();
    running.reaches(head).await;
    running.handle.join.abort();
    bench.execute("DELETE FROM chat_read_model.messages WHERE number = 7").await;
    let _running = bench.start();
    bench.becomes_as_rebuilt(head).await;
}

#[tokio::test]
async fn a_dropped_schema_is_rebuilt_without_new_events() {
    let bench = Bench::on(Postgres::shared());
    let head = append_chat(&bench.log, 1, 50).await;
    let running = bench.start();
    running.reaches(head).await;
    bench.execute("DROP SCHEMA chat_read_model CASCADE").await;
    bench.becomes_as_rebuilt(head).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recovers_from_a_restart_or_kill_of_postgres_without_new_events() {
    let mut postgres = block_in_place(Postgres::start);
    let bench = Bench::on(&postgres);
    let mut head = append_chat(&bench.log, 1, 50).await;
    let running = bench.start();
    running.reaches(head).await;
    for (app, end) in [(2, Postgres::stop as fn(&mut Postgres)), (3, Postgres::kill)] {
        head = append_chat(&bench.log, app, 50).await;
        running.reaches(head).await;
        block_in_place(|| {
            end(&mut postgres);
            postgres.restart();
        });
        bench.becomes_as_rebuilt(head).await;
    }
}
