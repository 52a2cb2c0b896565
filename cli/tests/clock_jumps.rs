//! Tests with a clock that jumps. The injected clock moves the system time of a process, and not its monotonic clock.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]
#![cfg(target_os = "linux")]

mod harness;

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use chat_testing::fault_injector::FaultInjector;
use harness::api::{API, chat_path, create_app, create_chat, create_message, message_path};
use harness::client::Client;
use harness::deadline::eventually;
use harness::deployment::folder;
use harness::process::{Process, ProcessOptions, program};
use serde_json::{Value, json};

const DAY: Duration = Duration::from_hours(24);

/// A clock that is set behind by this offset is before 1970.
const A_CENTURY: Duration = Duration::from_hours(24 * 36_525);

/// Runs a command on a log, with the true time.
fn run(folder: &Path, arguments: &[&str]) -> Output {
    program().args(arguments).arg("--data-dir").arg(folder).output().expect("the program runs")
}

/// The bodies of the listed messages, in the order of the list.
fn bodies(listed: &Output) -> Vec<String> {
    assert_eq!(listed.status.code(), Some(0), "{listed:?}");
    let answer: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    let events = answer["data"]["events"].as_array().expect("events").clone();
    events.iter().filter_map(|event| event["data"]["body"].as_str().map(str::to_owned)).collect()
}

/// Sets the clock ahead of the true time.
fn set_clock_ahead(injector: &FaultInjector, offset: Duration) {
    injector.set_clock_offset(offset, false).expect("a clock");
}

/// Sets the clock behind the true time.
fn set_clock_behind(injector: &FaultInjector, offset: Duration) {
    injector.set_clock_offset(offset, true).expect("a clock");
}

/// Whether a command was executed, or its first answer repeated.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    New,
    Replayed,
}

/// Sends a message under an idempotency key that is always the same. Returns the number of the message.
async fn send_under_key(client: &Client, token: &str, body: &str) -> (u64, Answer) {
    let path = format!("{}/messages", chat_path(token, 1));
    let call = client.post(path, &json!({ "body": body })).header("idempotency-key", "a-key");
    let reply = call.send().await.expect(201);
    let answer = if reply.has("idempotency-replayed") { Answer::Replayed } else { Answer::New };
    (reply.json()["message_number"].as_u64().expect("a number"), answer)
}

/// Waits until the outcome of the only key is stored. The server stores it after its answer.
async fn wait_for_stored_outcome(folder: &Path) {
    eventually("the outcome is stored", async || {
        let store = rusqlite::Connection::open(folder.join("idempotency.db")).ok()?;
        let query = "SELECT count(*) FROM reservations WHERE position IS NOT NULL";
        let stored: u32 = store.query_row(query, [], |row| row.get(0)).ok()?;
        (stored == 1).then_some(())
    })
    .await;
}

/// Sends `once` under a key as message 1 of chat 1 of a new app, waits until the outcome is stored, and returns the
/// app's token.
async fn send_first_message(process: &Process, folder: &Path) -> String {
    let token = create_app(&process.client(), "an app").await;
    create_chat(&process.client(), &token).await;
    assert_eq!(send_under_key(&process.client(), &token, "once").await, (1, Answer::New));
    wait_for_stored_outcome(folder).await;
    token
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_survives_a_clock_that_is_set_two_days_ahead_and_then_behind() {
    let (folder, injector) = (folder(), FaultInjector::new().expect("a library"));
    let options = ProcessOptions::new("serve", folder.path()).with_variables(injector.environment());
    let process = options.start().await;
    let token = send_first_message(&process, folder.path()).await;
    set_clock_ahead(&injector, DAY * 2);
    assert_eq!(send_under_key(&process.client(), &token, "once").await, (1, Answer::Replayed));
    // Another message is written in between, and the process is restarted.
    create_message(&process.client(), &token, 1, "another").await;
    process.shut_down().await;
    let process = options.start().await;
    assert_eq!(send_under_key(&process.client(), &token, "once").await, (1, Answer::Replayed));
    set_clock_behind(&injector, DAY * 2);
    assert_eq!(send_under_key(&process.client(), &token, "once").await, (1, Answer::Replayed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_the_store_lost_survives_a_jump_of_the_clock() {
    let (folder, injector) = (folder(), FaultInjector::new().expect("a library"));
    let options = ProcessOptions::new("serve", folder.path()).with_variables(injector.environment());
    let process = options.start().await;
    let token = send_first_message(&process, folder.path()).await;
    set_clock_ahead(&injector, DAY * 2);
    let store = rusqlite::Connection::open(folder.path().join("idempotency.db")).expect("a store");
    store.execute("DELETE FROM reservations", []).expect("a deletion");
    drop(store);
    // The store takes the key for a new one, but the log has the event of its first request.
    assert_eq!(send_under_key(&process.client(), &token, "once").await, (1, Answer::Replayed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_to_a_time_before_1970_stops_nothing() {
    let (folder, injector) = (folder(), FaultInjector::new().expect("a library"));
    let options = ProcessOptions::new("serve", folder.path()).with_variables(injector.environment());
    let process = options.start().await;
    let client = process.client().without_keep_alive();
    set_clock_behind(&injector, A_CENTURY);
    let token = create_app(&client, "an app").await;
    create_chat(&client, &token).await;
    assert_eq!(send_under_key(&client, &token, "early").await, (1, Answer::New));
    assert_eq!(send_under_key(&client, &token, "early").await, (1, Answer::Replayed));
    set_clock_ahead(&injector, Duration::ZERO);
    let created = create_message(&client, &token, 1, "now").await;
    assert_eq!(send_under_key(&client, &token, "early").await, (1, Answer::Replayed));
    set_clock_behind(&injector, A_CENTURY);
    let again = create_message(&client, &token, 1, "early again").await;
    for (number, body, after) in [(2, "now", &created), (3, "early again", &again)] {
        let read = client.get(message_path(&token, 1, number)).after(after).send().await.expect(200);
        assert_eq!(read.json()["body"], body);
    }
    let found = client.get(format!("{API}/apps/{token}")).send().await.expect(200);
    assert_eq!(found.json()["name"], "an app");
    let mut verify = program();
    let verified = verify.args(["projections", "verify", "--all", "--data-dir"]).arg(folder.path());
    let verified = verified.envs(injector.environment()).output().expect("the program runs");
    assert_eq!(verified.status.code(), Some(0), "{verified:?}");
    assert!(!process.stderr().contains("panicked"), "{}", process.stderr());
    process.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_not_started_with_a_clock_before_1970() {
    let (folder, injector) = (folder(), FaultInjector::new().expect("a library"));
    set_clock_behind(&injector, A_CENTURY);
    for role in ["serve", "command-api", "query-api", "projector"] {
        let options = ProcessOptions::new(role, folder.path()).with_variables(injector.environment());
        let (status, stderr) = options.spawn().wait_for_exit().await;
        assert_eq!(status.code(), Some(2), "{stderr}");
        assert!(stderr.starts_with("chat-api: the clock of this machine says 19"), "{stderr}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_a_wrong_clock_do_not_hide_others_from_a_read_bounded_by_time() {
    let (folder, injector) = (folder(), FaultInjector::new().expect("a library"));
    let options = ProcessOptions::new("serve", folder.path()).with_variables(injector.environment());
    let process = options.start().await;
    let client = process.client();
    let token = create_app(&client, "an app").await;
    create_chat(&client, &token).await;
    for (body, days, is_behind) in [
        ("before", 0, false),
        ("ahead", 3, false),
        ("between", 0, false),
        ("behind", 3, true),
        ("after", 0, false),
    ] {
        injector.set_clock_offset(DAY * days, is_behind).expect("a clock");
        create_message(&client, &token, 1, body).await;
    }
    for order in ["newest", "oldest"] {
        let list = ["audit", "list", "--type", "MessageCreated", "--order", order, "-o", "json"];
        let mut since = bodies(&run(folder.path(), &[&list[..], &["--since", "1h"]].concat()));
        since.sort_unstable();
        assert_eq!(since, ["after", "ahead", "before", "between"], "{order}");
        let tomorrow = chat_domain::Timestamp::from_millis(chat_ports::clock::now().millis() + 86_400_000);
        let mut until = bodies(&run(folder.path(), &[&list[..], &["--to", &tomorrow.to_string()]].concat()));
        until.sort_unstable();
        assert_eq!(until, ["after", "before", "behind", "between"], "{order}");
    }
    let now = chat_ports::clock::now().to_string();
    let at = run(folder.path(), &["audit", "at", &now, "chat", &token, "1", "-o", "json"]);
    let state: Value = serde_json::from_slice(&at.stdout).expect("JSON");
    // The app and the chat have positions 1 and 2, and the last of the five messages has position 7.
    assert_eq!(state["data"]["position"], 7, "{state}");
}
