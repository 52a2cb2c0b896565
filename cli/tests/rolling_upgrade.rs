//! An upgrade in the order of `docs/operations/upgrade.md`, with old and new processes beside each other on one log.
//!
//! The environment variable `CHAT_API_BEFORE` is the path of the program of the version before. Without it, the program
//! under test is used as both versions, which tests only the order.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod harness;

use std::env;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use harness::api::{chat_path, create_app, create_chat, number};
use harness::client::{Client, Reply};
use harness::deadline::eventually;
use harness::deployment::folder;
use harness::process::{Process, ProcessOptions, program};

/// The options of a process of the version before.
fn version_before(role: &'static str, folder: &Path) -> ProcessOptions {
    let options = ProcessOptions::new(role, folder);
    match env::var_os("CHAT_API_BEFORE") {
        Some(program) => options.with_program(&PathBuf::from(program)),
        None => options,
    }
}

/// Posts a message with an idempotency key, first to one process and then to the other. Asserts that the second response
/// repeats the first one. Returns the first one.
async fn post_to_both(first: &Process, second: &Process, chat: &str, text: &str) -> Reply {
    let post = async |process: &Process| {
        let client = process.client();
        let path = format!("{chat}/messages");
        client.post(path, &json!({ "body": text })).header("idempotency-key", text).send().await.expect(201)
    };
    let created = post(first).await;
    let repeated = post(second).await;
    assert_eq!(repeated.body, created.body, "{text}");
    assert_eq!(repeated.header("idempotency-replayed"), "true", "{text}");
    created
}

/// Returns the newest messages of a chat, not before they show the effect of a command.
async fn page(queries: &Process, chat: &str, command: &Reply) -> Value {
    let client = queries.client();
    client.get(format!("{chat}/messages?limit=100")).after(command).send().await.expect(200).json()
}

fn texts(page: &Value) -> Vec<&str> {
    let messages = page["messages"].as_array().expect("messages");
    messages.iter().map(|message| message["body"].as_str().expect("a body")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn old_and_new_processes_share_a_log_during_an_upgrade() {
    let folder = folder();
    let old_commands = version_before("command-api", folder.path()).start().await;
    let old_projector = version_before("projector", folder.path()).start().await;
    let old_queries = version_before("query-api", folder.path()).start().await;
    let client = Client::routed([old_commands.url()], [old_queries.url()]);
    let token = create_app(&client, "upgraded").await;
    let chat = chat_path(&token, create_chat(&client, &token).await);
    let one = client.post(format!("{chat}/messages"), &json!({ "body": "one fox" })).send().await.expect(201);
    assert_eq!(texts(&page(&old_queries, &chat, &one).await), ["one fox"]);

    // The projectors are upgraded first, then the query-apis. Old and new query-apis answer the same.
    old_projector.shut_down().await;
    let projector = ProcessOptions::new("projector", folder.path()).start().await;
    let queries = ProcessOptions::new("query-api", folder.path()).start().await;
    let two =
        client.post(format!("{chat}/messages"), &json!({ "body": "two foxes" })).send().await.expect(201);
    let shown = page(&queries, &chat, &two).await;
    assert_eq!(texts(&shown), ["one fox", "two foxes"]);
    assert_eq!(page(&old_queries, &chat, &two).await, shown);
    for process in [&old_queries, &queries] {
        let client = process.client();
        let search = client.get(format!("{chat}/messages/search?query=fox")).after(&two);
        assert_eq!(number(&search.send().await.expect(200).json(), "total"), 2);
    }

    // Old and new command-apis number the messages of one chat together, and recognize each other's keys.
    let commands = ProcessOptions::new("command-api", folder.path()).start().await;
    post_to_both(&old_commands, &commands, &chat, "three").await;
    let four = post_to_both(&commands, &old_commands, &chat, "four").await;
    assert_eq!(number(&four.json(), "message_number"), 4);
    let shown = page(&queries, &chat, &four).await;
    assert_eq!(page(&old_queries, &chat, &four).await, shown);
    // Until a client uses a new feature, no event is written that an old process can't read.
    let log = rusqlite::Connection::open(folder.path().join("events.db")).expect("the log");
    let newer: u64 = log
        .query_row("SELECT count(*) FROM events WHERE schema_version > 1", [], |row| row.get(0))
        .expect("a count");
    assert_eq!(newer, 0, "events were written that an old process can't read");

    // All processes are new: clients use the new features.
    old_commands.shut_down().await;
    old_queries.shut_down().await;
    let client = Client::routed([commands.url()], [queries.url()]);
    let message =
        json!({ "body": "five", "sender": { "id": "u-17", "name": "Nadia" }, "data": { "reply_to": 4 } });
    let five = client.post(format!("{chat}/messages"), &message).send().await.expect(201);
    let of_sender = client.get(format!("{chat}/messages?sender=u-17")).after(&five);
    let of_sender = of_sender.send().await.expect(200).json();
    assert_eq!(texts(&of_sender), ["five"]);
    assert_eq!(of_sender["messages"][0]["data"], json!({ "reply_to": 4 }));
    let (tag, _) = five.header("consistency-token").rsplit_once('.').expect("a position");
    let path = format!("{chat}/events?after={tag}.0");
    let followed = eventually("five messages in the feed", async || {
        let feed = client.get(&path).header("accept", "application/json").send().await.expect(200).json();
        let events = feed["events"].as_array().expect("events").iter();
        let bodies = events.filter_map(|event| Some(event["data"]["body"].as_str()?.to_owned()));
        let bodies: Vec<String> = bodies.collect();
        // A page ends before events that the process has not read yet.
        (bodies.len() >= 5).then_some(bodies)
    })
    .await;
    assert_eq!(followed, ["one fox", "two foxes", "three", "four", "five"]);
    let verified = program()
        .args(["projections", "verify", "--all", "--full", "--data-dir"])
        .arg(folder.path())
        .output()
        .expect("the program runs");
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    for process in [commands, queries, projector] {
        process.shut_down().await;
    }
}
