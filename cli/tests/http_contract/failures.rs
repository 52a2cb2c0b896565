//! Tests of responses while the log is locked or damaged, while projections are missing, or while writes fail.

use chat_testing::fault_injector::{FaultInjector, InjectedFault};
use rusqlite::Connection;
use serde_json::json;

use crate::contract::{Contract, assert_problem};
use crate::harness::api::{API, app_path, chat_path, create_app, create_chat, create_message};
use crate::harness::deadline::eventually;
use crate::harness::deployment::folder;
use crate::harness::process::{Process, ProcessOptions};

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_log_is_reported_and_the_refused_command_uses_no_number() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    contract.message(&token, "one").await;
    let Some(locked) = contract.lock_log().await else { return };
    let messages = format!("{}/messages", chat_path(&token, 1));
    // The server waits for the lock for some seconds before it refuses the command.
    let refused = contract.post(messages, &json!({ "body": "two" })).await;
    assert_problem(&refused, 503, "event_store_unavailable");
    assert!(refused.has("retry-after"));
    locked.release().await;
    let created = contract.message(&token, "two, again").await;
    assert_eq!(created.json()["message_number"], 2, "the refused command used a number");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_times_out_has_an_unknown_outcome() {
    let contract = Contract::start_with(|options| options.with("--request-timeout", "1")).await;
    // On a busy machine, these commands may miss the deadline of one second, so they are repeated.
    let token = eventually("an app with a chat", async || {
        let app = contract.post(format!("{API}/apps"), &json!({ "name": "an app" })).await.json();
        let token = app["data"]["app_token"].as_str()?.to_owned();
        let chat = contract.post(format!("{}/chats", app_path(&token)), &json!({})).await;
        (chat.status == 201).then_some(token)
    })
    .await;
    let Some(locked) = contract.lock_log().await else { return };
    let messages = format!("{}/messages", chat_path(&token, 1));
    let late = contract.post(messages.clone(), &json!({ "body": "one" })).await;
    assert_problem(&late, 503, "outcome_unknown");
    locked.release().await;
    // The command is stored nevertheless, because the lock is released before the writer times out.
    eventually("the late message exists", async || {
        let read = contract.client().get(messages.clone()).send().await.json();
        (read["messages"].as_array()?.len() == 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_beyond_the_in_flight_limit_is_refused_at_once() {
    let contract = Contract::start_with(|options| options.with("--max-in-flight", "1")).await;
    let token = contract.app_with_chat().await;
    let Some(locked) = contract.lock_log().await else { return };
    let messages = format!("{}/messages", chat_path(&token, 1));
    let body = json!({ "body": "one of two" });
    let mut one = Box::pin(contract.post(messages.clone(), &body));
    let mut other = Box::pin(contract.post(messages, &body));
    // One of the two requests waits for the log, and the other one is refused.
    let (refused, waiting) = tokio::select! {
        refused = &mut one => (refused, other),
        refused = &mut other => (refused, one),
    };
    assert_problem(&refused, 503, "overloaded");
    locked.release().await;
    waiting.await.expect(201);
    contract.get("/livez").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_after_an_unreadable_event_are_refused_without_revealing_it() {
    let folder = folder();
    let options = ProcessOptions::new("serve", folder.path());
    let server = options.start().await;
    let token = create_app(&server.client(), "an app").await;
    let chat = create_chat(&server.client(), &token).await;
    create_message(&server.client(), &token, chat, "secret text").await;
    server.shut_down().await;
    let log = Connection::open(folder.path().join("events.db")).expect("the log");
    log.execute("UPDATE events SET data = '{}' WHERE event_type = 'MessageCreated'", []).expect("an update");
    drop(log);

    let server = options.start().await;
    let client = server.client();
    let messages = format!("{}/messages", chat_path(&token, chat));
    let refused = client.post(messages, &json!({ "body": "next" })).send().await;
    assert_problem(&refused, 503, "event_store_unavailable");
    let body = String::from_utf8_lossy(&refused.body).into_owned();
    assert!(!body.contains("payload") && !body.contains("missing field"), "{body}");
    // Other streams are not affected.
    client.post(format!("{}/chats", app_path(&token)), &json!({})).send().await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_without_a_read_model_are_refused_with_a_retry_after() {
    let folder = folder();
    let mut queries = ProcessOptions::new("query-api", folder.path()).spawn();
    queries.wait_for_address().await;
    let client = queries.client();
    let refused = client.get(format!("{API}/apps")).send().await;
    assert_problem(&refused, 503, "read_model_unavailable");
    assert!(refused.has("retry-after"));
    client.get("/readyz").send().await.expect(503);

    let projector = ProcessOptions::new("projector", folder.path()).start().await;
    queries.wait_until_ready().await;
    client.get(format!("{API}/apps")).send().await.expect(200);
    projector.shut_down().await;
}

/// Reads `/readyz`. Returns the status of the response, and the status and the reason of the writer.
async fn writer_readiness(server: &Process) -> (u16, String, String) {
    let ready = server.client().get("/readyz").send().await;
    let body = ready.json();
    let parts = body["parts"].as_array().expect("parts");
    let writer = parts.iter().find(|part| part["name"] == "command_writer").expect("the writer");
    let text = |name: &str| writer[name].as_str().unwrap_or_default().to_owned();
    (ready.status.as_u16(), text("status"), text("reason"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_whose_writes_fail_is_not_ready_until_its_disk_takes_writes_again() {
    let folder = folder();
    let injector = FaultInjector::new().expect("the fault injector");
    let server =
        ProcessOptions::new("serve", folder.path()).with_variables(injector.environment()).start().await;
    let client = server.client();
    let token = create_app(&client, "an app").await;
    let chat = create_chat(&client, &token).await;
    let messages = format!("{}/messages", chat_path(&token, chat));
    let mut stored_count = 0;
    for (fault, key) in [
        (InjectedFault::DiskFull, None),
        (InjectedFault::DiskFull, Some("k-1")),
        (InjectedFault::SyncFails, None),
    ] {
        injector.set(fault, true).expect("a fault");
        let mut request = client.post(messages.clone(), &json!({ "body": "lost" }));
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        assert_eq!(request.send().await.status, 503, "{fault:?}");
        let (status, writer, reason) = writer_readiness(&server).await;
        assert_eq!((status, writer.as_str()), (503, "down"), "{fault:?}, {key:?}: {reason}");
        assert!(reason.contains("full") || reason.contains("I/O error"), "{reason}");
        injector.set(fault, false).expect("the end of the fault");
        // The process becomes ready again without a command.
        server.wait_until_ready().await;
        let (_, writer, _) = writer_readiness(&server).await;
        assert_eq!(writer, "ok", "{fault:?}");
        stored_count += 1;
        let message = client.post(messages.clone(), &json!({ "body": "stored" })).send().await.expect(201);
        assert!(message.json()["message_number"].as_u64() >= Some(stored_count), "{fault:?}");
    }
    // The writes that test the disk leave no events. The log has the app, the chat, the three stored messages, and at
    // most the three whose command was answered 503.
    let log = Connection::open(folder.path().join("events.db")).expect("the log");
    let events: u64 = log.query_row("SELECT count(*) FROM events", [], |row| row.get(0)).expect("a number");
    assert!((5..=8).contains(&events), "{events} events");
}
