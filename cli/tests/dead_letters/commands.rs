//! Tests of listing, retrying, discarding and acknowledging an unreadable event, on both topologies, and of names that
//! match nothing.

use chat_domain::Position;
use serde_json::Value;

use crate::damage::{append, log, message_created_payload};
use crate::harness::api::{chat_path, create_app, create_chat, create_message, message_path};
use crate::harness::deadline::eventually;
use crate::redaction::{redacted, topology_name};
use crate::test_system::{TestSystem, Topology};

struct CommandScenario {
    system: TestSystem,
    token: String,
    /// The positions of the unreadable event and of the event behind it, each with its name in snapshots.
    positions: Vec<(Position, &'static str)>,
}

impl CommandScenario {
    /// Starts a system with a chat of two messages, a third that can't be read, and a fourth that waits behind the
    /// third.
    async fn start(topology: Topology) -> Self {
        let system = TestSystem::start(topology).await;
        let token = create_app(system.client(), "an app").await;
        let chat = create_chat(system.client(), &token).await;
        for body in ["one", "two"] {
            create_message(system.client(), &token, chat, body).await;
        }
        let (log, stream) = (log(&system).await, format!("chat-{token}-1"));
        let broken = append(&*log, &stream, "MessageCreated", r#"{"message_number":3,"body":7}"#).await;
        let behind = append(&*log, &stream, "MessageCreated", &message_created_payload(4, "four")).await;
        let scenario = Self { system, token, positions: vec![(broken, "BROKEN"), (behind, "BEHIND")] };
        scenario.wait_for_reason(Some("2 events could not be applied and are dead letters")).await;
        scenario
    }

    /// The position of the unreadable event.
    fn broken(&self) -> String {
        self.positions[0].0.to_string()
    }

    /// Waits until `/readyz` of the projecting process reports this reason for both projections; `None`: no reason.
    async fn wait_for_reason(&self, reason: Option<&str>) {
        let client = self.system.projector_process().client();
        eventually(&format!("both projections report the reason {reason:?}"), async || {
            let ready = client.get("/readyz").send().await.json();
            let parts = ready["parts"].as_array()?.iter().filter(|part| !part["projection"].is_null());
            let reasons: Vec<&Value> = parts.map(|part| &part["reason"]).collect();
            (reasons.len() == 2 && reasons.iter().all(|part_reason| part_reason.as_str() == reason))
                .then_some(())
        })
        .await;
    }

    /// Runs a command, and compares its output with the snapshot.
    async fn check_output(&self, snapshot: &str, arguments: &[&str], code: i32) {
        let answer = self.system.run(arguments).await.expect(code);
        assert!(!answer.text().contains(&self.token), "a token is printed: {}", answer.text());
        assert_fits(&answer.text());
        let output = format!("{}---\n{}", answer.text(), answer.stderr());
        let output = redacted(&self.system, &self.token, &self.positions, &output);
        insta::assert_snapshot!(format!("{snapshot}_{}", topology_name(&self.system)), output);
    }
}

/// Asserts that each line fits into 80 columns, unless it has a word of more than 76 characters.
fn assert_fits(text: &str) {
    let has_long_word = |line: &str| line.split(' ').any(|word| word.chars().count() > 76);
    let is_wide = |line: &&str| line.chars().count() > 80 && !has_long_word(line);
    assert_eq!(text.lines().find(is_wide), None, "{text}");
}

async fn check_every_command(topology: Topology) {
    let scenario = CommandScenario::start(topology).await;
    let broken = scenario.broken();
    scenario.check_output("list", &["dead-letters", "list"], 1).await;
    scenario
        .check_output("list_all", &["dead-letters", "list", "--all", "--projection", "read-model"], 1)
        .await;
    // A page without entries still reports the pending dead letters by its status.
    let past_the_last = format!("/admin/v1/dead-letters?after={}", scenario.positions[1].0);
    let page = scenario.system.client().get(past_the_last).send().await.expect(200).json();
    assert_eq!((&page["status"], &page["data"]["letters"]), (&"finding".into(), &serde_json::json!([])));
    scenario.check_output("show", &["dead-letters", "show", &broken], 1).await;
    let full = scenario.system.run(&["dead-letters", "show", &broken, "--full"]).await.expect(1).text();
    assert!(full.contains(&format!("chat-{}-1", scenario.token)), "{full}");
    scenario.check_output("retry_dry_run", &["dead-letters", "retry", &broken], 1).await;
    scenario.check_output("no_reason", &["dead-letters", "retry", "--all", "--execute"], 2).await;
    let retry = ["dead-letters", "retry", &broken, "--execute", "--reason", "just in case"];
    scenario.check_output("retry", &retry, 1).await;

    let behind = scenario.positions[1].0.to_string();
    scenario.check_output("discard_behind", &["dead-letters", "discard", &behind], 2).await;
    scenario.check_output("discard_dry_run", &["dead-letters", "discard", &broken, "--dry-run"], 0).await;
    scenario.wait_for_reason(Some("2 events could not be applied and are dead letters")).await;
    let discard = ["dead-letters", "discard", &broken, "--execute", "--reason", "it holds no text"];
    scenario.check_output("discard", &discard, 0).await;
    scenario.wait_for_reason(Some("1 event was discarded and not acknowledged")).await;

    let client = scenario.system.client();
    let path = |number| message_path(&scenario.token, 1, number);
    for query_client in scenario.system.clients() {
        assert_eq!(query_client.get(path(4)).send().await.expect(200).json()["body"], "four");
        assert_eq!(query_client.get(path(3)).send().await.expect(404).code(), "message_not_found");
    }
    let fifth = create_message(client, &scenario.token, 1, "five").await;
    let chat = client.get(chat_path(&scenario.token, 1)).after(&fifth).send().await.expect(200).json();
    assert_eq!(chat["message_count"], 4, "the count is not that of messages 1, 2, 4 and 5: {chat}");

    scenario.check_output("list_discarded", &["dead-letters", "list"], 1).await;
    let explained = scenario.system.run(&["audit", "explain", "message", &scenario.token, "1", "3"]).await;
    let note = format!(
        "note: the event at position {broken}, MessageCreated, was discarded by the operator action at"
    );
    assert!(explained.stderr().contains(&note), "{explained:?}");
    assert!(explained.stderr().contains(": it holds no text\n"), "{explained:?}");
    // The chat rightly does not count the discarded message, so there is no finding.
    scenario.system.run(&["audit", "explain", "chat", &scenario.token, "1"]).await.expect(0);
    let other =
        scenario.system.run(&["audit", "explain", "message", &scenario.token, "1", "4"]).await.expect(0);
    assert!(!other.stderr().contains("discarded"), "{other:?}");
    scenario.check_output("acknowledge_dry_run", &["dead-letters", "acknowledge", "--all"], 0).await;
    let acknowledge = ["dead-letters", "acknowledge", &broken, "--execute", "--reason", "the app was told"];
    scenario.check_output("acknowledge", &acknowledge, 0).await;
    scenario.wait_for_reason(None).await;
    scenario.check_output("list_nothing", &["dead-letters", "list"], 0).await;
    scenario.check_output("show_acknowledged", &["dead-letters", "show", &broken], 0).await;
    // Both lists below contain the positions of the projections, which must not change in between.
    scenario.system.projector_process().wait_until_caught_up().await;
    let listed = scenario.system.run_json(&["dead-letters", "list", "--all"]).await;
    assert_eq!((listed["version"].as_u64(), listed["status"].as_str()), (Some(1), Some("ok")));
    let states: Vec<_> = listed["data"]["letters"]
        .as_array()
        .expect("letters")
        .iter()
        .map(|dead_letter| &dead_letter["state"])
        .collect();
    assert_eq!(states, ["acknowledged", "acknowledged"]);
    let over_http = client.get("/admin/v1/dead-letters?all=true").send().await.expect(200).json();
    assert_eq!(over_http, listed, "HTTP answered differently from the command line");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn naming_a_missing_dead_letter_or_stream_or_generation_fails_and_an_empty_selection_does_not() {
    let system = TestSystem::start(Topology::Embedded).await;
    let token = create_app(system.client(), "an app").await;
    system.projector_process().wait_until_folded(1).await;
    let (stream, unknown) = (format!("app-{token}"), format!("chat-{token}-7"));
    for (arguments, expected) in [
        (&["dead-letters", "retry", "5"][..], "no dead letter is at position 5"),
        (&["dead-letters", "discard", "5"], "no dead letter is at position 5"),
        (&["dead-letters", "show", "5"], "no dead letter is at position 5"),
        (&["dead-letters", "acknowledge", "5"], "no discarded event at position 5 waits to be acknowledged"),
        (&["dead-letters", "retry", "--stream", &stream], "has no dead letters"),
        (&["dead-letters", "retry", "--stream", &unknown], "the log has no stream"),
        (
            &["projections", "drop", "--generation", "99"],
            "there is no generation 99 of read_model or search_index",
        ),
        (&["projections", "diff"], "there is no other generation to compare with"),
    ] {
        let failed = system.run(arguments).await.expect(2);
        assert!(failed.stderr().contains(expected), "{arguments:?}: {failed:?}");
    }
    for arguments in [
        &["dead-letters", "retry", "--all"][..],
        &["dead-letters", "acknowledge", "--all"],
        &["dead-letters", "list", "--stream", &stream],
        &["projections", "drop"],
    ] {
        system.run(arguments).await.expect(0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreadable_event_is_listed_discarded_and_acknowledged() {
    check_every_command(Topology::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_damaged_after_it_was_applied_becomes_a_dead_letter_in_a_rebuild() {
    let system = TestSystem::start(Topology::Embedded).await;
    let token = create_app(system.client(), "an app").await;
    create_chat(system.client(), &token).await;
    create_message(system.client(), &token, 1, "one").await;
    system.projector_process().wait_until_folded(3).await;
    let log = rusqlite::Connection::open(system.folder().join("events.db")).expect("the log");
    log.execute("UPDATE events SET data = 'not JSON' WHERE position = 3", []).expect("damage");

    let url = system.client().url_of("");
    for verb in ["show", "retry", "discard"] {
        for server in [&[][..], &["--server", &url]] {
            let failed = system.run(&[&["dead-letters", verb, "3"], server].concat()).await.expect(2);
            let words = failed.stderr().split_whitespace().collect::<Vec<_>>().join(" ");
            for said in ["its payload is not JSON", "`projections rebuild --all --execute`"] {
                assert!(words.contains(said), "{verb} {server:?}: {failed:?}");
            }
        }
    }
    let reason = ["--execute", "--reason", "a test"];
    for (command, code) in [
        (&["projections", "rebuild", "--all"][..], 1),
        (&["projections", "promote"], 0),
        (&["dead-letters", "discard", "3"], 0),
    ] {
        system.run(&[command, &reason].concat()).await.expect(code);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreadable_event_is_listed_discarded_and_acknowledged_at_scale() {
    check_every_command(Topology::AtScale).await;
}
