//! Tests of a chat API with its log in Postgres: two users with different rights, a log that lost its newest events,
//! and unusable databases.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod harness;

use std::path::Path;
use std::process::Output;

use chat_testing::Postgres;
use harness::api::{
    create_app, create_chat, create_message, message_path, number, wait_until_event_store_is_down,
};
use harness::deployment::folder;
use harness::process::{ProcessOptions, program};
use sqlx::{AssertSqlSafe, Connection, PgConnection, raw_sql};
use uuid::Uuid;

/// Runs SQL as the user in the URL.
async fn run_sql(url: &str, sql: &str) {
    let mut connection = PgConnection::connect(url).await.expect("the database");
    raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.expect("the statements");
}

/// Creates two users: the owner of the database, and the user of the processes. Returns the name of each, and the URL of
/// the database with this user.
async fn create_users(administrator_url: &str) -> [(String, String); 2] {
    let (_, host) = administrator_url.split_once('@').expect("a host");
    let users = ["owner", "program"].map(|role| format!("{role}_{}", Uuid::new_v4().simple()));
    let (_, database) = host.split_once('/').expect("a database");
    let sql = users.iter().map(|user| format!("CREATE USER {user} PASSWORD 'secret';"));
    let sql: String = sql.chain([format!("ALTER DATABASE {database} OWNER TO {};", users[0])]).collect();
    run_sql(administrator_url, &sql).await;
    users.map(|user| {
        let url = format!("postgres://{user}:secret@{host}");
        (user, url)
    })
}

fn operate(data: &Path, log_url: &str, arguments: &[&str]) -> Output {
    let mut command = program();
    command.args(arguments).arg("--data-dir").arg(data).args(["--event-store-url", log_url]);
    command.output().expect("the program runs")
}

#[track_caller]
fn expect_exit(output: &Output, code: i32, said: &str) {
    let text = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat();
    assert_eq!(output.status.code(), Some(code), "{text}");
    // The program wraps long lines.
    let words: Vec<&str> = text.split_whitespace().collect();
    assert!(words.join(" ").contains(said), "{text}");
    assert!(!text.contains("secret"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_run_as_a_user_who_can_only_read_and_append() {
    let administrator_url = Postgres::shared().create_database();
    let [(_, owner_url), (program_user, program_url)] = create_users(&administrator_url).await;
    let folder = folder();
    let data = folder.path();
    let options = ProcessOptions::new("serve", data).with("--event-store-url", &program_url);
    expect_exit(&operate(data, &program_url, &["audit", "head"]), 2, "`chat-api events setup` creates it");
    expect_exit(
        &operate(data, &program_url, &["events", "setup"]),
        2,
        "there is no event log in this database",
    );

    // The setup can be repeated.
    for _ in 0..2 {
        let set_up = operate(data, &owner_url, &["events", "setup", "--grant-to", &program_user]);
        expect_exit(&set_up, 0, &format!("{program_user} may read it and append to it"));
    }
    let process = options.start().await;
    let client = process.client();
    let token = create_app(&client, "an app").await;
    create_chat(&client, &token).await;
    create_message(&client, &token, 1, "first").await;
    process.wait_until_folded(3).await;
    client.get(message_path(&token, 1, 1)).send().await.expect(200);
    expect_exit(&operate(data, &program_url, &["events", "check"]), 0, "3 events up to position 3");
    for (url, statement) in [
        (&program_url, "DELETE FROM chat_event_log.events"),
        (&owner_url, "DELETE FROM chat_event_log.events"),
        (&administrator_url, "UPDATE chat_event_log.events SET data = '{}'"),
    ] {
        let mut connection = PgConnection::connect(url).await.expect("the database");
        assert!(raw_sql(statement).execute(&mut connection).await.is_err(), "not refused: {statement}");
    }
    let backup = data.join("backup").display().to_string();
    expect_exit(&operate(data, &program_url, &["backup", "--out", &backup]), 2, "with Postgres's own tools");
    process.shut_down().await;
    // The folder has data of the log.
    expect_exit(&operate(data, &owner_url, &["events", "setup"]), 0, "is set up");
    let empty = Postgres::shared().create_database();
    // No log is begun in the place of this one.
    let refused = operate(data, &empty, &["events", "setup"]);
    expect_exit(&refused, 2, "there is no event log in this database, but");
    for command in [["audit", "head"], ["events", "accept-loss"]] {
        let refused = operate(data, &empty, &command);
        expect_exit(&refused, 2, "was written up to position 3 of log");
        expect_exit(&refused, 2, "set EVENT_STORE_URL and --data-dir as the processes have them");
    }
    let elsewhere = tempfile::tempdir().expect("a folder");
    expect_exit(
        &operate(elsewhere.path(), &empty, &["audit", "head"]),
        2,
        "there is no event log in this database",
    );
    expect_exit(&operate(elsewhere.path(), &empty, &["events", "setup"]), 0, "is set up");
    // Beside data of another log, nothing is granted.
    for grant in [&["--grant-to", &program_user][..], &[]] {
        let refused = operate(data, &empty, &[&["events", "setup"], grant].concat());
        expect_exit(&refused, 2, "this log has no events: is it the right one?");
        expect_exit(&refused, 2, "Nothing was set up");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_lost_events_takes_no_commands_until_an_operator_accepts_the_loss() {
    let log_url = Postgres::shared().create_database();
    let folder = folder();
    let data = folder.path();
    let options = ProcessOptions::new("serve", data).with("--event-store-url", &log_url);
    let process = options.start().await;
    let client = process.client();
    let token = create_app(&client, "an app").await;
    create_chat(&client, &token).await;
    for message in 1..=10 {
        create_message(&client, &token, 1, &format!("message {message}")).await;
    }
    process.wait_until_folded(12).await;
    // The newest events are lost, as when a standby of Postgres that is behind takes over.
    run_sql(
        &log_url,
        "ALTER TABLE chat_event_log.events DISABLE TRIGGER ALL;
         DELETE FROM chat_event_log.events WHERE position > 7;
         ALTER TABLE chat_event_log.events ENABLE TRIGGER ALL;",
    )
    .await;
    wait_until_event_store_is_down(&client, &["the log no longer has the event at position 12"]).await;
    let refused = client.delete(message_path(&token, 1, 1)).send().await.expect(503);
    assert_eq!(refused.code(), "event_store_unavailable");
    process.shut_down().await;

    // The next process has never read the lost events. It compares the log with the data in its folder.
    let mut process = options.spawn();
    process.wait_for_address().await;
    let client = process.client();
    let words = ["the log ends at position 7, but ", "5 acknowledged"];
    let reason = wait_until_event_store_is_down(&client, &words).await;
    expect_exit(&operate(data, &log_url, &["events", "accept-loss"]), 1, &reason);
    let accept = ["events", "accept-loss", "--reason", "a test", "--execute"];
    expect_exit(&operate(data, &log_url, &accept), 0, "the log goes on as incarnation");
    process.wait_until_ready().await;
    let next = create_message(&client, &token, 1, "after the loss").await;
    assert_eq!(number(&next.json(), "message_number"), 6);
    process.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unusable_database_is_reported_with_the_reason() {
    let administrator_url = Postgres::shared().create_database();
    let password = Postgres::shared().password();
    let folder = folder();
    for (url, sentence) in [
        (format!("{administrator_url}_not_there"), "the database does not exist"),
        (administrator_url.replace(password, "wrong"), "Postgres refuses the user or the password"),
        (
            format!("{administrator_url}?sslmode=sometimes"),
            "--event-store-url (EVENT_STORE_URL) is not a valid URL",
        ),
    ] {
        let process = ProcessOptions::new("serve", folder.path()).with("--event-store-url", &url).spawn();
        let (status, stderr) = process.wait_for_exit().await;
        assert_eq!(status.code(), Some(2), "{stderr}");
        let words: Vec<&str> = stderr.split_whitespace().collect();
        assert!(words.join(" ").contains(sentence) && !stderr.contains(password), "{stderr}");
    }
}
