//! Tests of `events check`, and of control characters in its output and in that of `dead-letters`.

use chat_domain::event::SchemaVersion;
use serde_json::json;

use crate::damage::{append, append_version, log, message_created_payload};
use crate::harness::api::{create_app, create_chat, create_message};
use crate::harness::deadline::eventually;
use crate::redaction::{redacted, topology_name};
use crate::test_system::{TestSystem, Topology};

/// An event type with control characters that clear a screen, change the direction of text, and begin a new line.
const HOSTILE: &str = "MessagePinned\u{1b}[2J\u{9b}2J\u{202e}\nmessage";

/// Asserts that a text contains no control characters, and that those of the event type are escaped.
fn assert_escaped(text: &str) {
    let is_control = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
    assert!(!text.contains(is_control), "{text:?}");
    assert!(text.contains(r"MessagePinned\u{1b}[2J\u{9b}2J\u{202e}\nmessage"), "{text:?}");
}

async fn check_unreadable_events(topology: Topology) {
    let system = TestSystem::start(topology).await;
    let token = create_app(system.client(), "an app").await;
    create_chat(system.client(), &token).await;
    create_message(system.client(), &token, 1, "one").await;
    let sound = system.run(&["events", "check"]).await.expect(0);
    insta::assert_snapshot!(
        format!("check_sound_{}", topology_name(&system)),
        redacted(&system, &token, &[], &sound.text())
    );

    let (log, stream) = (log(&system).await, format!("chat-{token}-1"));
    let newer = SchemaVersion::NEWEST.next();
    let positions = [
        (append(&*log, &stream, HOSTILE, "{\"text\":\"\u{9b}2J\u{202e}\"}").await, "PINNED"),
        (
            append_version(&*log, &stream, "MessageCreated", newer, &message_created_payload(2, "two")).await,
            "NEWER",
        ),
        (append(&*log, &stream, "MessageCreated", r#"{"body":"secret"}"#).await, "BROKEN"),
        (append(&*log, "weather", "Rained", "{}").await, "STRANGE"),
        (append(&*log, "chat-operations", "Fired", "{}").await, "ACT"),
    ];
    let found = system.run(&["events", "check", "--limit", "4", "--full"]).await.expect(1);
    assert_escaped(&found.text());
    assert!(!found.text().contains("secret"), "the output shows a payload, which may contain people's texts");
    insta::assert_snapshot!(
        format!("check_{}", topology_name(&system)),
        redacted(&system, &token, &positions, &found.text())
    );
    let dead_letters = eventually("a dead letter", async || {
        let output = system.run(&["dead-letters", "list", "--full"]).await;
        (output.0.status.code() == Some(1)).then_some(output)
    });
    assert_escaped(&dead_letters.await.text());
    let pinned = positions[0].0.to_string();
    // `show` makes a dry run of a retry, which fails if a projector commits at the same time.
    let shown = eventually("`dead-letters show` succeeds", async || {
        let shown = system.run(&["dead-letters", "show", &pinned, "--full"]).await;
        (shown.0.status.code() == Some(1)).then(|| shown.text())
    });
    let shown = shown.await;
    assert_escaped(&shown);
    assert!(shown.contains(&stream), "`show --full` does not print the whole stream name: {shown}");
    let from = positions[3].0.to_string();
    let later = system.run_json(&["events", "check", "--from", &from]).await;
    assert_eq!(later["status"], "finding");
    let problems = json!({ "unknown_stream": 1, "unknown_type": 1 });
    assert_eq!((&later["data"]["problems"], &later["data"]["events"]), (&problems, &json!(2)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreadable_events_are_listed() {
    check_unreadable_events(Topology::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreadable_events_are_listed_at_scale() {
    check_unreadable_events(Topology::AtScale).await;
}
