//! An unreadable event at the end of a stream: commands are refused until an operator discards it.

use crate::damage::{append, log};
use crate::harness::api::{chat_path, create_app, create_chat, create_message, message_path};
use crate::harness::deadline::eventually;
use crate::test_system::{TestSystem, Topology};
use http::Method;
use serde_json::json;

async fn check_refused_commands(topology: Topology) {
    let system = TestSystem::start(topology).await;
    let client = system.client();
    let token = create_app(client, "an app").await;
    create_chat(client, &token).await;
    create_chat(client, &token).await;
    create_message(client, &token, 1, "one").await;
    let event_store = log(&system).await;
    // The writer has the first chat's state in its cache. It reads the unreadable event only when an append of its own
    // conflicts with that event.
    let broken = append(&*event_store, &format!("chat-{token}-1"), "MessageCreated", "not JSON").await;
    let requests = [
        (Method::POST, format!("{}/messages", chat_path(&token, 1))),
        (Method::PUT, message_path(&token, 1, 1)),
        (Method::DELETE, message_path(&token, 1, 1)),
    ];
    for (method, path) in &requests {
        let call = client.request(method.clone(), path.clone()).json(&json!({ "body": "Hi" }));
        let refused = call.send().await.expect(503);
        assert_eq!(refused.code(), "event_store_unavailable");
        assert_eq!(refused.header("retry-after"), "60");
        let detail = refused.json()["detail"].as_str().expect("a detail").to_owned();
        assert!(detail.contains("operator"), "the detail names no operator: {detail}");
    }
    create_message(client, &token, 2, "other chats are not concerned").await;

    let writer_part = async || {
        let ready = system.command_process().client().get("/readyz").send_until(200).await.json();
        let parts = ready["parts"].as_array().expect("parts").clone();
        parts.into_iter().find(|part| part["name"] == "command_writer").expect("the writer")
    };
    let part = writer_part().await;
    assert_eq!(part["status"], "degraded");
    let position = broken.to_string();
    assert!(part["reason"].as_str().is_some_and(|reason| reason.contains(&position)), "{part}");
    let listed = eventually("the event is a dead letter of both projections", async || {
        let listed = system.run_json(&["dead-letters", "list"]).await;
        (listed["data"]["letters"].as_array()?.len() == 2).then_some(listed)
    })
    .await;
    assert_eq!(listed["data"]["letters"][0]["refused_commands"], "all", "{listed}");
    let metrics = system.command_process().client().get("/metrics").send().await.expect(200);
    assert!(
        String::from_utf8_lossy(&metrics.body).contains("chat_command_streams_refused 1"),
        "the metrics do not count one refused stream"
    );
    let text = system.run(&["dead-letters", "list", "--full"]).await.expect(1).text();
    let line = format!("all commands are refused until the event at {position} is retried or discarded");
    assert!(text.contains(&line), "{text}");
    system.run(&["events", "check"]).await.expect(1);

    let discard = ["dead-letters", "discard", &position, "--execute", "--reason", "it is not JSON"];
    system.run(&discard).await.expect(0);
    let created = create_message(client, &token, 1, "three").await;
    assert_eq!(
        created.json()["message_number"],
        3,
        "the message after the discarded one, number 2, has the wrong number"
    );
    for (number, status) in [(1, 200), (2, 404), (3, 200)] {
        client.get(message_path(&token, 1, number)).after(&created).send().await.expect(status);
    }
    client.delete(message_path(&token, 1, 1)).send().await.expect(204);
    // A check of the refused streams that began before the discard may still record a refusal.
    eventually("the writer refuses nothing", async || (writer_part().await["status"] == "ok").then_some(()))
        .await;
    system.run(&["events", "check"]).await.expect(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_are_refused_at_an_unreadable_event_until_it_is_discarded() {
    check_refused_commands(Topology::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_are_refused_at_an_unreadable_event_until_it_is_discarded_at_scale() {
    check_refused_commands(Topology::AtScale).await;
}
