//! `replay`: to a file, a program and an endpoint, from either engine of the log.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod harness;
mod operator;
mod receiver;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use harness::deadline::{TIMEOUT, eventually};
use harness::process::program;
use operator::{EVENTS, TestLog, fill};
use receiver::Receiver;
use serde_json::Value;

/// The positions of the lines, in their order.
fn positions(lines: &str) -> Vec<u64> {
    assert!(lines.is_empty() || lines.ends_with('\n'), "a torn line: {lines}");
    let position =
        |line| serde_json::from_str::<Value>(line).expect("JSON")["position"].as_u64().expect("a position");
    lines.lines().map(position).collect()
}

async fn all(setting: &TestLog) -> Vec<u64> {
    setting.events().await.iter().map(|event| event.position.get()).collect()
}

fn start(setting: &TestLog, arguments: &[&str]) -> Child {
    let mut command = program();
    command.current_dir(setting.folder.path()).args(arguments).args(setting.place());
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

/// Waits for its end, within limits.
fn ended(mut child: Child) -> Output {
    let deadline = Instant::now() + TIMEOUT;
    while child.try_wait().expect("its state").is_none() {
        assert!(Instant::now() < deadline, "it does not end");
        std::thread::sleep(Duration::from_millis(2));
    }
    child.wait_with_output().expect("what it said")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_gets_every_event_once_and_the_checkpoint_goes_on() {
    for setting in TestLog::both().await {
        let to_file = ["replay", "--to", "events.jsonl", "--checkpoint", "position"];
        let said = setting.run(&to_file).expect(0);
        insta::assert_snapshot!(format!("{}_to_file", setting.name), said.shown(&setting, &[]));
        let lines = fs::read_to_string(setting.path("events.jsonl")).expect("the file");
        insta::assert_snapshot!(format!("{}_lines", setting.name), lines);
        assert_eq!(positions(&lines), all(&setting).await);

        setting.run(&to_file).expect(0);
        assert_eq!(fs::read_to_string(setting.path("events.jsonl")).expect("the file"), lines, "again");
        setting.run_without_log(&["audit", "keygen", "--out", "key"]).expect(0);
        setting
            .run(&["audit", "checkpoint", "--key", "key", "--out", "signed", "--reason", "one more"])
            .expect(0);
        setting.run(&to_file).expect(0);
        let longer = fs::read_to_string(setting.path("events.jsonl")).expect("the file");
        assert_eq!(positions(&longer), all(&setting).await);
        assert_eq!(positions(&longer).len(), usize::try_from(EVENTS).expect("few") + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_replay_goes_on_and_the_file_is_as_if_nothing_had_happened() {
    let setting = TestLog::sqlite().await;
    let more = TestLog { name: "more", folder: harness::deployment::folder(), server: None };
    fill(&*more.log().await, 6_000).await;
    drop(setting);
    let arguments = ["replay", "--to", "events.jsonl", "--checkpoint", "position", "--rate", "4000/s"];
    for _ in 0..5 {
        let mut child = start(&more, &arguments);
        let before = fs::metadata(more.path("events.jsonl")).map_or(0, |file| file.len());
        eventually("the file grows", async || {
            let length = fs::metadata(more.path("events.jsonl")).map_or(0, |file| file.len());
            (length > before + 1_000).then_some(())
        })
        .await;
        child.kill().expect("it can be killed");
        child.wait().expect("its end");
        // As if a write had been cut short.
        let mut torn = fs::read(more.path("events.jsonl")).expect("the file");
        torn.extend_from_slice(b"{\"position\":");
        fs::write(more.path("events.jsonl"), torn).expect("the file");
    }
    more.run(&arguments[..5]).expect(0);
    let lines = fs::read_to_string(more.path("events.jsonl")).expect("the file");
    assert_eq!(positions(&lines), all(&more).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_events_that_are_meant_go_out() {
    let setting = TestLog::sqlite().await;
    for (filter, expected) in [
        (&["--after", "3", "--before", "7"][..], vec![4, 5, 6]),
        (&["--text", "MESSAGE 11"], vec![12]),
        (&["--correlation", "c-4"], vec![5]),
        (&["--type", "MessageDeleted"], vec![]),
        (&["--stream", "chat-4Vq9xKbT2mWcJz8RfNs6HyPdGu3LaEtX5Q7C-1", "--before", "5"], vec![1, 4]),
    ] {
        let said = setting.run(&[&["replay", "--to", "cat"][..], filter].concat()).expect(0);
        assert_eq!(positions(&said.stdout), expected, "{filter:?}");
    }
    let said = setting.run(&["replay", "--to", "cat", "--type", "MessageDelete"]).expect(0);
    assert!(said.stderr.contains("no event has the type MessageDelete"), "{}", said.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_is_fed_and_its_failure_is_told() {
    for setting in TestLog::both().await {
        let to = |command: &str| setting.run(&["replay", "--to", command, "--checkpoint", "position"]);
        let said = to("cat").expect(0);
        assert_eq!(positions(&said.stdout), all(&setting).await);
        insta::assert_snapshot!(format!("{}_to_program", setting.name), said.stderr);
        fs::remove_file(setting.path("position")).expect("the checkpoint");

        // It has had everything, and says at its end that it failed: nothing is known to be delivered.
        let command = "cat > out; test -e well || exit 3";
        let failed = to(command).expect(2);
        insta::assert_snapshot!(format!("{}_program_failed", setting.name), failed.stderr);
        fs::write(setting.path("well"), "").expect("a file");
        to(command).expect(0);
        let out = fs::read_to_string(setting.path("out")).expect("what it read");
        assert_eq!(positions(&out), all(&setting).await, "all of it again");

        let json = setting.run(&["replay", "--to", "cat", "-o", "json"]).expect(0);
        let answer: Value = serde_json::from_str(&json.stdout).expect("JSON alone");
        assert_eq!(answer["data"]["events"], EVENTS);
        assert_eq!(positions(&json.stderr), all(&setting).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_ends_early_has_a_checkpoint_before_what_it_left_unread() {
    let setting = TestLog { name: "more", folder: harness::deployment::folder(), server: None };
    fill(&*setting.log().await, 6_000).await;
    let feed = ["replay", "--to", "sh feed", "--checkpoint", "position"];
    fs::write(setting.path("feed"), "head -n 3000 > out").expect("a script");
    let early = setting.run(&feed).expect(2);
    assert!(early.stderr.contains("ended before it had everything"), "{}", early.stderr);
    let read = positions(&fs::read_to_string(setting.path("out")).expect("what it read"));
    let bookmark: Value =
        serde_json::from_slice(&fs::read(setting.path("position")).expect("a checkpoint")).expect("JSON");
    let kept = bookmark["position"].as_u64().expect("a position");
    assert!(kept > 0, "nothing is known to have been read");
    assert!(read.contains(&kept), "{kept} was not read; {} was the last", read[read.len() - 1]);
    fs::write(setting.path("feed"), "cat").expect("a script");
    let rest = setting.run(&feed).expect(0);
    let rest = positions(&rest.stdout);
    assert_eq!((rest[0], rest[rest.len() - 1]), (kept + 1, 6_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_gets_batches_again_until_it_takes_them() {
    for setting in TestLog::both().await {
        let receiver = Receiver::start(&["503", "429 Retry-After: 0", "200", "500", "204"]).await;
        let arguments = ["replay", "--to", &receiver.url(), "--batch", "7", "--checkpoint", "position"];
        let said = start_with_authorization(&setting, &arguments);
        let said = ended(said);
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        let requests = receiver.requests();
        let keys: Vec<&str> = requests.iter().map(|request| &*request.key).collect();
        assert_eq!(keys.len(), 5, "{keys:?}");
        assert!(
            keys[0] == keys[1] && keys[1] == keys[2] && keys[2] != keys[3] && keys[3] == keys[4],
            "{keys:?}"
        );
        let taken = [&requests[2].body, &requests[4].body].map(|body| positions(body));
        assert_eq!((taken[0].len(), taken.concat()), (7, all(&setting).await));
        assert!(requests.iter().all(|request| request.authorization == "Bearer secret"));
        assert!(requests.iter().all(|request| request.content_type == "application/x-ndjson"));
        let stderr = String::from_utf8_lossy(&said.stderr);
        assert!(stderr.contains("503") && !stderr.contains("secret"), "{stderr}");
    }
}

fn start_with_authorization(setting: &TestLog, arguments: &[&str]) -> Child {
    let mut command = program();
    command.current_dir(setting.folder.path()).args(arguments).args(setting.place());
    command.env("REPLAY_AUTHORIZATION", "Bearer secret");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_refuses_ends_the_replay_at_what_it_took() {
    let setting = TestLog::sqlite().await;
    let receiver = Receiver::start(&["200", "422"]).await;
    let url = receiver.url();
    let arguments = ["replay", "--to", &url, "--batch", "5", "--checkpoint", "position", "--body", "array"];
    let refused = setting.run(&arguments).expect(2);
    insta::assert_snapshot!("refused", refused.shown(&setting, &[(&url, "[url]")]));
    assert_eq!(receiver.requests()[0].content_type, "application/json");
    let taken: Vec<Value> = serde_json::from_str(&receiver.requests()[0].body).expect("an array");
    assert_eq!(taken.len(), 5);
    setting.run(&["replay", "--to", &url, "--checkpoint", "position"]).expect(0);
    assert_eq!(positions(&receiver.requests()[2].body), [6, 7, 8, 9, 10, 11, 12]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_away_is_given_up_in_the_end() {
    let setting = TestLog::sqlite().await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address");
    let url = format!("http://{free}/events");
    let said = setting.run(&["replay", "--to", &url, "--give-up-after", "1"]).expect(2);
    assert!(said.stderr.contains("has not taken the events"), "{}", said.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_is_followed_until_it_is_stopped() {
    for setting in TestLog::both().await {
        let arguments = ["replay", "--to", "events.jsonl", "--checkpoint", "position", "--follow"];
        let child = start(&setting, &arguments);
        let file = setting.path("events.jsonl");
        let grown = async |count: u64| {
            eventually("the events", async || {
                let lines = fs::read_to_string(&file).unwrap_or_default();
                (lines.lines().count() as u64 >= count).then_some(())
            })
            .await;
        };
        grown(EVENTS).await;
        setting.run_without_log(&["audit", "keygen", "--out", "key"]).expect(0);
        setting
            .run(&["audit", "checkpoint", "--key", "key", "--out", "signed", "--reason", "one more"])
            .expect(0);
        grown(EVENTS + 1).await;
        terminate(&child);
        let output = ended(child);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(positions(&fs::read_to_string(&file).expect("the file")), all(&setting).await);
        let bookmark: Value =
            serde_json::from_slice(&fs::read(setting.path("position")).expect("a checkpoint")).expect("JSON");
        assert_eq!(bookmark["events"], EVENTS + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_lets_a_program_finish_what_it_was_given() {
    let setting = TestLog::sqlite().await;
    let child = start(&setting, &["replay", "--to", "cat > out", "--checkpoint", "position", "--follow"]);
    eventually("the events", async || {
        let lines = fs::read_to_string(setting.path("out")).unwrap_or_default();
        (lines.lines().count() as u64 == EVENTS).then_some(())
    })
    .await;
    let sent =
        Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("the program kill");
    assert!(sent.success());
    let output = ended(child);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let bookmark: Value =
        serde_json::from_slice(&fs::read(setting.path("position")).expect("a checkpoint")).expect("JSON");
    assert_eq!(bookmark["position"], EVENTS);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_done_is_said_in_a_sentence() {
    let setting = TestLog::sqlite().await;
    fs::write(setting.path("no-checkpoint"), "{}").expect("a file");
    fs::write(setting.path("torn.jsonl"), "{\"position\":").expect("a file");
    setting.run(&["replay", "--to", "events.jsonl", "--checkpoint", "position"]).expect(0);
    fs::write(setting.path("events.jsonl"), "").expect("a file");
    let other = TestLog::sqlite().await;
    fs::copy(setting.path("position"), other.path("position")).expect("a copy");
    let said = other.run(&["replay", "--to", "cat", "--checkpoint", "position"]).expect(2);
    assert!(said.stderr.contains("of another log"), "{}", said.stderr);
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
        let said = setting.run(arguments).expect(2);
        assert!(said.stderr.contains(expected), "{arguments:?}: {}", said.stderr);
        assert!(!said.stderr.contains("panicked"), "{}", said.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_is_for_one_destination_and_what_others_wrote_stays() {
    let setting = TestLog::sqlite().await;
    let to = |file: &str, checkpoint: &str, more: &[&str]| {
        setting.run(&[&["replay", "--to", file, "--checkpoint", checkpoint][..], more].concat())
    };
    let lines = |file: &str| fs::read_to_string(setting.path(file)).expect("the file");
    fs::write(setting.path("notes.jsonl"), "{}\n").expect("a file");
    to("events.jsonl", "position", &[]).expect(0);
    let mode = fs::metadata(setting.path("events.jsonl")).expect("the file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    // One that ended in order leaves a file to which nobody else adds.
    to("events.jsonl", "second", &["--before", "3"]).expect(0);
    let both = lines("events.jsonl");
    let grown = to("events.jsonl", "position", &[]).expect(2);
    assert!(grown.stderr.contains("something else has added"), "{}", grown.stderr);
    // One that was interrupted cuts off no more than it can have written.
    let closed = lines("position");
    fs::write(setting.path("position"), closed.replace(r#""closed":true"#, r#""closed":false"#))
        .expect("a checkpoint");
    let foreign = to("events.jsonl", "position", &[]).expect(2);
    assert!(foreign.stderr.contains("did not write"), "{}", foreign.stderr);
    assert_eq!(lines("events.jsonl"), both);

    for (file, more, expected) in [
        ("notes.jsonl", &[][..], "to the file"),
        ("no-such.jsonl", &[], "to the file"),
        ("cat", &[], "to the file"),
        ("events.jsonl", &["--before", "3"], "of other events"),
    ] {
        let said = to(file, "position", more).expect(2);
        assert!(said.stderr.contains(expected), "{file}: {}", said.stderr);
    }
    assert_eq!(lines("notes.jsonl"), "{}\n");
    assert!(!setting.path("no-such.jsonl").exists());
    to("cat", "third", &[]).expect(0);
    let said = to("cat -n", "third", &[]).expect(2);
    assert!(said.stderr.contains("another program") && said.stderr.contains("--after 12"), "{}", said.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_for_one_replay_at_a_time() {
    let setting = TestLog::sqlite().await;
    let first = start(&setting, &["replay", "--to", "events.jsonl", "--checkpoint", "position", "--follow"]);
    eventually("the first one", async || setting.path("position").exists().then_some(())).await;
    let second = setting.run(&["replay", "--to", "events.jsonl", "--checkpoint", "other"]).expect(2);
    assert!(second.stderr.contains("another replay is writing"), "{}", second.stderr);
    terminate(&first);
    assert_eq!(ended(first).status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_is_for_one_replay_at_a_time() {
    let setting = TestLog::sqlite().await;
    let arguments = ["replay", "--to", "cat > out", "--checkpoint", "position", "--follow"];
    let first = start(&setting, &arguments);
    eventually("the first one", async || setting.path("position").exists().then_some(())).await;
    let second = setting.run(&["replay", "--to", "cat", "--checkpoint", "position"]).expect(2);
    assert!(second.stderr.contains("another replay"), "{}", second.stderr);
    terminate(&first);
    assert_eq!(ended(first).status.code(), Some(0));
}
