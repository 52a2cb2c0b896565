//! Tests of operator commands on the data of a stopped system.

use std::fs;
use std::path::Path;

use chat_domain::Position;
use chat_files::heartbeat::FileHeartbeats;
use chat_ports::clock;
use chat_ports::heartbeat::{Heartbeat, ProjectorRole};
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::api::{create_app, create_chat, create_message, message_path};
use crate::harness::deployment::folder;
use crate::harness::process::{ProcessOptions, program};

const EXECUTE: [&str; 3] = ["--execute", "--reason", "a test"];

/// A folder with the data of a stopped system, and the token of its app.
struct StoppedSystem {
    folder: TempDir,
    token: String,
}

impl StoppedSystem {
    /// Writes an app, a chat and a message.
    async fn create() -> Self {
        let folder = folder();
        let server = ProcessOptions::new("serve", &folder.path().join("data")).start().await;
        let token = create_app(&server.client(), "an app").await;
        create_chat(&server.client(), &token).await;
        create_message(&server.client(), &token, 1, "one").await;
        server.wait_until_folded(3).await;
        server.shut_down().await;
        Self { folder, token }
    }

    /// Starts a server, writes a message, and stops the server.
    async fn write(&self, text: &str) {
        let server = ProcessOptions::new("serve", &self.path("data")).start().await;
        create_message(&server.client(), &self.token, 1, text).await;
        server.wait_until_caught_up().await;
        server.shut_down().await;
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// Runs a command with `-o json`, asserts that its exit code is `code`, and returns its answer.
    #[track_caller]
    fn run(&self, code: i32, command: &str) -> Value {
        run(&self.path("data"), code, &command.split(' ').collect::<Vec<_>>())
    }

    /// Runs a command like [`run`](Self::run), with `--execute` and a reason.
    #[track_caller]
    fn execute(&self, code: i32, command: &str) -> Value {
        run(&self.path("data"), code, &[&command.split(' ').collect::<Vec<_>>(), &EXECUTE[..]].concat())
    }
}

#[track_caller]
fn run(data: &Path, code: i32, arguments: &[&str]) -> Value {
    let mut command = program();
    command.args(arguments).args(["-o", "json", "--data-dir"]).arg(data);
    let output = command.output().expect("the program runs");
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The message of the first diagnostic.
#[track_caller]
fn message(answer: &Value) -> &str {
    answer["diagnostics"][0]["message"].as_str().unwrap_or_else(|| panic!("{answer}"))
}

/// The names of the generations in a list, such as `["read_model 2"]`.
fn names(generations: &Value) -> Vec<String> {
    let name = |listed: &Value| {
        format!("{} {}", listed["projection"].as_str().expect("a name"), listed["generation"])
    };
    generations.as_array().expect("a list").iter().map(name).collect()
}

fn copy_log(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for file in ["events.db", "events.db-wal", "events.db-shm"] {
        let _ = fs::remove_file(to.join(file));
        if from.join(file).exists() {
            fs::copy(from.join(file), to.join(file)).expect("a copy");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_that_is_elsewhere_is_not_built_in_the_data_folder() {
    let system = StoppedSystem::create().await;
    let elsewhere = system.path("elsewhere");
    fs::create_dir_all(&elsewhere).expect("a folder");
    for entry in fs::read_dir(system.path("data")).expect("the folder") {
        let entry = entry.expect("an entry");
        if entry.file_name().to_string_lossy().starts_with("read-model") {
            fs::rename(entry.path(), elsewhere.join(entry.file_name())).expect("a move");
        }
    }
    for verb in ["rebuild --all", "promote", "rollback", "drop", "diff", "verify"] {
        let refused = system.run(2, &format!("projections {verb}"));
        let said = "no generation of read_model is stored at";
        assert!(message(&refused).contains(said) && message(&refused).contains("DATABASE_URL"), "{refused}");
    }
    system.execute(2, "projections rebuild read-model");
    assert!(!system.path("data/read-model.2.db").exists(), "the refused rebuild created a file");
    let url = |folder: &str| format!("sqlite://{}", system.path(folder).join("read-model.db").display());
    let planned = system.run(0, &format!("projections rebuild --all --database-url {}", url("elsewhere")));
    assert_eq!(names(&planned["data"]["generations"]), ["read_model 2", "search_index 2"]);
    // An operator who gives the location can begin there, although no generation is stored there.
    system.run(0, &format!("projections rebuild read-model --database-url {}", url("data")));

    let listed = system.run(0, "dead-letters list");
    assert!(message(&listed).ends_with("; set DATABASE_URL as the processes have it"), "{listed}");
    let listed = system.run(1, "projections list");
    assert!(
        message(&listed).contains("set DATABASE_URL and --data-dir as the processes have them"),
        "{listed}"
    );
    for action in ["retry --all", "discard 3", "acknowledge --all"] {
        let refused = system.execute(2, &format!("dead-letters {action}"));
        let text = message(&refused);
        assert!(text.contains("set DATABASE_URL") && text.contains("--projection search_index"), "{refused}");
    }
    system.run(0, "dead-letters retry --all --projection search_index");
    system.run(0, &format!("dead-letters retry --all --database-url {}", url("elsewhere")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_that_names_no_projection_undoes_the_last_promotion() {
    let system = StoppedSystem::create().await;
    system.execute(0, "projections rebuild --all");
    system.execute(0, "projections rebuild read-model");
    let planned = system.run(0, "projections rollback");
    assert_eq!(names(&planned["data"]["to"]), ["read_model 2"], "{planned}");
    system.execute(0, "projections rollback");
    let refused = system.run(2, "projections rollback");
    assert!(message(&refused).contains("read_model 1 or search_index 1 would be live"), "{refused}");
    let all = system.run(0, "projections rollback --all");
    assert_eq!(names(&all["data"]["to"]), ["read_model 1", "search_index 1"], "{all}");
    let promoted = system.execute(0, "projections promote");
    assert_eq!(names(&promoted["data"]["to"]), ["read_model 3"], "{promoted}");

    // A dropped generation without files is not dropped again.
    system.execute(0, "projections drop read-model --generation 1");
    let planned = system.run(0, "projections drop --generation 1");
    assert_eq!(names(&planned["data"]["generations"]), ["search_index 1"], "{planned}");
    let refused = system.run(2, "projections drop read-model --generation 1");
    assert!(message(&refused).contains("or it was dropped"), "{refused}");
    // A dropped generation whose files are still on this machine can be dropped again.
    fs::write(system.path("data/read-model.db"), "").expect("a file");
    let planned = system.run(0, "projections drop read-model --generation 1");
    assert_eq!(names(&planned["data"]["generations"]), ["read_model 1"], "{planned}");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restore_only_the_live_generations_are_listed() {
    let system = StoppedSystem::create().await;
    system.execute(0, "projections rebuild --all");
    let backup = system.path("backup").display().to_string();
    system.run(0, &format!("backup --out {backup}"));
    for file in ["events.db", "events.db-wal", "events.db-shm"] {
        let _ = fs::remove_file(system.path("data").join(file));
    }
    system.execute(0, &format!("restore --from {backup}"));
    let server = ProcessOptions::new("serve", &system.path("data")).start().await;
    server.wait_until_caught_up().await;
    server.shut_down().await;
    let listed = system.run(0, "projections list");
    assert_eq!(names(&listed["data"]["generations"]), ["read_model 2", "search_index 2"], "{listed}");
    let refused = system.run(2, "projections rollback");
    assert!(message(&refused).contains("there is no previous generation of read_model"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_to_a_missing_generation_says_that_it_is_built_from_the_log() {
    let system = StoppedSystem::create().await;
    system.execute(0, "projections rebuild search-index");
    fs::remove_dir_all(system.path("data/search-index")).expect("a removal");
    let planned = system.run(0, "projections rollback search-index");
    assert!(message(&planned).starts_with("there is nothing of search_index 1 at"), "{planned}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_previous_generation_with_events_that_the_log_lost_is_marked_and_not_used() {
    let system = StoppedSystem::create().await;
    system.execute(0, "projections rebuild read-model");
    copy_log(&system.path("data"), &system.path("old"));
    system.execute(0, "projections rollback read-model");
    let server = ProcessOptions::new("serve", &system.path("data")).start().await;
    create_message(&server.client(), &system.token, 1, "lost").await;
    server.wait_until_caught_up().await;
    server.shut_down().await;

    // In the old copy of the log, generation 2 is live, and generation 1 the previous one.
    copy_log(&system.path("old"), &system.path("data"));
    system.execute(0, "events accept-loss");
    let listed = system.run(1, "projections list");
    let previous = &listed["data"]["generations"][0];
    assert_eq!((&previous["generation"], &previous["standing"]), (&1.into(), &"previous".into()), "{listed}");
    let is_marked = |listed: &Value| {
        let error = listed["data"]["generations"][0]["last_error"].as_str().unwrap_or_default();
        error.starts_with("beyond the log, can't be used")
    };
    assert!(is_marked(&listed), "{listed}");
    // The last error of a projector does not replace the mark.
    let heartbeat = Heartbeat {
        at: clock::now(),
        state: "waiting".to_owned(),
        position: Position::START,
        events_per_second: 0,
        last_error: Some("the disk is full".to_owned()),
    };
    let heartbeats = FileHeartbeats::for_path(system.path("data/read-model.db"));
    heartbeats.publish(ProjectorRole::Active, &heartbeat).expect("a heartbeat");
    let listed = system.run(1, "projections list");
    assert!(listed["data"]["generations"][0]["state"] == "waiting" && is_marked(&listed), "{listed}");
    heartbeats.remove(ProjectorRole::Active).expect("a removal");

    for verb in ["diff", "rollback"] {
        let refused = system.run(2, &format!("projections {verb} read-model"));
        assert!(message(&refused).contains("generation 1 of read_model can't be used"), "{refused}");
    }
    let refused = system.run(2, "projections rollback read-model");
    let kept = system.run(0, "projections drop read-model");
    assert_eq!(kept["data"]["kept"][0]["beyond_log"], true, "{kept}");
    // The command in the message of the refused rollback drops only generation 1.
    let command = message(&refused).split('`').nth(1).expect("a command");
    let dropped = system.execute(0, command);
    assert_eq!(names(&dropped["data"]["generations"]), ["read_model 1"], "{dropped}");
}

#[tokio::test(flavor = "multi_thread")]
async fn between_a_loss_and_its_acceptance_commands_say_that_events_are_lost() {
    let system = StoppedSystem::create().await;
    copy_log(&system.path("data"), &system.path("old"));
    let server = ProcessOptions::new("serve", &system.path("data")).start().await;
    create_message(&server.client(), &system.token, 1, "lost").await;
    server.wait_until_caught_up().await;
    server.shut_down().await;
    let file = |name: &str| system.path(name).display().to_string();
    let (key, checkpoint) = (file("key"), file("checkpoint"));
    let keygen = program().args(["audit", "keygen", "--name", "example.com/audit", "--out", &key]).output();
    assert!(keygen.expect("the program runs").status.success());
    system.run(0, &format!("audit checkpoint --key {key} --out {checkpoint} --reason test"));
    copy_log(&system.path("old"), &system.path("data"));

    let listed = system.run(1, "projections list");
    assert_eq!(listed["data"]["generations"][0]["beyond_log"], true, "{listed}");
    for sampled in ["", " --full"] {
        let refused = system.run(2, &format!("projections verify{sampled}"));
        assert!(
            message(&refused).contains("docs/operations/lost-events.md says what to do first"),
            "{refused}"
        );
    }
    let explained = system.run(1, &format!("audit explain message {} 1 2", system.token));
    assert!(message(&explained).contains("it is at position 4, and the log ends at 3"), "{explained}");
    let mut verify = program();
    verify.args(["audit", "verify", "--checkpoint", &checkpoint, "--public-key", &format!("{key}.pub")]);
    let verified = verify.arg("--data-dir").arg(system.path("data")).output().expect("the program runs");
    let text = String::from_utf8(verified.stdout).expect("text");
    assert!(text.starts_with("the log has lost events: it ends at position 3;"), "{text}");
    assert!(
        text.contains("the events before event 4, the first one that is missing, are unaltered"),
        "{text}"
    );
    let backed_up = system.run(1, &format!("backup --out {}", file("backup")));
    assert_eq!(message(&backed_up), "earlier backups may have events that this one lacks, so keep them");
    assert_eq!(backed_up["data"]["manifest"]["position"], 3, "{backed_up}");
    let last_backup = system.path("data/events.db.last-backup");
    assert!(!last_backup.exists(), "the backup counts as the last good one");

    // The read model keeps the lost event until its projector builds it again.
    system.execute(0, "events accept-loss");
    let explained = system.run(1, &format!("audit explain message {} 1 2", system.token));
    assert!(message(&explained).contains("of which the log kept the events up to 3"), "{explained}");
    system.run(0, &format!("backup --out {}", file("next")));
    assert!(last_backup.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn generations_are_not_compared_while_events_are_lost_nor_with_one_that_has_lost_events() {
    let system = StoppedSystem::create().await;
    system.execute(0, "projections rebuild read-model");
    copy_log(&system.path("data"), &system.path("old"));
    let server = ProcessOptions::new("serve", &system.path("data")).start().await;
    create_message(&server.client(), &system.token, 1, "lost").await;
    server.wait_until_caught_up().await;
    server.shut_down().await;
    copy_log(&system.path("old"), &system.path("data"));

    let positions = || {
        let listed = system.run(1, "projections list");
        let generations = listed["data"]["generations"].as_array().expect("a list").iter();
        generations.map(|listed| listed["position"].clone()).collect::<Vec<_>>()
    };
    let before = positions();
    let refused = system.run(2, "projections diff read-model");
    assert!(message(&refused).contains("docs/operations/lost-events.md"), "{refused}");
    assert_eq!(positions(), before, "a refused comparison changed a generation");

    // Only the live generation has the lost event.
    system.execute(0, "events accept-loss");
    let compared = system.run(1, "projections diff read-model");
    let unreadable = compared["data"]["comparisons"][0]["unreadable"].as_str();
    assert!(unreadable.is_some_and(|reason| reason.contains("an earlier incarnation")), "{compared}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_log_that_has_lost_events_is_said_to_have_lost_them() {
    let system = StoppedSystem::create().await;
    copy_log(&system.path("data"), &system.path("old"));
    let file = |name: &str| system.path(name).display().to_string();
    let (key, checkpoint) = (file("key"), file("checkpoint"));
    system.run(0, &format!("backup --out {}", file("backup")));
    system.write("after the backup").await;
    let keygen = program().args(["audit", "keygen", "--name", "example.com/audit", "--out", &key]).output();
    assert!(keygen.expect("the program runs").status.success());
    system.run(0, &format!("audit checkpoint --key {key} --out {checkpoint} --reason test"));
    let verify = |data: &Path| {
        let mut verify = program();
        verify.args(["audit", "verify", "--checkpoint", &checkpoint, "--public-key", &format!("{key}.pub")]);
        let verified = verify.arg("--data-dir").arg(data).output().expect("the program runs");
        assert_eq!(verified.status.code(), Some(1), "{verified:?}");
        String::from_utf8(verified.stdout).expect("text")
    };

    let of_backup = verify(&system.path("backup"));
    assert!(
        of_backup.starts_with("the backup ends at position 3, before the last signed event"),
        "{of_backup}"
    );
    assert!(of_backup.contains("the events before event 4, the first one that is missing"), "{of_backup}");
    assert!(!of_backup.contains("lost") && !of_backup.contains("altered:"), "{of_backup}");

    copy_log(&system.path("old"), &system.path("data"));
    fs::remove_file(format!("{checkpoint}.leaves")).expect("the leaves");
    let of_rest = verify(&system.path("data"));
    assert!(of_rest.starts_with("the log has lost events: it ends at position 3;"), "{of_rest}");
    assert!(of_rest.contains("whether the others were altered is unknown"), "{of_rest}");

    let other = StoppedSystem::create().await;
    copy_log(&other.path("data"), &system.path("data"));
    let of_other = verify(&system.path("data"));
    assert!(of_other.contains("this is not the log that was signed"), "{of_other}");
    assert!(!of_other.contains("lost"), "{of_other}");
}

#[tokio::test(flavor = "multi_thread")]
async fn actions_on_a_log_that_has_lost_events_are_refused_with_advice() {
    let system = StoppedSystem::create().await;
    system.execute(0, "projections rebuild read-model");
    copy_log(&system.path("data"), &system.path("old"));
    system.write("lost").await;
    copy_log(&system.path("old"), &system.path("data"));

    let file = |name: &str| system.path(name).display().to_string();
    let (key, checkpoint) = (file("key"), file("checkpoint"));
    let keygen = program().args(["audit", "keygen", "--name", "example.com/audit", "--out", &key]).output();
    assert!(keygen.expect("the program runs").status.success());
    for refused in [
        system.execute(2, "projections drop read-model --generation 1"),
        system.run(2, &format!("audit checkpoint --key {key} --out {checkpoint} --reason test")),
    ] {
        let text = message(&refused);
        assert!(text.ends_with("docs/operations/lost-events.md says what to do first"), "{refused}");
        assert!(text.contains("the log ends at position") && !text.contains("recorded"), "{refused}");
    }
    assert!(!system.path("checkpoint").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verification_counts_the_same_rows_in_a_sample_of_all_chats_as_in_full() {
    let system = StoppedSystem::create().await;
    let server = ProcessOptions::new("serve", &system.path("data")).start().await;
    let client = server.client();
    create_chat(&client, &system.token).await;
    create_message(&client, &system.token, 2, "two").await;
    create_message(&client, &system.token, 2, "three").await;
    client.delete(message_path(&system.token, 2, 1)).send().await.expect(204);
    server.wait_until_caught_up().await;
    server.shut_down().await;
    for projection in ["read-model", "search-index"] {
        let count = |how: &str| {
            let verified = system.run(0, &format!("projections verify {projection} {how}"));
            verified["data"]["verifications"][0]["compared"].clone()
        };
        assert_eq!(count("--sample 50"), count("--full"), "{projection}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_over_that_names_no_projection_needs_no_location_of_other_projections() {
    let system = StoppedSystem::create().await;
    system.execute(0, "projections rebuild read-model");
    fs::remove_dir_all(system.path("data/search-index")).expect("a removal");
    let planned = system.run(0, "projections rollback");
    assert_eq!(names(&planned["data"]["to"]), ["read_model 1"], "{planned}");
    system.execute(0, "projections rollback");
    system.run(2, "projections rollback --all");
    let planned = system.run(0, "projections promote");
    assert_eq!(names(&planned["data"]["to"]), ["read_model 2"], "{planned}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_is_not_accepted_without_evidence_of_a_log() {
    let system = StoppedSystem::create().await;
    let url = format!("sqlite://{}", system.path("data/read-model.db").display());
    for folder in ["missing", "empty"] {
        let folder = system.path(folder);
        if folder.ends_with("empty") {
            fs::create_dir(&folder).expect("a folder");
        }
        for options in [&[][..], &["--database-url", url.as_str()][..]] {
            for execute in [&[][..], &EXECUTE[..]] {
                let refused = run(&folder, 2, &[&["events", "accept-loss"], options, execute].concat());
                assert!(message(&refused).starts_with("there is no event log at"), "{refused}");
            }
        }
        let has_files = fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_some());
        assert!(!has_files, "something was created in {}", folder.display());
    }
    // An operator who knows that the log was there gives its location.
    let log = format!("sqlite://{}", system.path("empty/events.db").display());
    let location = ["events", "accept-loss", "--event-store-url", log.as_str()];
    let refused = run(&system.path("empty"), 2, &[&location[..], &EXECUTE[..]].concat());
    assert!(message(&refused).contains("nothing at the other locations was built from one"), "{refused}");
    run(&system.path("empty"), 0, &[&location[..], &["--database-url", url.as_str()], &EXECUTE[..]].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn accepting_a_loss_names_what_the_log_was_compared_with() {
    let system = StoppedSystem::create().await;
    let compared = system.run(0, "events accept-loss");
    assert_eq!(compared["diagnostics"], Value::Array(Vec::new()), "{compared}");
    let names = compared["data"]["compared"].to_string();
    assert!(names.contains("data/read-model.db") && names.contains("data/log-anchor"), "{compared}");

    let log = format!("sqlite://{}", system.path("data/events.db").display());
    let mistyped = system.path("dta");
    let compared = run(&mistyped, 0, &["events", "accept-loss", "--event-store-url", &log]);
    assert_eq!(compared["data"]["compared"], Value::Array(Vec::new()), "{compared}");
    let warning = format!("the folder {} does not exist", mistyped.display());
    assert!(message(&compared).starts_with(&warning), "{compared}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_log_is_begun_beside_projections_of_a_log_that_may_be_elsewhere() {
    let system = StoppedSystem::create().await;
    let log = system.path("data/events.db");
    for suffix in ["", "-wal", "-shm"] {
        // The WAL files may not exist.
        let _ = fs::remove_file(system.path(&format!("data/events.db{suffix}")));
    }
    for execute in [&[][..], &EXECUTE[..]] {
        let refused = run(&system.path("data"), 2, &[&["events", "accept-loss"], execute].concat());
        let text = message(&refused);
        assert!(text.contains("was written up to position") && text.contains("EVENT_STORE_URL"), "{refused}");
        assert!(!log.exists(), "a log was created");
    }
    for command in
        ["audit head", "events check", "projections list", "projections rebuild --all", "dead-letters list"]
    {
        let refused = system.run(2, command);
        assert!(
            message(&refused).contains("set EVENT_STORE_URL and --data-dir as the processes"),
            "{refused}"
        );
    }
    let location = format!("--event-store-url sqlite://{}", log.display());
    let planned = system.run(1, &format!("events accept-loss {location}"));
    assert!(
        planned["data"]["missing"].as_str().is_some_and(|missing| missing.starts_with("there is no")),
        "{planned}"
    );
    system.execute(0, &format!("events accept-loss {location}"));
}
