//! Tests of retries of events that an older program could not read and this one can.

use chat_ports::event_store::EventStore;
use chat_postgres::{PostgresReadModelStorage, PostgresUrl};
use chat_projector::projection::ProjectionStore;
use chat_projector::read_model::ReadModelProjectionStore;
use chat_projector::search::SearchIndexStore;
use chat_sqlite::SqliteReadModelStorage;

use crate::damage::{events, log};
use crate::harness::api::{chat_path, create_app, create_chat, create_message, message_path};
use crate::harness::deadline::eventually;
use crate::test_system::{TestSystem, Topology};

/// Folds the log like a program that can't read the creation of chats and the second message of a chat.
async fn fold_as_an_older_program(store: &impl ProjectionStore, log: &dyn EventStore) {
    // A process that has just ended may hold its lock for a moment.
    let mut projection = eventually("a new projection", async || store.recreate().await.ok()).await;
    let mut events = events(log).await;
    for event in &mut events {
        if event.event_type == "ChatCreated" || event.data.starts_with(br#"{"message_number":2"#) {
            event.data = b"of another kind".to_vec();
        }
    }
    let head = events.last().expect("events").position;
    projection.fold(log.log_id().await.expect("the log"), events, head).await.expect("a fold");
}

/// Prepares an upgraded system, whose processes are stopped: the log has a chat with three messages, and the
/// projections have dead letters for what the older program could not read and for what depends on it.
async fn prepare_upgraded_system(topology: Topology) -> (TestSystem, String) {
    let mut system = TestSystem::start(topology).await;
    let token = create_app(system.client(), "an app").await;
    create_chat(system.client(), &token).await;
    for body in ["one", "two", "three"] {
        create_message(system.client(), &token, 1, body).await;
    }
    system.end_processes().await;
    let log = log(&system).await;
    match system.flag("--database-url") {
        None => {
            let path = system.folder().join("read-model.db");
            fold_as_an_older_program(
                &ReadModelProjectionStore::new(SqliteReadModelStorage::new(path)),
                &*log,
            )
            .await;
        }
        Some(url) => {
            let url = PostgresUrl::parse(url).expect("a URL");
            fold_as_an_older_program(
                &ReadModelProjectionStore::new(PostgresReadModelStorage::new(url)),
                &*log,
            )
            .await;
        }
    }
    let dir = system.folder().join("search-index");
    fold_as_an_older_program(&SearchIndexStore { dir }, &*log).await;
    (system, token)
}

async fn assert_all_messages_exist(system: &TestSystem, token: &str) {
    for client in system.clients() {
        let chat = client.get(chat_path(token, 1)).send().await.expect(200).json();
        assert_eq!(chat["message_count"], 3);
        let two = client.get(message_path(token, 1, 2)).send().await.expect(200).json();
        assert_eq!(two["body"], "two");
        // The second query host has its own search index, whose projector may still be behind.
        let search = format!("{}/messages/search?query=two", chat_path(token, 1));
        eventually("a search finds the message", async || {
            let found = client.get(search.clone()).send().await.expect(200).json();
            (found["total"] == 1).then_some(())
        })
        .await;
    }
}

async fn check_retry(topology: Topology) {
    let (mut system, token) = prepare_upgraded_system(topology).await;
    system.start_processes().await;
    system.client().get(chat_path(&token, 1)).send().await.expect(404);

    let dry_run = system.run_json(&["dead-letters", "retry", "--all"]).await;
    assert_eq!(dry_run["status"], "ok", "{dry_run}");
    let steps: Vec<_> = dry_run["data"]["steps"]
        .as_array()
        .expect("steps")
        .iter()
        .map(|step| (step["projection"].as_str(), step["parked"].as_u64(), step["would_apply"].as_u64()))
        .collect();
    // The first step of the read model applies the creation of the chat, which is in the app's stream. Only then can
    // the second step apply the chat's messages.
    let (read_model, search_index) = (Some("read_model"), Some("search_index"));
    assert_eq!(
        steps,
        [(read_model, Some(1), Some(1)), (read_model, Some(3), Some(3)), (search_index, Some(2), Some(2))]
    );
    system.client().get(chat_path(&token, 1)).send().await.expect(404);

    let retry = ["dead-letters", "retry", "--all", "--execute", "--reason", "the new program reads them"];
    system.run(&retry).await.expect(0);
    assert_all_messages_exist(&system, &token).await;
    system.run(&["dead-letters", "list"]).await.expect(0);
    system.run(&["projections", "verify", "read-model", "--full"]).await.expect(0);
    system.run(&["projections", "verify", "search-index", "--full"]).await.expect(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_applies_events_that_an_older_program_could_not_read() {
    check_retry(Topology::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_applies_events_that_an_older_program_could_not_read_at_scale() {
    check_retry(Topology::AtScale).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_running_projector_the_command_applies_the_retry_itself() {
    let (mut system, token) = prepare_upgraded_system(Topology::Embedded).await;
    let retry = ["dead-letters", "retry", "--all", "--execute", "--reason", "the new program reads them"];
    system.run(&retry).await.expect(0);
    system.run(&["dead-letters", "list"]).await.expect(0);
    system.start_processes().await;
    assert_all_messages_exist(&system, &token).await;
}
