//! Tests of a damaged log: `events check` and the checks of a server find the damage, and the server refuses commands.

use std::fs;
use std::os::unix::fs::FileExt as _;

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::harness::api::{API, create_app, create_chat, create_message};
use crate::harness::client::Client;
use crate::harness::deadline::eventually;
use crate::harness::deployment::folder;
use crate::harness::process::{Process, ProcessOptions};
use crate::operator::{TestLog, fill};

/// A log of several hundred pages, in one file.
pub async fn large_log() -> TestLog {
    let test_log = TestLog { name: "sqlite", folder: folder(), server: None };
    fill(&*test_log.log().await, 6_000).await;
    checkpoint_wal(&test_log);
    test_log
}

/// Copies the write-ahead log into the file.
fn checkpoint_wal(test_log: &TestLog) {
    let file = Connection::open(test_log.path("events.db")).expect("the file");
    file.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("a checkpoint");
}

/// Overwrites the middle third of the log's file.
pub fn overwrite_a_third(test_log: &TestLog) {
    const PAGE: u64 = 4_096;
    let file = fs::OpenOptions::new().write(true).open(test_log.path("events.db")).expect("the file");
    let third = file.metadata().expect("its size").len() / PAGE / 3 * PAGE;
    file.write_all_at(&vec![0xa5; usize::try_from(third).expect("a size")], third).expect("damage");
}

fn execute_sql(test_log: &TestLog, sql: &str) {
    Connection::open(test_log.path("events.db")).expect("the file").execute_batch(sql).expect(sql);
}

fn options(test_log: &TestLog) -> ProcessOptions {
    ProcessOptions::new("serve", test_log.folder.path()).with("--log-check-interval", "1")
}

/// Returns the part of `/readyz` about the event log.
async fn event_log_part(client: &Client) -> Option<Value> {
    let ready = client.get("/readyz").try_send().await.ok()?.json();
    ready["parts"].as_array()?.iter().find(|part| part["name"] == "event_log").cloned()
}

/// Waits until `/readyz` reports this status of the log, and returns the reason.
async fn wait_for_log_status(client: &Client, status: &str) -> String {
    let reason = async || {
        let part = event_log_part(client).await?;
        (part["status"] == status).then(|| part["reason"].as_str().unwrap_or_default().to_owned())
    };
    eventually(&format!("the log is {status}"), reason).await
}

/// Waits until a check of the log is complete.
async fn wait_until_checked(process: &Process) {
    eventually("a complete check of the log", async || {
        process.stderr().contains("the event log was checked").then_some(())
    })
    .await;
}

/// Asserts that commands are refused, and that `/readyz`, the metrics and one line on standard error report the damage.
async fn assert_commands_refused(process: &Process, problem: &str) {
    let client = process.client();
    let reason = wait_for_log_status(&client, "down").await;
    assert!(reason.contains("the event log is damaged") && reason.contains("events check"), "{reason}");
    client.get("/readyz").send().await.expect(503);
    let refused = client.post(format!("{API}/apps"), &json!({ "name": "late" })).send().await.expect(503);
    assert_eq!(refused.code(), "event_store_unavailable");
    let metrics = client.get("/metrics").send().await.expect(200);
    let metrics = String::from_utf8(metrics.body.to_vec()).expect("text");
    let found = metrics.lines().any(|line| {
        line.starts_with(&format!("chat_event_log_findings{{problem=\"{problem}\"}}"))
            && !line.ends_with(" 0")
    });
    assert!(found, "{metrics}");
    let count_lines =
        || process.stderr().matches("ERROR chat_operations::log_checker: the event log is damaged").count();
    // The server writes its own log lines on another thread.
    eventually("the damage is logged", async || (count_lines() > 0).then_some(())).await;
    assert_eq!(count_lines(), 1, "{}", process.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partly_overwritten_log_is_not_ready_and_refuses_commands() {
    let test_log = large_log().await;
    overwrite_a_third(&test_log);
    let mut process = options(&test_log).spawn();
    process.wait_for_address().await;
    assert_commands_refused(&process, "unreadable").await;
    process.kill();
    let listed = test_log.run(&["events", "check"]).expect(1);
    assert!(listed.stdout.contains("unreadable"), "{listed:?}");
    assert!(!listed.stdout.contains("gap"), "an unreadable page is reported as a gap: {listed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_while_the_server_runs_is_found_by_a_later_check() {
    let test_log = large_log().await;
    let process = options(&test_log).start().await;
    wait_until_checked(&process).await;
    overwrite_a_third(&test_log);
    assert_commands_refused(&process, "unreadable").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_leaves_the_files_of_a_damaged_log_as_they_are() {
    let test_log = large_log().await;
    let process = options(&test_log).start().await;
    wait_until_checked(&process).await;
    create_app(&process.client(), "in the write-ahead log").await;
    overwrite_a_third(&test_log);
    assert_commands_refused(&process, "unreadable").await;
    let files = || ["events.db", "events.db-wal"].map(|name| fs::read(test_log.path(name)).expect(name));
    let before = files();
    assert!(!before[1].is_empty(), "the new app is not in the write-ahead log");
    process.terminate();
    process.wait_for_exit().await;
    assert!(files() == before, "the stop changed the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_cut_is_never_reported_as_sound() {
    for missing_bytes in [1, 500, 1_500, 2_500, 4_000, 4_096, 20_000] {
        let test_log = TestLog { name: "sqlite", folder: folder(), server: None };
        fill(&*test_log.log().await, 300).await;
        checkpoint_wal(&test_log);
        let file = fs::OpenOptions::new().write(true).open(test_log.path("events.db")).expect("the file");
        let length = file.metadata().expect("its size").len();
        file.set_len(length - missing_bytes).expect("a cut");
        let checked = test_log.run(&["events", "check"]);
        assert_ne!(checked.code, Some(0), "{missing_bytes} bytes: {checked:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_events_make_the_log_refuse_commands() {
    for (problem, sql) in [
        ("missing", "DELETE FROM events WHERE position = 3000"),
        // The last event takes the position of the deleted one. Positions have no gap; the stream of the deleted event
        // has one.
        (
            "gap",
            "DELETE FROM events WHERE position = 3000;
             UPDATE events SET position = 3000 WHERE position = 6000",
        ),
    ] {
        let test_log = large_log().await;
        execute_sql(&test_log, sql);
        let mut process = options(&test_log).spawn();
        process.wait_for_address().await;
        assert_commands_refused(&process, problem).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undecodable_event_degrades_the_log_and_blocks_no_other_stream() {
    let test_log = TestLog::sqlite().await;
    execute_sql(&test_log, "UPDATE events SET data = 'torn' WHERE position = 5");
    let mut process = options(&test_log).spawn();
    process.wait_for_address().await;
    let client = process.client();
    let reason = wait_for_log_status(&client, "degraded").await;
    assert_eq!(reason, "events of the log can't be decoded (1 problem)");
    process.wait_until_ready().await;
    let token = create_app(&client, "another").await;
    let chat = create_chat(&client, &token).await;
    create_message(&client, &token, chat, "one").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_log_is_checked_repeatedly_while_commands_are_executed() {
    let test_log = large_log().await;
    let process = options(&test_log).start().await;
    let client = process.client();
    let token = create_app(&client, "an app").await;
    let chat = create_chat(&client, &token).await;
    let checks = || process.stderr().matches("the event log was checked").count();
    eventually("three checks", async || {
        create_message(&client, &token, chat, "one").await;
        (checks() >= 3).then_some(())
    })
    .await;
    assert_eq!(event_log_part(&client).await.expect("a part")["status"], "ok");
}
