//! Kills the process between append and response, and repeats the `POST`. The repetition must be answered as a replay,
//! and only one event may be stored. The last test kills the process before the append.
//!
//! The log is locked while the request is sent, so that nothing can be appended. Then the lock is released, and the
//! process is killed as soon as the event is in the file. If the response arrives before the kill, the round is checked
//! too, but not counted.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod harness;

use std::path::Path;
use std::time::Duration;

use harness::api::{API, app_path, chat_path, create_app, create_chat, number};
use harness::client::{Client, Reply};
use harness::deadline::TIMEOUT;
use harness::deployment::folder;
use harness::process::{Process, ProcessOptions};
use rusqlite::Connection;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

/// The minimum number of kills that come between append and response.
const MIN_HITS: u64 = 12;
/// The maximum number of attempts. An attempt has a round for each kind of creation.
const MAX_ATTEMPTS: u64 = 200;

/// The log, opened by the test to read and lock it.
struct Log(Connection);

impl Log {
    fn open(folder: &Path) -> Self {
        let connection = Connection::open(folder.join("events.db")).expect("the log");
        connection.busy_timeout(TIMEOUT).expect("a timeout");
        Self(connection)
    }

    fn lock(&self) {
        self.0.execute_batch("BEGIN IMMEDIATE").expect("the log is free");
    }

    fn release(&self) {
        self.0.execute_batch("ROLLBACK").expect("the log is released");
    }

    fn events(&self) -> u64 {
        self.0.query_row("SELECT count(*) FROM events", [], |row| row.get(0)).expect("a count")
    }

    /// Polls without a pause until the log has more events than this.
    fn wait_for_more_than(&self, events: u64) {
        let deadline = Instant::now() + TIMEOUT;
        while self.events() <= events {
            assert!(Instant::now() < deadline, "no event is appended");
        }
    }
}

/// A request that creates an entity, and a function that reads the entity's identity from the response.
#[derive(Clone)]
struct Creation {
    path: String,
    body: Value,
    identity: fn(&Value) -> Value,
}

async fn send(client: &Client, creation: &Creation, key: &str) -> Result<Reply, String> {
    let call = client.post(&*creation.path, &creation.body).header("idempotency-key", key);
    call.try_send().await.map_err(|error| error.to_string())
}

/// Sends the request until the response has another status than 409, and asserts 201.
async fn send_until_answered(client: &Client, creation: &Creation, key: &str) -> Reply {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let reply = send(client, creation, key).await.expect("an answer");
        if reply.status != 409 {
            return reply.expect(201);
        }
        assert!(Instant::now() < deadline, "{key} stays in flight");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Kills a process as soon as its event is stored. Returns whether the kill came before the response.
async fn kill_after_the_append(process: Process, log: &Log, creation: &Creation, key: &str) -> bool {
    let events = log.events();
    log.lock();
    // The request runs in a task of its own, which goes on while this task waits for the event.
    let (client, creation, key) = (process.client(), creation.clone(), key.to_owned());
    let mut sent = tokio::spawn(async move { send(&client, &creation, &key).await });
    // Usually long enough for the request to reach the log.
    assert!(timeout(Duration::from_millis(50), &mut sent).await.is_err(), "answered while the log is locked");
    log.release();
    log.wait_for_more_than(events);
    process.kill();
    sent.await.expect("no panic").is_err()
}

fn creations(token: &str, chat: u64) -> Vec<Creation> {
    vec![
        Creation {
            path: format!("{}/messages", chat_path(token, chat)),
            body: json!({ "body": "Hi" }),
            identity: |body| body["message_number"].clone(),
        },
        Creation {
            path: format!("{}/chats", app_path(token)),
            body: json!({}),
            identity: |body| body["chat_number"].clone(),
        },
        Creation {
            path: format!("{API}/apps"),
            body: json!({ "name": "an app" }),
            identity: |body| body["data"].clone(),
        },
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_post_is_executed_once_if_its_process_was_killed_before_the_answer() {
    let folder = folder();
    let options = ProcessOptions::new("serve", folder.path());
    let mut server = options.start().await;
    let token = create_app(&server.client(), "an app").await;
    let chat = create_chat(&server.client(), &token).await;
    let log = Log::open(folder.path());
    let mut hits = 0;
    for attempt in 0..MAX_ATTEMPTS {
        for (index, creation) in creations(&token, chat).iter().enumerate() {
            let key = format!("{attempt}-{index}");
            let hit = kill_after_the_append(server, &log, creation, &key).await;
            let events = log.events();
            server = options.start().await;
            let repeated = send_until_answered(&server.client(), creation, &key).await;
            assert_eq!(repeated.header("idempotency-replayed"), "true");
            let repeated_again = send_until_answered(&server.client(), creation, &key).await;
            assert_eq!((creation.identity)(&repeated_again.json()), (creation.identity)(&repeated.json()));
            assert_eq!(log.events(), events, "{key} was appended twice");
            hits += u64::from(hit);
        }
        if hits >= MIN_HITS {
            break;
        }
    }
    assert!(hits >= MIN_HITS, "only {hits} kills came between append and answer");
    let read = server.client().get(chat_path(&token, chat)).send().await;
    assert!(number(&read.json(), "message_count") >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_process_answers_for_one_that_was_killed_between_append_and_answer() {
    let folder = folder();
    let options = ProcessOptions::new("command-api", folder.path());
    let mut first = options.start().await;
    let other = options.start().await;
    let token = create_app(&other.client(), "an app").await;
    let chat = create_chat(&other.client(), &token).await;
    let log = Log::open(folder.path());
    let (mut hits, mut slowest) = (0, Duration::ZERO);
    for attempt in 0..MAX_ATTEMPTS {
        for (index, creation) in creations(&token, chat).iter().enumerate() {
            let key = format!("{attempt}-{index}");
            let hit = kill_after_the_append(first, &log, creation, &key).await;
            let events = log.events();
            let killed = Instant::now();
            // The other process finds the event in the log and answers at once, although the lease of the dead process
            // has not expired.
            let repeated = send(&other.client(), creation, &key).await.expect("an answer").expect(201);
            slowest = slowest.max(killed.elapsed());
            assert_eq!(repeated.header("idempotency-replayed"), "true");
            assert_eq!(log.events(), events, "{key} was appended twice");
            hits += u64::from(hit);
            first = options.start().await;
            let repeated_again = send(&first.client(), creation, &key).await.expect("an answer").expect(201);
            assert_eq!((creation.identity)(&repeated_again.json()), (creation.identity)(&repeated.json()));
        }
        if hits >= MIN_HITS {
            break;
        }
    }
    eprintln!(
        "{hits} kills between append and answer; the slowest answer for a dead process took {slowest:?}"
    );
    assert!(hits >= MIN_HITS, "only {hits} kills came between append and answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_blocked_for_less_than_three_seconds_if_its_process_is_killed_before_the_append() {
    let folder = folder();
    let options = ProcessOptions::new("command-api", folder.path());
    let (mut first, other) = (options.start().await, options.start().await);
    let token = create_app(&other.client(), "an app").await;
    let chat = create_chat(&other.client(), &token).await;
    let log = Log::open(folder.path());
    let creation = &creations(&token, chat)[0];
    let mut waits = Vec::new();
    for attempt in 1..=3 {
        let key = attempt.to_string();
        log.lock();
        let client = first.client();
        let mut sent = std::pin::pin!(send(&client, creation, &key));
        assert!(
            timeout(Duration::from_millis(300), &mut sent).await.is_err(),
            "answered while the log is locked"
        );
        first.kill();
        let killed = Instant::now();
        log.release();
        let answered = send_until_answered(&other.client(), creation, &key).await;
        waits.push(killed.elapsed());
        assert_eq!(number(&answered.json(), "message_number"), attempt);
        first = options.start().await;
    }
    eprintln!("the key of a dead process was free after {waits:?}");
    waits.sort_unstable();
    // The median counts, because the machine may be busy in one of the attempts. The lease of the dead process expires
    // in less than a second. The rest of the three seconds is for the response of a busy machine.
    assert!(waits[1] < Duration::from_secs(3), "the key of a dead process was blocked for {waits:?}");
}
