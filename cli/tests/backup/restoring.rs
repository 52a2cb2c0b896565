//! Tests of `restore`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use chat_domain::Position;
use chat_ports::event_store::EventStore;
use chat_sqlite::SqliteEventStore;
use chat_testing::postgres::Postgres;
use chat_testing::redis::Redis;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::api::{
    API, app_path, are_counters_unavailable, chat_path, create_app, create_chat, create_message,
    message_path, number,
};
use crate::harness::client::{Client, Reply};
use crate::harness::deadline::eventually;
use crate::harness::deployment::folder;
use crate::harness::process::{ProcessOptions, program};
use crate::load::{Acknowledged, Load};
use crate::operator::{CommandOutput, EVENTS, TestLog};

const EXECUTE: [&str; 3] = ["--execute", "--reason", "the disk failed"];

/// Runs a command on the log in a folder.
async fn run(data: &Path, arguments: &[&str]) -> CommandOutput {
    let mut command = program();
    command.args(arguments).arg("--data-dir").arg(data).env("CHAT_OPERATOR", "alice@ops-1");
    let output = tokio::task::spawn_blocking(move || command.output().expect("the program runs"));
    output.await.expect("its end").into()
}

async fn back_up(data: &Path, backup: &Path) {
    run(data, &["backup", "--out", backup.to_str().expect("a path")]).await.expect(0);
}

async fn restore(data: &Path, backup: &Path, more: &[&str]) -> CommandOutput {
    let from = ["restore", "--from", backup.to_str().expect("a path")];
    run(data, &[&from, &EXECUTE[..], more].concat()).await
}

/// The names of the files and folders in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name")).collect();
    names.sort();
    names
}

/// Reads the messages of an app from a server.
async fn messages(client: &Client, token: &str) -> Acknowledged {
    let mut found = BTreeMap::new();
    let chats = client.get(format!("{}/chats?limit=100", app_path(token))).send().await.expect(200).json();
    for chat in chats["chats"].as_array().expect("chats") {
        let chat = number(chat, "chat_number");
        let mut path = format!("{}/messages?after=0&limit=100", chat_path(token, chat));
        loop {
            let page = client.get(path).send().await.expect(200);
            for message in page.json()["messages"].as_array().expect("messages") {
                let body = message["body"].as_str().expect("a body").to_owned();
                found.insert((chat, number(message, "message_number")), body);
            }
            match page.links().remove("next") {
                Some(next) => path = next,
                None => break,
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_load_is_restored_in_another_folder_and_nothing_of_it_is_missing() {
    let (lost, backups, other) = (folder(), folder(), folder());
    let backup = backups.path().join("hourly");
    let server = ProcessOptions::new("serve", lost.path()).start().await;
    let load = Load::start(&server.client()).await;
    load.write_more(150).await;
    let before = load.acknowledged();
    back_up(lost.path(), &backup).await;
    load.write_more(50).await;
    server.kill();
    let token = load.token.clone();
    let acknowledged = load.stop().await;
    drop(lost);

    let data = other.path().join("data");
    let planned = run(&data, &["restore", "--from", backup.to_str().expect("a path")]).await.expect(0);
    assert!(planned.stderr.contains("nothing was done") && !data.exists(), "{planned:?}");
    restore(&data, &backup, &[]).await.expect(0);
    let server = ProcessOptions::new("serve", &data).start().await;
    let verify = ["audit", "verify", "--backup", backup.to_str().expect("a path")];
    let verified = run(&data, &verify).await.expect(0);
    assert!(verified.stdout.contains("holds every event of the backup"), "{verified:?}");
    run(&data, &["audit", "verify"]).await.expect(0);
    server.wait_until_folded(manifest(&backup)["position"].as_u64().expect("a position")).await;
    let restored = messages(&server.client(), &token).await;
    for (message, body) in &before {
        assert_eq!(
            restored.get(message),
            Some(body),
            "{message:?}, acknowledged before the backup, is missing or differs"
        );
    }
    for (message, body) in &restored {
        // A message that was stored but not acknowledged is in the backup, and not in `acknowledged`.
        assert_eq!(
            acknowledged.get(message).unwrap_or(body),
            body,
            "{message:?} was acknowledged with another body"
        );
    }
    // Numbers go on without a gap.
    let ((chat, highest), _) = restored.last_key_value().expect("a message");
    let next = create_message(&server.client(), &token, *chat, "after the restore").await;
    assert_eq!(number(&next.json(), "message_number"), highest + 1);
}

fn manifest(backup: &Path) -> Value {
    serde_json::from_slice(&fs::read(backup.join("manifest.json")).expect("a manifest")).expect("JSON")
}

/// A backup, and the folder of a system that wrote more after the backup and then lost its log. The projections and
/// idempotency keys are left. They have a message and an app that the backup lacks, and the projections have a second
/// generation.
struct LostFuture {
    data: TempDir,
    backups: TempDir,
    options: ProcessOptions,
    /// The flags that name the engines in operator commands, each followed by its value. Without Redis, because only
    /// servers use it.
    engines: Vec<String>,
    /// The token of the app that the backup has.
    kept_app: String,
    /// The token of the app that was created after the backup.
    lost_app: String,
    /// The consistency token of the last command.
    consistency_token: String,
}

impl LostFuture {
    /// Makes a backup, writes more, and removes the log. The projections and keys of the lost future stay.
    async fn create(engines: &[(&str, &str)]) -> Self {
        let (data, backups) = (folder(), folder());
        let mut options = ProcessOptions::new("serve", data.path());
        for (flag, url) in engines {
            options = options.with(flag, url);
        }
        let engines = engines.iter().filter(|(flag, _)| *flag != "--redis-url");
        let engines: Vec<String> =
            engines.flat_map(|(flag, url)| [(*flag).to_owned(), (*url).to_owned()]).collect();
        let server = options.start().await;
        let client = server.client();
        let kept_app = create_app(&client, "kept").await;
        create_chat(&client, &kept_app).await;
        create_message(&client, &kept_app, 1, "kept").await;
        back_up(data.path(), &backups.path().join("b")).await;
        create_message_with_key(&client, &kept_app).await.expect(201);
        let lost_app = create_app(&client, "lost").await;
        create_chat(&client, &lost_app).await;
        let rebuild = ["projections", "rebuild", "--all", "--accept-differences"];
        let flags: Vec<&str> = engines.iter().map(String::as_str).collect();
        run(data.path(), &[&rebuild, &EXECUTE[..], &flags].concat()).await.expect(0);
        let message = create_message(&client, &lost_app, 1, "lost").await;
        client.get(message_path(&lost_app, 1, 1)).after(&message).send().await.expect(200);
        server.shut_down().await;
        // The log is lost, and nothing else.
        for name in names(data.path()).iter().filter(|name| name.starts_with("events.db")) {
            fs::remove_file(data.path().join(name)).expect("the log");
        }
        let consistency_token = message.header("consistency-token").to_owned();
        Self { data, backups, options, engines, kept_app, lost_app, consistency_token }
    }

    fn backup(&self) -> std::path::PathBuf {
        self.backups.path().join("b")
    }

    fn engines(&self) -> Vec<&str> {
        self.engines.iter().map(String::as_str).collect()
    }

    /// Restores the backup, starts a server, and asserts that nothing of the lost future is served. Returns the output
    /// of the restore.
    async fn assert_forgotten_after_a_restore(&self) -> CommandOutput {
        let restored = restore(self.data.path(), &self.backup(), &self.engines()).await.expect(0);
        let server = self.options.start().await;
        let client = server.client();
        client.get(app_path(&self.lost_app)).send().await.expect(404);
        let refused = client.post(format!("{}/chats", app_path(&self.lost_app)), &json!({})).send().await;
        refused.expect(404);
        let read = client
            .get(app_path(&self.kept_app))
            .header("consistency-token", &self.consistency_token)
            .send()
            .await;
        assert_eq!(read.expect(400).code(), "consistency_token_unknown");
        // The key was used in the lost future only, for the message that was number 2 there.
        let created = create_message_with_key(&client, &self.kept_app).await.expect(201);
        assert!(!created.has("idempotency-replayed"), "{created:?}");
        assert_eq!(number(&created.json(), "message_number"), 2);
        let read = client.get(message_path(&self.kept_app, 1, 2)).after(&created).send().await.expect(200);
        assert_eq!(read.json()["body"], "with a key");
        let apps = client.get(format!("{API}/apps")).after(&created).send().await.expect(200).json();
        assert_eq!(apps.as_array().expect("apps").len(), 1, "{apps}");
        let search = format!("{}/messages/search?query=lost", app_path(&self.lost_app));
        client.get(search).after(&created).send().await.expect(404);
        let backup = self.backup();
        let verify = ["audit", "verify", "--backup", backup.to_str().expect("a path")];
        run(self.data.path(), &verify).await.expect(0);
        server.shut_down().await;
        restored
    }
}

/// Creates a message with a key. For the duration of one lease, a new key store grants no key that it does not know, so
/// the first answers may be 409. On a busy machine, Redis may not answer in time.
async fn create_message_with_key(client: &Client, token: &str) -> Reply {
    let path = format!("{}/messages", chat_path(token, 1));
    eventually("the key is free", async || {
        let call = client.post(path.clone(), &json!({ "body": "with a key" }));
        let reply = call.header("idempotency-key", "key-of-2").send().await;
        (reply.status != 409 && !are_counters_unavailable(&reply)).then_some(reply)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn generations_and_keys_of_the_lost_future_are_renamed_and_never_served() {
    let future = LostFuture::create(&[]).await;
    let backup = future.backup();
    let leftovers = ["idempotency.db", "read-model.2.db", "read-model.db", "search-index", "search-index.2"];
    let dry_run = ["restore", "--from", backup.to_str().expect("a path")];
    let before = names(future.data.path());
    let planned = run(future.data.path(), &dry_run).await.expect(0);
    for name in leftovers {
        assert!(planned.stdout.contains(&format!("/{name}\n")), "{name} is not named: {planned:?}");
    }
    assert_eq!(names(future.data.path()), before, "a dry run changed something");
    let restored = future.assert_forgotten_after_a_restore().await;
    for name in leftovers {
        let new_name = format!("{name}.other-log-");
        assert!(restored.stdout.contains(&new_name), "{restored:?}");
        assert!(names(future.data.path()).iter().any(|name| name.starts_with(&new_name)), "{name} is gone");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn schemas_and_redis_keys_of_the_lost_future_are_never_served() {
    let (database, redis) = (Postgres::shared().create_database(), Redis::shared().url());
    let future = LostFuture::create(&[("--database-url", &database), ("--redis-url", &redis)]).await;
    let restored = future.assert_forgotten_after_a_restore().await;
    for schema in ["chat_read_model_log_", "chat_read_model_2_log_"] {
        assert!(restored.stdout.contains(schema), "{restored:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_replaces_no_log_and_no_part_of_one() {
    let test_log = TestLog::sqlite().await;
    test_log.run(&["backup", "--out", "backup"]).expect(0);
    let backup = test_log.path("backup");
    let events = test_log.events().await;
    let refused = restore(test_log.folder.path(), &backup, &[]).await.expect(2);
    assert!(refused.stderr.contains("a restore replaces no log"), "{refused:?}");
    assert_eq!(test_log.events().await, events);
    for leftover in ["events.db-wal", "events.db-journal", "events.db"] {
        let other = folder();
        fs::write(other.path().join(leftover), "").expect("a file");
        restore(other.path(), &backup, &[]).await.expect(2);
        assert_eq!(names(other.path()), [leftover]);
    }
}

type Alteration = Box<dyn Fn(&Path)>;

#[tokio::test(flavor = "multi_thread")]
async fn an_altered_or_incomplete_backup_is_not_restored() {
    let set_to_11 = |field: &'static str| {
        move |backup: &Path| {
            let mut manifest = manifest(backup);
            manifest[field] = 11.into();
            fs::write(backup.join("manifest.json"), manifest.to_string()).expect("a manifest");
        }
    };
    let alterations: [(&str, Alteration); 6] = [
        ("SHA-256", Box::new(|backup| flip_a_byte(&backup.join("events.db")))),
        ("length", Box::new(|backup| fs::write(backup.join("events.db"), "").expect("a file"))),
        (
            "no manifest.json",
            Box::new(|backup| fs::remove_file(backup.join("manifest.json")).expect("a file")),
        ),
        ("no manifest of a backup", Box::new(|backup| flip_a_byte(&backup.join("manifest.json")))),
        ("Merkle root", Box::new(set_to_11("events"))),
        ("format 11", Box::new(set_to_11("version"))),
    ];
    for (finding, alter) in alterations {
        let (test_log, other) = (TestLog::sqlite().await, folder());
        test_log.run(&["backup", "--out", "backup"]).expect(0);
        let backup = test_log.path("backup");
        alter(&backup);
        let refused = restore(other.path(), &backup, &[]).await.expect(2);
        assert!(refused.stderr.contains(finding), "{finding}: {refused:?}");
        assert!(names(other.path()).is_empty(), "{finding}: the refused restore left files");
    }
}

fn flip_a_byte(path: &Path) {
    let mut bytes = fs::read(path).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x80;
    fs::write(path, bytes).expect("a file");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_log_is_a_new_incarnation_with_the_same_events() {
    let (test_log, other) = (TestLog::sqlite().await, folder());
    test_log.run(&["backup", "--out", "backup"]).expect(0);
    let reasonless = ["restore", "--from", test_log.path("backup").to_str().expect("a path"), "--execute"]
        .map(str::to_owned);
    let reasonless: Vec<&str> = reasonless.iter().map(String::as_str).collect();
    let refused = run(other.path(), &reasonless).await.expect(2);
    assert!(refused.stderr.contains("--reason"), "{refused:?}");
    restore(other.path(), &test_log.path("backup"), &[]).await.expect(0);
    assert_eq!(names(other.path()), ["events.db"]);
    let restored = SqliteEventStore::open_read_only(&other.path().join("events.db")).expect("a log");
    let original = test_log.log().await;
    let mut events = restored.read_all(Position::START, 1_000).await.expect("the log");
    let action = events.pop().expect("the operator action");
    assert_eq!(action.event_type, "LogIncarnationBegan");
    assert!(String::from_utf8_lossy(&action.metadata).contains("alice@ops-1"), "{action:?}");
    assert_eq!(events, test_log.events().await);
    let lineage = restored.lineage().await.expect("a lineage");
    let original_id = original.log_id().await.expect("an id");
    assert_ne!(lineage.current(), original_id);
    assert_eq!(lineage.original(), original_id);
    assert_eq!(lineage.later()[0].began_after, Position::new(EVENTS));
    assert!(lineage.later()[0].reason.contains("the disk failed"), "{lineage:?}");
}

/// Verifies the log in the folder `data` against a checkpoint of `test_log`, and asserts the exit code. Returns the
/// output as text and as JSON.
async fn verify_against(test_log: &TestLog, checkpoint: &str, data: &Path, code: i32) -> (String, Value) {
    let (checkpoint, key) = (test_log.path_text(checkpoint), test_log.path_text("audit.key.pub"));
    let verify = ["audit", "verify", "--checkpoint", &checkpoint, "--public-key", &key];
    let text = run(data, &[&verify[..], &["--full"]].concat()).await.expect(code).stdout;
    let json = run(data, &[&verify[..], &["-o", "json"]].concat()).await.expect(code).stdout;
    (text, serde_json::from_str(&json).expect("JSON"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_signed_after_the_backup_shows_what_the_restored_log_kept_and_no_alteration() {
    let (test_log, other) = (TestLog::sqlite().await, folder());
    test_log.run(&["backup", "--out", "backup"]).expect(0);
    test_log.run_without_log_arguments(&["audit", "keygen", "--out", "audit.key"]).expect(0);
    // Signing is recorded as an event, so the three checkpoints cover 12, 13 and 14 events. The backup has 12.
    for checkpoint in ["before", "after", "later"] {
        let sign = ["audit", "checkpoint", "--key", "audit.key", "--out", checkpoint, "--reason", "x"];
        test_log.run(&sign).expect(0);
    }
    let data = other.path();
    restore(data, &test_log.path("backup"), &[]).await.expect(0);

    let (text, _) = verify_against(&test_log, "before", data, 0).await;
    assert!(text.starts_with("the log is unaltered up to position 12\n"), "{text}");
    let (text, json) = verify_against(&test_log, "later", data, 1).await;
    let verdict = "the log was restored or its loss accepted: events 1–12 of the 14 signed are unaltered; 2 are missing\n";
    assert!(text.starts_with(verdict) && !text.contains("not the log"), "{text}");
    assert!(text.contains("restored   after position 12, ") && text.contains("the disk failed"), "{text}");
    assert_eq!((&json["status"], &json["data"]["same_log"]), (&"finding".into(), &true.into()), "{json}");
    assert_eq!((&json["data"]["altered"], &json["data"]["faults"]), (&Value::Null, &json!([])), "{json}");
    let restored = &json["data"]["restored"];
    assert_eq!((&restored["kept_events"], &restored["missing_events"]), (&12.into(), &2.into()), "{json}");
    assert_eq!((&restored["kept_up_to"], &restored["kept_unaltered"]), (&12.into(), &true.into()), "{json}");
    let (text, _) = verify_against(&test_log, "after", data, 1).await;
    assert!(text.contains("events 1–12 of the 13 signed are unaltered; 1 is missing"), "{text}");

    // Without the leaves, the checkpoint has one hash for all 13 events.
    fs::remove_file(test_log.path("after.leaves")).expect("a leaves file");
    let (text, json) = verify_against(&test_log, "after", data, 1).await;
    let verdict = "12 of the 13 signed events were kept and 1 is missing; the leaves that would show whether the kept ones";
    assert!(text.contains(verdict), "{text}");
    assert_eq!(json["data"]["restored"]["kept_unaltered"], Value::Null, "{json}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_altered_event_of_a_restored_log_is_reported_as_altered() {
    for (expected, sql) in [
        ("event 5 was changed", "UPDATE events SET data = '{}' WHERE position = 5"),
        ("event 12 was removed", "DELETE FROM events WHERE position = 12"),
        ("event 5 was removed", "DELETE FROM events WHERE position = 5"),
    ] {
        let (test_log, other) = (TestLog::sqlite().await, folder());
        test_log.run(&["backup", "--out", "backup"]).expect(0);
        test_log.run_without_log_arguments(&["audit", "keygen", "--out", "audit.key"]).expect(0);
        // Signing is recorded as an event, so the second checkpoint covers an event that the backup lacks.
        for checkpoint in ["before", "after"] {
            let sign = ["audit", "checkpoint", "--key", "audit.key", "--out", checkpoint, "--reason", "x"];
            test_log.run(&sign).expect(0);
        }
        restore(other.path(), &test_log.path("backup"), &[]).await.expect(0);
        let file = rusqlite::Connection::open(other.path().join("events.db")).expect("the file");
        file.execute_batch(sql).expect(sql);
        drop(file);
        let (text, json) = verify_against(&test_log, "after", other.path(), 1).await;
        assert!(text.starts_with(&format!("the log was altered: {expected}")), "{text}");
        assert!(text.contains("\nrestored   after position 12, "), "{text}");
        assert_eq!(json["data"]["restored"]["kept_unaltered"], false, "{json}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_into_a_named_folder_touches_nothing_that_only_the_environment_names() {
    let test_log = TestLog::sqlite().await;
    test_log.run(&["backup", "--out", "backup"]).expect(0);
    let in_use = folder();
    let read_model = in_use.path().join("read-model.db");
    fs::write(&read_model, "rows").expect("a file");
    let url = format!("sqlite://{}", read_model.display());
    let restore_with = |variables: &[(&str, &str)], more: &[&str]| {
        let mut command = program();
        command.args(["restore", "--from"]).arg(test_log.path("backup")).args(EXECUTE).args(more);
        command.envs(variables.iter().copied());
        CommandOutput::from(command.output().expect("the program runs"))
    };
    let other = folder();
    let data = other.path().join("check").display().to_string();
    for (variable, value) in [
        ("DATABASE_URL", url.as_str()),
        ("SEARCH_INDEX_DIR", "/tmp/search-index-of-another-system"),
        ("EVENT_STORE_URL", "sqlite:///tmp/events-of-another-system.db"),
    ] {
        let refused = restore_with(&[(variable, value)], &["--data-dir", &data]).expect(2);
        assert!(refused.stderr.contains(&format!("{variable} is set in the environment")), "{refused:?}");
    }
    assert_eq!((names(other.path()), names(in_use.path())), (Vec::new(), vec!["read-model.db".to_owned()]));
    restore_with(&[("DATABASE_URL", &url)], &["--data-dir", &data, "--database-url", &url]).expect(0);
    // If the environment also names the data folder, as the environment of a service does, nothing is refused.
    let data = other.path().join("service").display().to_string();
    restore_with(&[("DATABASE_URL", &url), ("DATA_DIR", &data)], &[]).expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_restored_into_kurrentdb() {
    let test_log = TestLog::sqlite().await;
    test_log.run(&["backup", "--out", "backup"]).expect(0);
    let server = TestLog::kurrentdb().await;
    let backup = test_log.path_text("backup");
    let refused = server.run(&[&["restore", "--from", &backup], &EXECUTE[..]].concat()).expect(2);
    assert!(refused.stderr.contains("restore KurrentDB with its own tools"), "{refused:?}");
}
