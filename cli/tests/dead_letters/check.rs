//! `events check`: every event is read, and nothing touched.

use chat_domain::event::SchemaVersion;
use serde_json::json;

use crate::damage::{append, append_version, created, log};
use crate::harness::api::{create_app, create_chat, create_message};
use crate::shown::{name, redacted};
use crate::stage::{LineUp, Stage};

async fn what_cannot_be_read_is_listed(line_up: LineUp) {
    let stage = Stage::start(line_up).await;
    let token = create_app(stage.client(), "an app").await;
    create_chat(stage.client(), &token).await;
    create_message(stage.client(), &token, 1, "one").await;
    let sound = stage.operate(&["events", "check"]).await.expect(0);
    insta::assert_snapshot!(
        format!("check_sound_{}", name(&stage)),
        redacted(&stage, &token, &[], &sound.text())
    );

    let (log, stream) = (log(&stage).await, format!("chat-{token}-1"));
    let newer = SchemaVersion(SchemaVersion::CURRENT.0 + 1);
    let positions = [
        (append(&*log, &stream, "MessagePinned", "{}").await, "PINNED"),
        (append_version(&*log, &stream, "MessageCreated", newer, &created(2, "two")).await, "NEWER"),
        (append(&*log, &stream, "MessageCreated", r#"{"body":"secret"}"#).await, "BROKEN"),
        (append(&*log, "weather", "Rained", "{}").await, "STRANGE"),
        (append(&*log, "chat-operations", "Fired", "{}").await, "ACT"),
    ];
    let found = stage.operate(&["events", "check", "--limit", "4"]).await.expect(1);
    assert!(!found.text().contains("secret"), "payloads are users' texts");
    insta::assert_snapshot!(
        format!("check_{}", name(&stage)),
        redacted(&stage, &token, &positions, &found.text())
    );
    let from = positions[3].0.to_string();
    let later = stage.ask(&["events", "check", "--from", &from]).await;
    assert_eq!(later["status"], "finding");
    // Of a server that others share, only this system's streams are read.
    let (problems, events) = match line_up {
        LineUp::Embedded => (json!({ "unknown_stream": 1, "unknown_type": 1 }), 2),
        LineUp::AtScale => (json!({ "unknown_type": 1 }), 1),
    };
    assert_eq!((&later["data"]["problems"], &later["data"]["events"]), (&problems, &json!(events)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_is_listed_from_a_file() {
    what_cannot_be_read_is_listed(LineUp::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_is_listed_from_a_server() {
    what_cannot_be_read_is_listed(LineUp::AtScale).await;
}
