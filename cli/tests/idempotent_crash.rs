//! Kills the process between append and answer, and sends the same `POST` again: the first number, and one event.
//!
//! The log is held while the request is on its way, so that nothing can be appended; then it is let go, and the process is
//! killed as soon as the event is in the file. Where the answer was quicker, the round has to be right too, and does not
//! count.

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

/// Rounds that must have hit the moment.
const HITS: u64 = 12;
/// Rounds after which it is clear that they don't.
const ATTEMPTS: u64 = 200;

/// The log, read and held from outside.
struct Log(Connection);

impl Log {
    fn of(folder: &Path) -> Self {
        let connection = Connection::open(folder.join("events.db")).expect("the log");
        connection.busy_timeout(TIMEOUT).expect("a timeout");
        Self(connection)
    }

    fn hold(&self) {
        self.0.execute_batch("BEGIN IMMEDIATE").expect("the log is free");
    }

    fn release(&self) {
        self.0.execute_batch("ROLLBACK").expect("the log is let go");
    }

    fn events(&self) -> u64 {
        self.0.query_row("SELECT count(*) FROM events", [], |row| row.get(0)).expect("a count")
    }

    /// Looks without a pause until an event has come.
    fn wait_for_more_than(&self, events: u64) {
        let deadline = Instant::now() + TIMEOUT;
        while self.events() <= events {
            assert!(Instant::now() < deadline, "nothing is appended");
        }
    }
}

/// What is created, where, and the member of the answer that tells it.
struct Creation {
    path: String,
    body: Value,
    number: fn(&Value) -> Value,
}

async fn send(client: &Client, creation: &Creation, key: &str) -> Result<Reply, String> {
    let call = client.post(&*creation.path, &creation.body).header("idempotency-key", key);
    call.try_send().await.map_err(|no_answer| no_answer.to_string())
}

/// Sends until it is answered with another status than 409.
async fn insist(client: &Client, creation: &Creation, key: &str) -> Reply {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let reply = send(client, creation, key).await.expect("an answer");
        if reply.status != 409 {
            return reply.expect(201);
        }
        assert!(Instant::now() < deadline, "in flight for ever");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Kills a process while the answer to an append is on its way. `None` where the answer was quicker.
async fn kill_before_the_answer(process: Process, log: &Log, creation: &Creation, key: &str) -> Option<()> {
    let events = log.events();
    log.hold();
    let client = process.client();
    let mut sent = std::pin::pin!(send(&client, creation, key));
    // Long enough to be on its way to the log, mostly.
    assert!(timeout(Duration::from_millis(50), &mut sent).await.is_err(), "answered while the log is held");
    log.release();
    log.wait_for_more_than(events);
    process.kill();
    sent.await.is_err().then_some(())
}

fn creations(token: &str, chat: u64) -> Vec<Creation> {
    vec![
        Creation {
            path: format!("{}/messages", chat_path(token, chat)),
            body: json!({ "body": "Hi" }),
            number: |body| body["message_number"].clone(),
        },
        Creation {
            path: format!("{}/chats", app_path(token)),
            body: json!({}),
            number: |body| body["chat_number"].clone(),
        },
        Creation {
            path: format!("{API}/apps"),
            body: json!({ "name": "an app" }),
            number: |body| body["data"].clone(),
        },
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_repeated_after_its_process_was_killed_between_append_and_answer_is_answered_once() {
    let folder = folder();
    let options = ProcessOptions::new("serve", folder.path());
    let mut server = options.start().await;
    let token = create_app(&server.client(), "an app").await;
    let chat = create_chat(&server.client(), &token).await;
    let log = Log::of(folder.path());
    let mut hits = 0;
    for attempt in 0..ATTEMPTS {
        for (index, creation) in creations(&token, chat).iter().enumerate() {
            let key = format!("{attempt}-{index}");
            let hit = kill_before_the_answer(server, &log, creation, &key).await;
            let events = log.events();
            server = options.start().await;
            let again = insist(&server.client(), creation, &key).await;
            assert_eq!(again.header("idempotency-replayed"), "true");
            let third = insist(&server.client(), creation, &key).await;
            assert_eq!((creation.number)(&third.json()), (creation.number)(&again.json()));
            assert_eq!(log.events(), events, "{key} was appended twice");
            hits += u64::from(hit.is_some());
        }
        if hits >= HITS {
            break;
        }
    }
    assert!(hits >= HITS, "only {hits} kills came between append and answer");
    let chats = server.client().get(format!("{}/chats/{chat}", app_path(&token))).send().await;
    assert!(number(&chats.json(), "message_count") >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_process_answers_for_one_that_was_killed_between_append_and_answer() {
    let folder = folder();
    let options = ProcessOptions::new("command-api", folder.path());
    let mut dying = options.start().await;
    let other = options.start().await;
    let token = create_app(&other.client(), "an app").await;
    let chat = create_chat(&other.client(), &token).await;
    let log = Log::of(folder.path());
    let (mut hits, mut slowest) = (0, Duration::ZERO);
    for attempt in 0..ATTEMPTS {
        for (index, creation) in creations(&token, chat).iter().enumerate() {
            let key = format!("{attempt}-{index}");
            let hit = kill_before_the_answer(dying, &log, creation, &key).await;
            let events = log.events();
            let killed = Instant::now();
            // At once, and not when the lease of the dead process has run out.
            let again = send(&other.client(), creation, &key).await.expect("an answer").expect(201);
            slowest = slowest.max(killed.elapsed());
            assert_eq!(again.header("idempotency-replayed"), "true");
            assert_eq!(log.events(), events, "{key} was appended twice");
            hits += u64::from(hit.is_some());
            dying = options.start().await;
            let third = send(&dying.client(), creation, &key).await.expect("an answer").expect(201);
            assert_eq!((creation.number)(&third.json()), (creation.number)(&again.json()));
        }
        if hits >= HITS {
            break;
        }
    }
    eprintln!(
        "{hits} kills between append and answer; the slowest answer for a dead process took {slowest:?}"
    );
    assert!(hits >= HITS, "only {hits} kills came between append and answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_killed_before_the_append_blocks_its_key_for_no_longer_than_a_second() {
    let folder = folder();
    let options = ProcessOptions::new("command-api", folder.path());
    let (mut dying, other) = (options.start().await, options.start().await);
    let token = create_app(&other.client(), "an app").await;
    let chat = create_chat(&other.client(), &token).await;
    let log = Log::of(folder.path());
    let creation = &creations(&token, chat)[0];
    for attempt in 1..=3 {
        let key = attempt.to_string();
        log.hold();
        let client = dying.client();
        let mut sent = std::pin::pin!(send(&client, creation, &key));
        assert!(
            timeout(Duration::from_millis(300), &mut sent).await.is_err(),
            "answered while the log is held"
        );
        dying.kill();
        let killed = Instant::now();
        log.release();
        let answered = insist(&other.client(), creation, &key).await;
        let waited = killed.elapsed();
        assert_eq!(number(&answered.json(), "message_number"), attempt);
        eprintln!("a dead process's key was free after {waited:?}");
        // The lease, and what a busy machine takes to answer.
        assert!(waited < Duration::from_secs(3), "{waited:?}");
        dying = options.start().await;
    }
}
