//! Tests that a backup can be read, and that no command changes it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::harness::deployment::folder;
use crate::harness::process::ProcessOptions;
use crate::operator::{CommandOutput, TestLog};

/// A log and a backup of it.
async fn log_with_backup() -> TestLog {
    let test_log = TestLog::sqlite().await;
    test_log.run(&["backup", "--out", "backup"]).expect(0);
    test_log
}

/// The content of each file of a folder.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry"));
    let content = |entry: fs::DirEntry| {
        (entry.file_name().into_string().expect("a name"), fs::read(entry.path()).expect("a file"))
    };
    entries.map(content).collect()
}

fn run_on_backup(test_log: &TestLog, arguments: &[&str]) -> CommandOutput {
    test_log.run_without_log_arguments(&[arguments, &["--data-dir", "backup"]].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_a_backup_changes_nothing() {
    let (test_log, restore_folder) = (log_with_backup().await, folder());
    let before = contents(&test_log.path("backup"));
    let commands: [&[&str]; 10] = [
        &["audit", "head"],
        &["audit", "list", "--text", "message 4"],
        &["audit", "tail"],
        &["audit", "show", "5"],
        &["audit", "trace", "c-4"],
        &["audit", "explain", "event", "5"],
        &["audit", "stats"],
        &["audit", "export", "--format", "jsonl"],
        &["audit", "verify"],
        &["events", "check"],
    ];
    for command in commands {
        let read = run_on_backup(&test_log, command).expect(0);
        assert!(!read.stdout.is_empty(), "{command:?}: {read:?}");
        assert_eq!(contents(&test_log.path("backup")), before, "{command:?} changed the backup");
    }
    let compared = test_log.run(&["audit", "verify", "--backup", "backup"]).expect(0);
    assert_eq!(contents(&test_log.path("backup")), before, "the comparison changed the backup: {compared:?}");
    let data = restore_folder.path().to_str().expect("a path");
    let restore_arguments = ["restore", "--from", "backup", "--execute", "--reason", "x", "--data-dir", data];
    test_log.run_without_log_arguments(&restore_arguments).expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_commands_and_every_role_refuse_a_backup() {
    let test_log = log_with_backup().await;
    test_log.run_without_log_arguments(&["audit", "keygen", "--out", "audit.key"]).expect(0);
    let before = contents(&test_log.path("backup"));
    let commands: [&[&str]; 7] = [
        &["audit", "checkpoint", "--key", "audit.key", "--out", "signed", "--reason", "x"],
        &["projections", "list"],
        &["projections", "verify", "read-model", "--full"],
        &["dead-letters", "list"],
        &["events", "accept-loss"],
        &["events", "accept-loss", "--execute", "--reason", "x"],
        &["backup", "--out", "copy"],
    ];
    for command in commands {
        let refused = run_on_backup(&test_log, command).expect(2);
        assert!(
            refused.stderr.contains("belongs to a backup, which must not change"),
            "{command:?}: {refused:?}"
        );
        assert!(refused.stderr.contains("chat-api restore --from"), "{command:?}: {refused:?}");
        assert_eq!(contents(&test_log.path("backup")), before, "{command:?} changed the backup");
    }
    for role in ["serve", "command-api", "query-api", "projector"] {
        let process = ProcessOptions::new(role, &test_log.path("backup")).spawn();
        let (status, stderr) = process.wait_for_exit().await;
        assert_eq!(status.code(), Some(2), "{role}: {stderr}");
        assert!(stderr.contains("belongs to a backup, which must not change"), "{role}: {stderr}");
        assert_eq!(contents(&test_log.path("backup")), before, "{role} changed the backup");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_with_an_unrelated_manifest_json_is_not_taken_for_a_backup() {
    let test_log = TestLog::sqlite().await;
    fs::write(test_log.path("manifest.json"), r#"{"name":"an app"}"#).expect("a file");
    test_log.run_without_log_arguments(&["audit", "keygen", "--out", "audit.key"]).expect(0);
    test_log
        .run(&["audit", "checkpoint", "--key", "audit.key", "--out", "signed", "--reason", "x"])
        .expect(0);
}

/// Opens the copy as a server opens its log. That alters the file, but no event.
fn open_as_a_log_in_use(backup: &Path) {
    let file = rusqlite::Connection::open(backup.join("events.db")).expect("the copy");
    file.pragma_update(None, "journal_mode", "WAL").expect("another journal mode");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_another_program_opened_is_restored_on_request_if_its_events_are_unaltered() {
    let (test_log, restore_folder) = (log_with_backup().await, folder());
    let backup = test_log.path("backup");
    open_as_a_log_in_use(&backup);
    let altered = contents(&backup);
    let compared = test_log.run(&["audit", "verify", "--backup", "backup"]).expect(1);
    assert!(compared.stdout.contains("the log holds every event of the backup"), "{compared:?}");
    assert!(compared.stdout.contains("the backup itself is not as it was made"), "{compared:?}");
    let data = restore_folder.path().to_str().expect("a path");
    let restore_arguments = ["restore", "--from", "backup", "--execute", "--reason", "x", "--data-dir", data];
    let accepting = [&restore_arguments[..], &["--accept-altered-file"]].concat();
    let refused = test_log.run_without_log_arguments(&restore_arguments).expect(2);
    assert!(refused.stderr.contains("has every event of the backup, unaltered"), "{refused:?}");
    assert!(refused.stderr.contains("--accept-altered-file"), "{refused:?}");
    test_log.run_without_log_arguments(&accepting).expect(0);
    assert_eq!(contents(&backup), altered);

    // A copy with an altered event is not restored.
    let file = rusqlite::Connection::open(backup.join("events.db")).expect("the copy");
    file.execute("UPDATE events SET data = '{}' WHERE position = 5", []).expect("an altered event");
    drop(file);
    // The same command for a new folder, because `data` has a log now.
    let new_folder = folder();
    let new_data = new_folder.path().to_str().expect("a path");
    let accepting: Vec<&str> =
        accepting.iter().map(|word| if *word == data { new_data } else { word }).collect();
    let refused = test_log.run_without_log_arguments(&accepting).expect(2);
    assert!(refused.stderr.contains("was altered after the backup"), "{refused:?}");
}
