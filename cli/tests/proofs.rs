//! Tests of `audit keygen`, `checkpoint`, `verify`, `prove` and `verify-proof`.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod harness;
mod operator;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use operator::{CommandOutput, EVENTS, LogServer, TestLog};
use rusqlite::Connection;
use serde_json::Value;

/// Creates a key and a checkpoint.
fn sign(test_log: &TestLog) -> CommandOutput {
    test_log
        .run_without_log_arguments(&["audit", "keygen", "--out", "audit.key", "--name", "example.com/audit"])
        .expect(0);
    checkpoint(test_log, "checkpoint").expect(0)
}

fn checkpoint(test_log: &TestLog, out: &str) -> CommandOutput {
    let reason = "the daily checkpoint";
    test_log.run(&["audit", "checkpoint", "--key", "audit.key", "--out", out, "--reason", reason])
}

fn verify(test_log: &TestLog) -> CommandOutput {
    test_log.run(&["audit", "verify", "--checkpoint", "checkpoint", "--public-key", "audit.key.pub"])
}

/// Returns the parts of the output that differ between runs, each with its placeholder in snapshots: the log's id, the
/// time of signing, and the key.
fn variable_parts(test_log: &TestLog) -> Vec<(String, &'static str)> {
    let public = fs::read_to_string(test_log.path("audit.key.pub")).expect("a key");
    let mut variable_parts = vec![(public.lines().next().expect("a line").to_owned(), "[verifier]")];
    if let Ok(text) = fs::read_to_string(test_log.path("checkpoint")) {
        let line = |number: usize, prefix: &str| {
            text.lines().nth(number).expect("a line").strip_prefix(prefix).expect(prefix).to_owned()
        };
        variable_parts.push((line(0, "chat-api/log/"), "[log]"));
        variable_parts.push((line(4, "time "), "[time]"));
    }
    variable_parts
}

/// Compares the output of a command with the snapshot of this name.
#[track_caller]
fn check_snapshot(name: &str, test_log: &TestLog, output: &CommandOutput) {
    let variable_parts = variable_parts(test_log);
    let variable_parts: Vec<(&str, &str)> =
        variable_parts.iter().map(|(part, placeholder)| (&**part, *placeholder)).collect();
    insta::assert_snapshot!(format!("{}_{name}", test_log.name), output.redacted(test_log, &variable_parts));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_signed_and_verified_and_one_event_is_proved() {
    for test_log in TestLog::on_each_engine().await {
        let keygen = ["audit", "keygen", "--out", "audit.key", "--name", "example.com/audit"];
        check_snapshot("keygen", &test_log, &test_log.run_without_log_arguments(&keygen).expect(0));
        let mode = fs::metadata(test_log.path("audit.key")).expect("a key").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "others can read the key");
        check_snapshot("checkpoint", &test_log, &checkpoint(&test_log, "checkpoint").expect(0));
        check_snapshot("verify", &test_log, &verify(&test_log).expect(0));
        // The log now ends with an event that records the use of the key. The root depends on the id and time of this
        // event.
        let mut report = test_log.run(&["audit", "verify"]).expect(0);
        let root = report
            .stdout
            .lines()
            .find_map(|line| line.strip_prefix("root      "))
            .expect("a root")
            .to_owned();
        report.stdout = report.stdout.replace(&root, "[root]");
        check_snapshot("verify_without_checkpoint", &test_log, &report);
        let position = test_log.events().await[4].position.to_string();
        let prove = ["audit", "prove", &position, "--checkpoint", "checkpoint", "--out", "5.tlog-proof"];
        check_snapshot("prove", &test_log, &test_log.run(&prove).expect(0));
        let mode = fs::metadata(test_log.path("5.tlog-proof")).expect("a proof").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "others can read the proof");
        let without_key =
            test_log.run_without_log_arguments(&["audit", "verify-proof", "5.tlog-proof"]).expect(2);
        assert!(without_key.stderr.contains("--public-key"), "{without_key:?}");
        let verify_proof = ["audit", "verify-proof", "5.tlog-proof", "--public-key", "audit.key.pub"];
        check_snapshot(
            "verify_proof",
            &test_log,
            &test_log.run_without_log_arguments(&verify_proof).expect(0),
        );
        let as_json = [&verify_proof[..], &["-o", "json"]].concat();
        check_snapshot(
            "verify_proof_json",
            &test_log,
            &test_log.run_without_log_arguments(&as_json).expect(0),
        );
        // The use of the key is recorded after the signed events, with the operator and the reason.
        let last = test_log.events().await.pop().expect("an event");
        assert_eq!(last.event_type, "SigningKeyUsed");
        assert!(String::from_utf8_lossy(&last.data).contains("the daily checkpoint"));
        assert!(String::from_utf8_lossy(&last.metadata).contains("alice@ops-1"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alteration_of_the_log_file_is_reported() {
    for (name, sql) in [
        ("changed", "UPDATE events SET data = replace(data, 'message 4', 'massage 4')"),
        ("removed", "DELETE FROM events WHERE position = 5"),
        ("removed_at_the_end", "DELETE FROM events WHERE position >= 12"),
        (
            "swapped",
            "UPDATE events SET position = -5 WHERE position = 5; UPDATE events SET position = 5 WHERE position = 9; \
             UPDATE events SET position = 9 WHERE position = -5",
        ),
        (
            "inserted",
            "UPDATE events SET position = -position - 1 WHERE position >= 5; \
             UPDATE events SET position = -position WHERE position < 0; \
             INSERT INTO events SELECT 5, stream, 100, x'000102030405060708090a0b0c0d0e0f', event_type, \
             schema_version, recorded_at, data, metadata FROM events WHERE position = 6",
        ),
    ] {
        let test_log = TestLog::sqlite().await;
        sign(&test_log);
        let file = Connection::open(test_log.path("events.db")).expect("the file");
        file.execute_batch(sql).expect(name);
        drop(file);
        check_snapshot(name, &test_log, &verify(&test_log).expect(1));
        let unsigned = ["audit", "verify", "--checkpoint", "checkpoint", "--unsigned", "-o", "json"];
        let json = test_log.run(&unsigned).expect(1);
        let answer: Value = serde_json::from_str(&json.stdout).expect("JSON");
        assert_eq!((&answer["status"], &answer["version"]), (&"finding".into(), &1.into()), "{name}");
        assert!(answer["data"]["altered"]["position"].is_number(), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alteration_of_the_log_in_kurrentdb_is_reported() {
    for name in ["changed", "removed", "removed_at_the_end", "swapped", "inserted"] {
        let test_log = TestLog::kurrentdb().await;
        sign(&test_log);
        let positions: Vec<u64> = test_log.events().await.iter().map(|event| event.position.get()).collect();
        let Some(LogServer::KurrentDb(server)) = &test_log.server else { panic!("a KurrentDB") };
        match name {
            "changed" => server.alter_payload(positions[4], |data| data[20] ^= 1),
            "removed" => server.remove_event(positions[4]),
            "removed_at_the_end" => positions[usize::try_from(EVENTS).expect("few") - 1..]
                .iter()
                .for_each(|position| server.remove_event(*position)),
            "swapped" => server.swap_events(positions[4], positions[8]),
            _ => server.insert_copy_before(positions[4]),
        }
        let output = verify(&test_log).expect(1);
        let expected = match name {
            "changed" => format!("event {} was changed", positions[4]),
            "removed" => format!("event {} was removed", positions[4]),
            "removed_at_the_end" => format!("event {} was removed", positions[11]),
            "swapped" => format!("reordered, first at position {}", positions[4]),
            _ => format!("event {} was inserted", positions[4] - 1),
        };
        assert!(output.stdout.contains(&expected), "{name}: {}", output.stdout);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leaves_file_the_signature_and_the_log_are_reported_separately() {
    let test_log = TestLog::sqlite().await;
    sign(&test_log);
    let leaves = fs::read(test_log.path("checkpoint.leaves")).expect("the leaves");
    fs::write(test_log.path("checkpoint.leaves"), &leaves[40..]).expect("an alteration");
    check_snapshot("leaves_altered", &test_log, &verify(&test_log).expect(1));
    fs::remove_file(test_log.path("checkpoint.leaves")).expect("no leaves");
    check_snapshot("leaves_missing", &test_log, &verify(&test_log).expect(0));
    let unchecked = ["audit", "verify", "--checkpoint", "checkpoint"];
    check_snapshot("signature_not_checked", &test_log, &test_log.run(&unchecked).expect(1));
    test_log.run(&[&unchecked[..], &["--unsigned"]].concat()).expect(0);
    test_log.run_without_log_arguments(&["audit", "keygen", "--out", "other.key"]).expect(0);
    let by_other = ["audit", "verify", "--checkpoint", "checkpoint", "--public-key", "other.key.pub"];
    check_snapshot("by_another_key", &test_log, &test_log.run(&by_other).expect(1));
    let text = fs::read_to_string(test_log.path("checkpoint")).expect("the checkpoint");
    fs::write(test_log.path("checkpoint"), text.replace("\n12\n", "\n11\n")).expect("an alteration");
    check_snapshot("signature_wrong", &test_log, &verify(&test_log).expect(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_commands_overwrite_nothing_and_sign_nothing() {
    let test_log = TestLog::sqlite().await;
    sign(&test_log);
    let key = fs::read(test_log.path("audit.key")).expect("a key");
    let event_count = test_log.events().await.len();
    for (arguments, expected) in [
        (&["audit", "keygen", "--out", "audit.key"][..], "audit.key.pub can't be written"),
        (&["audit", "keygen", "--out", "no/such/folder.key"], "no/such/folder.key.pub can't be written"),
        (&["audit", "keygen", "--out", "new.key", "--name", "two words"], "no blanks"),
    ] {
        let refused = test_log.run_without_log_arguments(arguments).expect(2);
        assert!(refused.stderr.contains(expected) && refused.stdout.is_empty(), "{refused:?}");
    }
    fs::write(test_log.path("taken.key"), "").expect("a file");
    test_log.run_without_log_arguments(&["audit", "keygen", "--out", "taken.key"]).expect(2);
    assert!(!test_log.path("taken.key.pub").exists(), "a public key without its private key is left behind");
    for (arguments, expected) in [
        (&["audit", "checkpoint", "--key", "audit.key", "--out", "new"][..], "--reason"),
        (
            &["audit", "checkpoint", "--key", "audit.key", "--out", "checkpoint", "--reason", "x"],
            "checkpoint: the file exists already, and is never replaced; choose another name",
        ),
        (&["audit", "checkpoint", "--key", "audit.key.pub", "--out", "new", "--reason", "x"], "PKCS#8"),
        (&["audit", "checkpoint", "--key", "none", "--out", "new", "--reason", "x"], "none can't be read"),
        (
            &[
                "audit",
                "checkpoint",
                "--key",
                "audit.key",
                "--out",
                "new",
                "--reason",
                "x",
                "--until",
                "noon",
            ],
            "noon",
        ),
        (&["audit", "verify", "--checkpoint", "none"], "none"),
        (&["audit", "verify", "--checkpoint", "audit.key"], "no signed note"),
        (&["audit", "verify", "--public-key", "audit.key.pub"], "--checkpoint"),
        (
            &["audit", "verify", "--checkpoint", "checkpoint", "--public-key", "audit.key"],
            "no Ed25519 public key",
        ),
        (&["audit", "prove", "99", "--checkpoint", "checkpoint", "--out", "p"], "does not cover the event"),
        (&["audit", "prove", "0", "--checkpoint", "checkpoint", "--out", "p"], "no event at this position"),
        (
            &["audit", "prove", "1", "--checkpoint", "checkpoint", "--out", "audit.key"],
            "audit.key can't be written",
        ),
    ] {
        let refused = test_log.run(arguments).expect(2);
        assert!(refused.stderr.contains(expected) && refused.stdout.is_empty(), "{arguments:?}: {refused:?}");
    }
    assert_eq!(fs::read(test_log.path("audit.key")).expect("a key"), key);
    assert_eq!(test_log.events().await.len(), event_count, "a refused command used a key");
    assert!(!test_log.path("new").exists() && !test_log.path("new.leaves").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_of_another_log_is_reported() {
    let (signed, other) = (TestLog::sqlite().await, TestLog::sqlite().await);
    sign(&signed);
    for file in ["checkpoint", "checkpoint.leaves", "audit.key.pub"] {
        fs::copy(signed.path(file), other.path(file)).expect("a copy");
    }
    let output = verify(&other).expect(1);
    assert!(output.stdout.contains("not the log that was signed"), "{}", output.stdout);
}

#[test]
fn the_help_of_each_verb_shows_an_example() {
    for verb in ["keygen", "checkpoint", "verify", "prove", "verify-proof"] {
        let output = harness::process::program().args(["audit", verb, "-h"]).output().expect("help");
        let help = String::from_utf8(output.stdout).expect("text");
        assert!(help.contains("Example") && help.contains(&format!("chat-api audit {verb}")), "{help}");
    }
}
