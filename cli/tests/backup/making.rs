//! Tests that make backups, compare the log with a backup, and interrupt commands that write files.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use chat_domain::Position;
use chat_ports::event_store::EventStore;
use chat_sqlite::SqliteEventStore;
use serde_json::Value;

use crate::damaged_log::{large_log, overwrite_a_third};
use crate::harness::deadline::eventually;
use crate::harness::deployment::folder;
use crate::harness::process::{ProcessOptions, program};
use crate::load::{Acknowledged, Load};
use crate::operator::{CommandOutput, EVENTS, TestLog};

fn file_names(folder: &std::path::Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name")).collect();
    names.sort();
    names
}

fn read_manifest(test_log: &TestLog, backup: &str) -> Value {
    serde_json::from_slice(&fs::read(test_log.path(backup).join("manifest.json")).expect("a manifest"))
        .expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_has_a_sound_copy_and_a_manifest_and_is_readable_only_by_its_owner() {
    let test_log = TestLog::sqlite().await;
    let made = test_log.run(&["backup", "--out", "backups/first"]).expect(0);
    let backup = test_log.path("backups/first");
    assert_eq!(file_names(&backup), ["events.db", "manifest.json"]);
    assert_eq!(fs::metadata(&backup).expect("a folder").permissions().mode() & 0o777, 0o700);
    for name in ["events.db", "manifest.json"] {
        let file = fs::metadata(backup.join(name)).expect("a file");
        assert_eq!(file.permissions().mode() & 0o777, 0o600, "{name}");
    }
    let manifest = read_manifest(&test_log, "backups/first");
    let log = test_log.log().await;
    assert_eq!(manifest["log"], log.log_id().await.expect("an id").0.to_string());
    assert_eq!((&manifest["events"], &manifest["position"]), (&EVENTS.into(), &EVENTS.into()));
    let verified = test_log.run(&["audit", "verify"]).expect(0);
    let root = manifest["root"].as_str().expect("a root");
    assert!(made.stdout.contains(root) && verified.stdout.contains(root), "{made:?} {verified:?}");
    let copy = SqliteEventStore::open_read_only(&backup.join("events.db")).expect("a log");
    assert_eq!(copy.read_all(Position::START, 100).await.expect("the copy"), test_log.events().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_compared_with_a_backup() {
    let test_log = TestLog::sqlite().await;
    test_log.run(&["backup", "--out", "backup"]).expect(0);
    // The log may be longer than the backup: signing a checkpoint is recorded as an event.
    let keygen = ["audit", "keygen", "--out", "audit.key"];
    test_log.run_without_log_arguments(&keygen).expect(0);
    test_log
        .run(&["audit", "checkpoint", "--key", "audit.key", "--out", "signed", "--reason", "x"])
        .expect(0);
    let verify = ["audit", "verify", "--backup", "backup"];
    let complete = test_log.run(&verify).expect(0);
    assert!(complete.stdout.contains("the log holds every event of the backup"), "{complete:?}");

    let file = rusqlite::Connection::open(test_log.path("events.db")).expect("the file");
    file.execute("DELETE FROM events WHERE position = 12", []).expect("one event less");
    let incomplete = test_log.run(&verify).expect(1);
    assert!(incomplete.stdout.contains("does not hold the events of the backup"), "{incomplete:?}");
    assert!(
        incomplete.stdout.contains("first difference at position 12\nbackup has MessageCreated "),
        "{incomplete:?}"
    );
    assert!(incomplete.stdout.contains("\nlog has    no event\n"), "{incomplete:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_never_replaces_another() {
    let test_log = TestLog::sqlite().await;
    test_log.run(&["backup", "--out", "backup"]).expect(0);
    let before = read_manifest(&test_log, "backup");
    let refused = test_log.run(&["backup", "--out", "backup"]).expect(2);
    assert!(refused.stderr.contains("is not empty"), "{refused:?}");
    assert_eq!(read_manifest(&test_log, "backup"), before);
    // An empty folder is accepted.
    fs::create_dir(test_log.path("mounted")).expect("a folder");
    test_log.run(&["backup", "--out", "mounted"]).expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_log_leaves_no_backup() {
    let test_log = large_log().await;
    overwrite_a_third(&test_log);
    let refused = test_log.run(&["backup", "--out", "backup"]).expect(2);
    assert!(refused.stderr.contains("there is no backup"), "{refused:?}");
    assert!(!test_log.path("backup").exists());
}

/// Starts a command on a log, and interrupts the command once `has_begun` returns true. Returns `None` if the command
/// succeeded before the interruption.
async fn interrupt(
    test_log: &TestLog,
    arguments: &[&str],
    has_begun: impl Fn() -> bool,
) -> Option<CommandOutput> {
    let mut command = program();
    command.current_dir(test_log.folder.path()).args(arguments).args(test_log.log_arguments());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program");
    let pid = rustix::process::Pid::from_child(&child);
    while !has_begun() && child.try_wait().expect("its state").is_none() {
        tokio::task::yield_now().await;
    }
    // The command may have ended already.
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::Int);
    let output = CommandOutput::from(child.wait_with_output().expect("its end"));
    (output.code != Some(0)).then_some(output)
}

/// The names of the files and folders beside a log, in its folder.
fn other_names(test_log: &TestLog) -> Vec<String> {
    file_names(test_log.folder.path()).into_iter().filter(|name| !name.starts_with("events.db")).collect()
}

/// Interrupts a command on a large log, and asserts that the command reports the interruption and leaves no files.
async fn assert_removes_unfinished_output(
    arguments: &[&str],
    has_begun: impl Fn(&TestLog) -> bool,
    expected: &str,
) {
    // On a slow machine, the signal may come too late. Then the command is tried again, on a new log.
    let (test_log, interrupted) = eventually("the command is interrupted", async || {
        let test_log = large_log().await;
        let interrupted = interrupt(&test_log, arguments, || has_begun(&test_log)).await;
        interrupted.map(|interrupted| (test_log, interrupted))
    })
    .await;
    let interrupted = interrupted.expect(130);
    assert_eq!((&*interrupted.stderr, &*interrupted.stdout), (expected, ""));
    assert_eq!(other_names(&test_log), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_backup_removes_the_copy_and_says_so() {
    let has_copy = |test_log: &TestLog| test_log.path("backup/events.db").exists();
    let expected = "chat-api: interrupted: there is no backup in backup\n";
    assert_removes_unfinished_output(&["backup", "--out", "backup"], has_copy, expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_export_removes_its_draft_and_says_so() {
    let has_draft =
        |test_log: &TestLog| other_names(test_log).iter().any(|name| name.starts_with("out.draft-"));
    let export = ["audit", "export", "--format", "jsonl", "--out", "out"];
    assert_removes_unfinished_output(&export, has_draft, "chat-api: interrupted: out was not written\n")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_log_in_kurrentdb_is_refused() {
    let test_log = TestLog::kurrentdb().await;
    let refused = test_log.run(&["backup", "--out", "backup"]).expect(2);
    assert!(refused.stderr.contains("KurrentDB's own tools"), "{refused:?}");
    assert!(!test_log.path("backup").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_load_holds_every_message_acknowledged_before_it() {
    let (data, backups) = (folder(), folder());
    let server = ProcessOptions::new("serve", data.path()).start().await;
    let load = Load::start(&server.client()).await;
    load.write_more(200).await;
    for round in 0..3 {
        let before = load.acknowledged();
        let backup = backups.path().join(round.to_string());
        let mut command = program();
        command.args(["backup", "--out"]).arg(&backup).arg("--data-dir").arg(data.path());
        let made = tokio::task::spawn_blocking(move || command.output().expect("the program runs")).await;
        let made = CommandOutput::from(made.expect("its end")).expect(0);
        assert_holds(&load.token, &before, &backup, &made).await;
    }
    server.kill();
    load.stop().await;
}

/// Asserts that a backup holds these messages.
async fn assert_holds(token: &str, expected: &Acknowledged, backup: &std::path::Path, made: &CommandOutput) {
    let copy = SqliteEventStore::open_read_only(&backup.join("events.db")).expect("a log");
    let events = copy.read_all(Position::START, 1_000_000).await.expect("the copy");
    for ((chat, number), body) in expected {
        let stream = format!("chat-{token}-{chat}");
        let event = events
            .iter()
            .filter(|event| *event.stream == *stream)
            .nth(usize::try_from(*number).expect("few") - 1);
        let event = event.unwrap_or_else(|| panic!("message {number} of chat {chat} is lost: {made:?}"));
        assert!(String::from_utf8_lossy(&event.data).contains(&format!("\"{body}\"")), "{event:?}");
    }
}
