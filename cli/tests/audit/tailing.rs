//! Tests of `audit tail`.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use chat_domain::event::SchemaVersion;
use chat_domain::metadata::EventId;
use chat_domain::{ExpectedRevision, Revision, Timestamp};
use chat_ports::event_store::{NewEvent, StreamAppend};
use serde_json::Value;
use uuid::Uuid;

use crate::fixture::{APP, Fixture};
use crate::harness::process::program;

#[tokio::test(flavor = "multi_thread")]
async fn the_last_events_are_shown_oldest_first() {
    for fixture in Fixture::on_each_engine().await {
        fixture.check_snapshot("tail", &fixture.audit(&["tail", "-n", "3"]).expect(0));
        let lines = fixture.audit(&["tail", "-n", "2", "--type", "MessageDeleted", "-o", "json"]).expect(0);
        fixture.check_snapshot("tail_json", &lines);
    }
}

/// Appends the message with this number to chat 1. The chat's seed events create 3 messages and end at revision 5, so
/// message 4 is expected to follow revision 5.
async fn append_message(fixture: &Fixture, number: u64) {
    let append = StreamAppend {
        stream: format!("chat-{APP}-1").as_str().into(),
        expected_revision: ExpectedRevision::Exact(Revision::new(5 + number - 4)),
        events: vec![NewEvent {
            id: EventId::new(Uuid::from_u128(u128::from(100 + number))),
            event_type: "MessageCreated",
            schema_version: SchemaVersion::FIRST,
            recorded_at: Timestamp::from_millis(1_790_000_900_000),
            data: format!(r#"{{"message_number":{number},"body":"news"}}"#),
            metadata: "{}".into(),
        }],
    };
    fixture.test_log.log().await.append(vec![append]).await.remove(0).expect("an append");
}

/// Follows the log from its last event. Returns the process, and a function that waits for the next event and returns
/// its position.
fn follow(fixture: &Fixture) -> (Child, impl FnMut() -> u64 + use<>) {
    let mut command = program();
    command.args(["audit", "tail", "-f", "-n", "1", "-o", "json"]).args(fixture.test_log.log_arguments());
    let mut tail = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the program");
    let mut lines = BufReader::new(tail.stdout.take().expect("a pipe")).lines();
    let next = move || {
        let line = lines.next().expect("a line").expect("text");
        serde_json::from_str::<Value>(&line).expect("JSON")["data"]["events"][0]["position"]
            .as_u64()
            .expect("a position")
    };
    (tail, next)
}

/// Sends a process SIGINT, as Ctrl-C does, and returns its exit code.
fn interrupt(mut process: Child) -> Option<i32> {
    let pid = process.id().to_string();
    let sent = Command::new("kill").args(["-INT", &pid]).status().expect("the program kill");
    assert!(sent.success());
    process.wait().expect("its end").code()
}

#[tokio::test(flavor = "multi_thread")]
async fn follow_delivers_new_events_until_it_is_stopped() {
    for fixture in Fixture::on_each_engine().await {
        let (tail, mut next) = follow(&fixture);
        assert_eq!(next(), fixture.positions[11].get());
        append_message(&fixture, 4).await;
        let first = next();
        assert!(first > fixture.positions[11].get());
        append_message(&fixture, 5).await;
        assert!(next() > first);

        let mut code = interrupt(tail);
        // A command that has not ended a second after the signal exits with 130. On a busy machine that may happen, so
        // the test tries again.
        for _ in 0..2 {
            if code == Some(130) {
                let (tail, mut next) = follow(&fixture);
                next();
                code = interrupt(tail);
            }
        }
        assert_eq!(code, Some(0));
    }
}
