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
use crate::scratch_build::compute_scratch_digests;
use crate::log_builder::*;

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

    /// Waits until the rows are what the whole log, folded anew into SQLite, gives.
    async fn becomes_as_rebuilt(&self, position: Position) {
        let folder = tempfile::tempdir().unwrap();
        let rebuilt = compute_scratch_digests(&*self.log, folder.path()).await;
        assert_eq!(rebuilt.position, position);
        let expected = Snapshot { position, value: rebuilt.read_model };
        let reader = PostgresReadModel::new(self.url.clone());
        let there = async {
            while !reader.digest().await.is_ok_and(|digest| digest == expected) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        within("the same content in Postgres", there).await;
    }

    /// What an operator does behind the program's back.
    async fn meddle(&self, sql: &str) {
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
async fn it_catches_up_and_then_follows() {
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
async fn damage_that_shows_while_it_runs_is_folded_anew() {
    let bench = Bench::on(Postgres::shared());
    let first = append_chat(&bench.log, 1, 50).await;
    let running = bench.start();
    running.reaches(first).await;
    // A row that the projection has in its cache is gone.
    bench.meddle("DELETE FROM chat_read_model.chats").await;
    let second = append(&bench.log, chat(1, 1), 50, &created(51, "onto nothing")).await;
    running.reaches(second).await;
    bench.becomes_as_rebuilt(second).await;
}

#[tokio::test]
async fn damage_that_no_event_meets_is_found_at_the_start() {
    let bench = Bench::on(Postgres::shared());
    let head = append_chat(&bench.log, 1, 50).await;
    let running = bench.start();
    running.reaches(head).await;
    running.handle.join.abort();
    bench.meddle("DELETE FROM chat_read_model.messages WHERE number = 7").await;
    let _running = bench.start();
    bench.becomes_as_rebuilt(head).await;
}

#[tokio::test]
async fn a_namespace_that_an_operator_dropped_is_folded_anew_though_no_event_comes() {
    let bench = Bench::on(Postgres::shared());
    let head = append_chat(&bench.log, 1, 50).await;
    let running = bench.start();
    running.reaches(head).await;
    bench.meddle("DROP SCHEMA chat_read_model CASCADE").await;
    bench.becomes_as_rebuilt(head).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_goes_on_after_postgres_was_restarted_or_killed_though_no_event_comes() {
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
