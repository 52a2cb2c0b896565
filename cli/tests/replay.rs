//! Tests of `replay` to a file, a program and an endpoint.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod harness;
mod operator;
mod receiver;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use chat_testing::port;
use harness::deadline::{TIMEOUT, eventually};
use harness::process::program;
use operator::{EVENTS, TestLog, fill};
use receiver::Receiver;
use serde_json::Value;

/// Returns the position in the log of the event on each line.
fn positions(lines: &str) -> Vec<u64> {
    assert!(lines.is_empty() || lines.ends_with('\n'), "a torn line: {lines}");
    let position =
        |line| serde_json::from_str::<Value>(line).expect("JSON")["position"].as_u64().expect("a position");
    lines.lines().map(position).collect()
}

async fn event_positions(test_log: &TestLog) -> Vec<u64> {
    test_log.events().await.iter().map(|event| event.position.get()).collect()
}

fn start(test_log: &TestLog, arguments: &[&str]) -> Child {
    let mut command = program();
    command.current_dir(test_log.folder.path()).args(arguments).args(test_log.log_arguments());
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts")
}

fn terminate(child: &Child) {
    let sent = Command::new("kill").arg(child.id().to_string()).status().expect("the program kill");
    assert!(sent.success());
}

/// Waits until the process exits, within a time limit.
fn wait_for_exit(mut child: Child) -> Output {
    let deadline = Instant::now() + TIMEOUT;
    while child.try_wait().expect("its state").is_none() {
        assert!(Instant::now() < deadline, "the process does not exit");
        std::thread::sleep(Duration::from_millis(2));
    }
    child.wait_with_output().expect("the output")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_gets_every_event_once_and_a_repeated_replay_continues() {
    for test_log in TestLog::on_each_engine().await {
        let to_file = ["replay", "--to", "events.jsonl", "--checkpoint", "position"];
        let output = test_log.run(&to_file).expect(0);
        insta::assert_snapshot!(format!("{}_to_file", test_log.name), output.redacted(&test_log, &[]));
        let lines = fs::read_to_string(test_log.path("events.jsonl")).expect("the file");
        insta::assert_snapshot!(format!("{}_lines", test_log.name), lines);
        assert_eq!(positions(&lines), event_positions(&test_log).await);

        test_log.run(&to_file).expect(0);
        assert_eq!(
            fs::read_to_string(test_log.path("events.jsonl")).expect("the file"),
            lines,
            "the second replay changed the file"
        );
        test_log.run_without_log_arguments(&["audit", "keygen", "--out", "key"]).expect(0);
        test_log
            .run(&["audit", "checkpoint", "--key", "key", "--out", "signed", "--reason", "one more"])
            .expect(0);
        test_log.run(&to_file).expect(0);
        let longer = fs::read_to_string(test_log.path("events.jsonl")).expect("the file");
        assert_eq!(positions(&longer), event_positions(&test_log).await);
        assert_eq!(positions(&longer).len(), usize::try_from(EVENTS).expect("few") + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_replay_continues_without_lost_or_repeated_lines() {
    let test_log = TestLog { name: "more", folder: harness::deployment::folder(), server: None };
    fill(&*test_log.log().await, 6_000).await;
    // At this rate, no replay comes to its end before it is killed.
    let arguments = ["replay", "--to", "events.jsonl", "--checkpoint", "position", "--rate", "200/s"];
    for _ in 0..5 {
        let mut child = start(&test_log, &arguments);
        let before = fs::metadata(test_log.path("events.jsonl")).map_or(0, |file| file.len());
        eventually("the file grows", async || {
            let length = fs::metadata(test_log.path("events.jsonl")).map_or(0, |file| file.len());
            (length > before + 1_000).then_some(())
        })
        .await;
        child.kill().expect("it can be killed");
        child.wait().expect("its end");
        // Simulates an incomplete write.
        let mut torn = fs::read(test_log.path("events.jsonl")).expect("the file");
        torn.extend_from_slice(b"{\"position\":");
        fs::write(test_log.path("events.jsonl"), torn).expect("the file");
    }
    // Without the limit of the rate.
    test_log.run(&arguments[..5]).expect(0);
    let lines = fs::read_to_string(test_log.path("events.jsonl")).expect("the file");
    assert_eq!(positions(&lines), event_positions(&test_log).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_selected_events_are_delivered() {
    let test_log = TestLog::sqlite().await;
    for (filter, expected) in [
        (&["--after", "3", "--before", "7"][..], vec![4, 5, 6]),
        (&["--text", "MESSAGE 11"], vec![12]),
        (&["--correlation", "c-4"], vec![5]),
        (&["--type", "MessageDeleted"], vec![]),
        (&["--stream", "chat-4Vq9xKbT2mWcJz8RfNs6HyPdGu3LaEtX5Q7C-1", "--before", "5"], vec![1, 4]),
    ] {
        let output = test_log.run(&[&["replay", "--to", "cat"][..], filter].concat()).expect(0);
        assert_eq!(positions(&output.stdout), expected, "{filter:?}");
    }
    let output = test_log.run(&["replay", "--to", "cat", "--type", "MessageDelete"]).expect(0);
    assert!(output.stderr.contains("no event type is called \"MessageDelete\""), "{}", output.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_receives_the_events_and_its_failure_is_reported() {
    for test_log in TestLog::on_each_engine().await {
        let replay_to =
            |command: &str| test_log.run(&["replay", "--to", command, "--checkpoint", "position"]);
        let output = replay_to("cat").expect(0);
        assert_eq!(positions(&output.stdout), event_positions(&test_log).await);
        insta::assert_snapshot!(format!("{}_to_program", test_log.name), output.stderr);
        fs::remove_file(test_log.path("position")).expect("the checkpoint");

        // The program reads everything and then fails, so nothing counts as delivered.
        let command = "cat > out; test -e well || exit 3";
        let failed = replay_to(command).expect(2);
        insta::assert_snapshot!(format!("{}_program_failed", test_log.name), failed.stderr);
        fs::write(test_log.path("well"), "").expect("a file");
        replay_to(command).expect(0);
        let out = fs::read_to_string(test_log.path("out")).expect("the events that it read");
        assert_eq!(
            positions(&out),
            event_positions(&test_log).await,
            "the program did not get all events again"
        );

        // With `-o json`, standard output has the answer, and what the program writes goes to standard error.
        let json = test_log.run(&["replay", "--to", "cat", "-o", "json"]).expect(0);
        let answer: Value = serde_json::from_str(&json.stdout).expect("JSON alone");
        assert_eq!(answer["data"]["events"], EVENTS);
        assert_eq!(positions(&json.stderr), event_positions(&test_log).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_ends_early_has_a_checkpoint_before_the_unread_events() {
    let test_log = TestLog { name: "more", folder: harness::deployment::folder(), server: None };
    fill(&*test_log.log().await, 6_000).await;
    let arguments = ["replay", "--to", "sh feed", "--checkpoint", "position"];
    fs::write(test_log.path("feed"), "head -n 3000 > out").expect("a script");
    let early = test_log.run(&arguments).expect(2);
    assert!(early.stderr.contains("ended before it had read all events"), "{}", early.stderr);
    let read = positions(&fs::read_to_string(test_log.path("out")).expect("the events that it read"));
    let checkpoint: Value =
        serde_json::from_slice(&fs::read(test_log.path("position")).expect("a checkpoint")).expect("JSON");
    let delivered = checkpoint["position"].as_u64().expect("a position");
    assert!(delivered > 0, "the checkpoint is at the start of the log");
    assert!(
        read.contains(&delivered),
        "the program did not read position {delivered}; the last one that it read is {}",
        read[read.len() - 1]
    );
    fs::write(test_log.path("feed"), "cat").expect("a script");
    let rest = test_log.run(&arguments).expect(0);
    let rest = positions(&rest.stdout);
    assert_eq!((rest[0], rest[rest.len() - 1]), (delivered + 1, 6_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_sent_again_until_the_endpoint_accepts_it() {
    for test_log in TestLog::on_each_engine().await {
        let receiver = Receiver::start(&["503", "429 Retry-After: 0", "200", "500", "204"]).await;
        let arguments = ["replay", "--to", &receiver.url(), "--batch", "7", "--checkpoint", "position"];
        let output = wait_for_exit(start_with_authorization(&test_log, &arguments));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let requests = receiver.requests();
        let keys: Vec<&str> = requests.iter().map(|request| &*request.idempotency_key).collect();
        assert_eq!(keys.len(), 5, "{keys:?}");
        assert!(
            keys[0] == keys[1] && keys[1] == keys[2] && keys[2] != keys[3] && keys[3] == keys[4],
            "{keys:?}"
        );
        let accepted = [&requests[2].body, &requests[4].body].map(|body| positions(body));
        assert_eq!((accepted[0].len(), accepted.concat()), (7, event_positions(&test_log).await));
        assert!(requests.iter().all(|request| request.authorization == "Bearer secret"));
        assert!(requests.iter().all(|request| request.content_type == "application/x-ndjson"));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains("503") && !stderr.contains("secret"), "{stderr}");
    }
}

fn start_with_authorization(test_log: &TestLog, arguments: &[&str]) -> Child {
    let mut command = program();
    command.current_dir(test_log.folder.path()).args(arguments).args(test_log.log_arguments());
    command.env("REPLAY_AUTHORIZATION", "Bearer secret");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_refuses_ends_the_replay_after_the_last_accepted_batch() {
    let test_log = TestLog::sqlite().await;
    let receiver = Receiver::start(&["200", "422"]).await;
    let url = receiver.url();
    let arguments = ["replay", "--to", &url, "--batch", "5", "--checkpoint", "position", "--body", "array"];
    let refused = test_log.run(&arguments).expect(2);
    insta::assert_snapshot!("refused", refused.redacted(&test_log, &[(&url, "[url]")]));
    assert_eq!(receiver.requests()[0].content_type, "application/json");
    let accepted: Vec<Value> = serde_json::from_str(&receiver.requests()[0].body).expect("an array");
    assert_eq!(accepted.len(), 5);
    test_log.run(&["replay", "--to", &url, "--checkpoint", "position"]).expect(0);
    assert_eq!(positions(&receiver.requests()[2].body), [6, 7, 8, 9, 10, 11, 12]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_stays_unreachable_ends_the_replay() {
    let test_log = TestLog::sqlite().await;
    let url = format!("http://127.0.0.1:{}/events", port::find_free_for_restarts().expect("a free port"));
    let output = test_log.run(&["replay", "--to", &url, "--give-up-after", "1"]).expect(2);
    assert!(output.stderr.contains("has not accepted the events"), "{}", output.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn follow_delivers_new_events_until_it_is_stopped() {
    for test_log in TestLog::on_each_engine().await {
        let arguments = ["replay", "--to", "events.jsonl", "--checkpoint", "position", "--follow"];
        let child = start(&test_log, &arguments);
        let file = test_log.path("events.jsonl");
        let wait_for_lines = async |count: u64| {
            eventually("the events", async || {
                let lines = fs::read_to_string(&file).unwrap_or_default();
                (lines.lines().count() as u64 >= count).then_some(())
            })
            .await;
        };
        wait_for_lines(EVENTS).await;
        test_log.run_without_log_arguments(&["audit", "keygen", "--out", "key"]).expect(0);
        test_log
            .run(&["audit", "checkpoint", "--key", "key", "--out", "signed", "--reason", "one more"])
            .expect(0);
        wait_for_lines(EVENTS + 1).await;
        terminate(&child);
        let output = wait_for_exit(child);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(
            positions(&fs::read_to_string(&file).expect("the file")),
            event_positions(&test_log).await
        );
        let checkpoint: Value =
            serde_json::from_slice(&fs::read(test_log.path("position")).expect("a checkpoint"))
                .expect("JSON");
        assert_eq!(checkpoint["events"], EVENTS + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_lets_a_program_finish_the_events_it_has_received() {
    let test_log = TestLog::sqlite().await;
    let child = start(&test_log, &["replay", "--to", "cat > out", "--checkpoint", "position", "--follow"]);
    eventually("the events", async || {
        let lines = fs::read_to_string(test_log.path("out")).unwrap_or_default();
        (lines.lines().count() as u64 == EVENTS).then_some(())
    })
    .await;
    let sent =
        Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("the program kill");
    assert!(sent.success());
    let output = wait_for_exit(child);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let checkpoint: Value =
        serde_json::from_slice(&fs::read(test_log.path("position")).expect("a checkpoint")).expect("JSON");
    assert_eq!(checkpoint["position"], EVENTS);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_failure_exits_with_2_and_names_its_cause() {
    let test_log = TestLog::sqlite().await;
    fs::write(test_log.path("no-checkpoint"), "{}").expect("a file");
    fs::write(test_log.path("torn.jsonl"), "{\"position\":").expect("a file");
    test_log.run(&["replay", "--to", "events.jsonl", "--checkpoint", "position"]).expect(0);
    fs::write(test_log.path("events.jsonl"), "").expect("a file");
    let other = TestLog::sqlite().await;
    fs::copy(test_log.path("position"), other.path("position")).expect("a copy");
    let output = other.run(&["replay", "--to", "cat", "--checkpoint", "position"]).expect(2);
    let refusal = "chat-api: nothing was replayed: position: ";
    assert!(output.stderr.starts_with(refusal) && output.stderr.contains("another log"), "{}", output.stderr);
    for (arguments, expected) in [
        (&["replay"][..], "--to"),
        (&["replay", "--to", ""], "no program is named"),
        (&["replay", "--to", "cat", "--rate", "fast"], "100/s"),
        (&["replay", "--to", "cat", "--since", "soon"], "--since"),
        (&["replay", "--to", "cat", "--checkpoint", "no-checkpoint"], "no checkpoint of a replay"),
        (&["replay", "--to", "torn.jsonl"], "whole line"),
        (&["replay", "--to", "events.jsonl", "--checkpoint", "position"], "shorter than"),
        (&["replay", "--to", "no/such/folder.jsonl"], "no/such/folder.jsonl"),
        (&["replay", "--to", "https://me:secret@example.com/"], "names no user"),
        (&["replay", "--to", "cat", "--give-up-after", "1"], "for endpoints"),
        (&["replay", "--to", "no-such-program-anywhere"], "127"),
    ] {
        let output = test_log.run(arguments).expect(2);
        assert!(output.stderr.contains(expected), "{arguments:?}: {}", output.stderr);
        assert!(!output.stderr.contains("panicked"), "{}", output.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_belongs_to_one_destination_and_other_files_are_kept() {
    let test_log = TestLog::sqlite().await;
    let replay_to = |file: &str, checkpoint: &str, filter: &[&str]| {
        test_log.run(&[&["replay", "--to", file, "--checkpoint", checkpoint][..], filter].concat())
    };
    let text_of = |file: &str| fs::read_to_string(test_log.path(file)).expect("the file");
    fs::write(test_log.path("notes.jsonl"), "{}\n").expect("a file");
    replay_to("events.jsonl", "position", &[]).expect(0);
    let mode = fs::metadata(test_log.path("events.jsonl")).expect("the file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    // A completed replay does not continue if another replay has added to its file.
    replay_to("events.jsonl", "second", &["--before", "3"]).expect(0);
    let before = text_of("events.jsonl");
    let grown = replay_to("events.jsonl", "position", &[]).expect(2);
    assert!(grown.stderr.contains("something else has added"), "{}", grown.stderr);
    // An interrupted replay removes only lines that it can have written.
    let checkpoint = text_of("position");
    fs::write(test_log.path("position"), checkpoint.replace(r#""closed":true"#, r#""closed":false"#))
        .expect("a checkpoint");
    let foreign = replay_to("events.jsonl", "position", &[]).expect(2);
    assert!(foreign.stderr.contains("did not write"), "{}", foreign.stderr);
    assert_eq!(text_of("events.jsonl"), before);

    for (file, filter, expected) in [
        ("notes.jsonl", &[][..], "to the file"),
        ("no-such.jsonl", &[], "to the file"),
        ("cat", &[], "to the file"),
        ("events.jsonl", &["--before", "3"], "with another filter"),
    ] {
        let output = replay_to(file, "position", filter).expect(2);
        assert!(output.stderr.contains(expected), "{file}: {}", output.stderr);
    }
    assert_eq!(text_of("notes.jsonl"), "{}\n");
    assert!(!test_log.path("no-such.jsonl").exists());
    replay_to("cat", "third", &[]).expect(0);
    let output = replay_to("cat -n", "third", &[]).expect(2);
    assert!(
        output.stderr.contains("another program") && output.stderr.contains("--after 12"),
        "{}",
        output.stderr
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn only_one_replay_at_a_time_writes_to_a_file() {
    let test_log = TestLog::sqlite().await;
    let first = start(&test_log, &["replay", "--to", "events.jsonl", "--checkpoint", "position", "--follow"]);
    eventually("the first replay starts", async || test_log.path("position").exists().then_some(())).await;
    let second = test_log.run(&["replay", "--to", "events.jsonl", "--checkpoint", "other"]).expect(2);
    assert!(second.stderr.contains("another replay is writing"), "{}", second.stderr);
    terminate(&first);
    assert_eq!(wait_for_exit(first).status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_one_replay_at_a_time_uses_a_checkpoint() {
    let test_log = TestLog::sqlite().await;
    let arguments = ["replay", "--to", "cat > out", "--checkpoint", "position", "--follow"];
    let first = start(&test_log, &arguments);
    eventually("the first replay starts", async || test_log.path("position").exists().then_some(())).await;
    let second = test_log.run(&["replay", "--to", "cat", "--checkpoint", "position"]).expect(2);
    assert!(second.stderr.contains("another replay"), "{}", second.stderr);
    terminate(&first);
    assert_eq!(wait_for_exit(first).status.code(), Some(0));
}
