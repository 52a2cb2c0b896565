//! Tests of a log that has lost acknowledged events, is missing, was replaced by another one, can't be reached, or is
//! removed under a running server, and of projections that are removed.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod harness;

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use chat_testing::kurrentdb::FakeKurrentDb;
use chat_testing::port;
use harness::api::{
    API, chat_path, create_app, create_chat, create_message, message_path, number,
    wait_until_event_store_is_down,
};
use harness::client::{Client, Reply};
use harness::deadline::{TIMEOUT, eventually};
use harness::deployment::folder;
use harness::process::{Process, ProcessOptions, program};
use serde_json::{Value, json};

/// The number of messages in the chat of a test.
const MESSAGES: u64 = 100;

/// The position of the last message. The events of the app and the chat come before the messages.
const HEAD: u64 = MESSAGES + 2;

fn serve(data: &Path) -> ProcessOptions {
    ProcessOptions::new("serve", data)
}

/// Creates an app and a chat, posts the messages one by one, each with its own key, and waits until they are folded.
/// Returns the token of the app.
async fn fill(process: &Process) -> String {
    let client = process.client();
    let token = create_app(&client, "an app").await;
    create_chat(&client, &token).await;
    for message in 1..=MESSAGES {
        post_keyed(&client, &token, message).await.expect(201);
    }
    process.wait_until_folded(HEAD).await;
    token
}

async fn post_keyed(client: &Client, token: &str, message: u64) -> Reply {
    let path = format!("{}/messages", chat_path(token, 1));
    let body = json!({ "body": format!("message {message}") });
    client.post(path, &body).header("idempotency-key", &format!("message-{message}")).send().await
}

/// Starts a process that must take no commands, and waits until `/readyz` gives a reason with all of these words.
/// Returns the process and the reason.
async fn start_refusing_commands(options: &ProcessOptions, words: &[&str]) -> (Process, String) {
    let mut process = options.spawn();
    process.wait_for_address().await;
    let reason = wait_until_event_store_is_down(&process.client(), words).await;
    (process, reason)
}

fn operate(data: &Path, arguments: &[&str]) -> Output {
    program().args(arguments).arg("--data-dir").arg(data).output().expect("the program runs")
}

#[track_caller]
fn expect_exit(output: &Output, code: i32, said: &str) {
    let text = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat();
    assert_eq!(output.status.code(), Some(code), "{text}");
    // The program wraps long lines.
    let words: Vec<&str> = text.split_whitespace().collect();
    assert!(words.join(" ").contains(said), "{text}");
}

fn entry_names(data: &Path) -> Vec<String> {
    let entries = fs::read_dir(data).expect("the folder");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect();
    names.sort();
    names
}

/// Removes a folder. Repeats the removal until the folder is gone, because the server may create files in it meanwhile.
async fn remove_folder(folder: &Path) {
    eventually("the folder is removed", async || {
        let is_removed = fs::remove_dir_all(folder).is_ok() || !folder.exists();
        is_removed.then_some(())
    })
    .await;
}

/// Returns the names of the projections that were quarantined because they are of another log, or ahead of their log.
/// Leaves out their `-wal` and `-shm` files.
fn quarantined_projections(data: &Path) -> Vec<String> {
    let is_quarantined = |name: &String| {
        name.contains(".other-log-")
            && !name.starts_with("events.db")
            && !name.ends_with("-wal")
            && !name.ends_with("-shm")
    };
    entry_names(data).into_iter().filter(is_quarantined).collect()
}

#[test]
fn accepting_a_loss_gives_up_on_an_unreachable_event_store() {
    let folder = folder();
    let port = port::find_free_for_restarts().expect("a free port");
    let mut command = program();
    command.args(["events", "accept-loss", "--event-store-url"]);
    command.arg(format!("kurrentdb://127.0.0.1:{port}?tls=false")).arg("--data-dir").arg(folder.path());
    let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program");
    let deadline = Instant::now() + TIMEOUT;
    while process.try_wait().expect("its state").is_none() {
        if Instant::now() > deadline {
            process.kill().expect("the program ends");
            panic!("the command does not end");
        }
        sleep(Duration::from_millis(50));
    }
    expect_exit(&process.wait_with_output().expect("its output"), 2, "does not answer");
}

#[test]
fn commands_of_operators_write_nothing_to_an_empty_kurrentdb() {
    let (folder, server) = (folder(), FakeKurrentDb::start().expect("a server"));
    for arguments in [["audit", "list"], ["events", "accept-loss"]] {
        let mut command = program();
        command.args(arguments).args(["--event-store-url", &server.url()]);
        let output = command.arg("--data-dir").arg(folder.path()).output().expect("the program runs");
        expect_exit(&output, 2, "there is no event log in this KurrentDB");
    }
    assert_eq!(server.append_count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_at_a_kurrentdb_without_a_log_name_the_data_of_the_log_that_was_there() {
    let (folder, server) = (folder(), FakeKurrentDb::start().expect("a server"));
    let data = folder.path();
    let process = serve(data).with("--event-store-url", &server.url()).start().await;
    let token = create_app(&process.client(), "an app").await;
    create_chat(&process.client(), &token).await;
    process.wait_until_caught_up().await;
    process.shut_down().await;
    let empty = FakeKurrentDb::start().expect("a server");
    for command in [["audit", "head"], ["events", "accept-loss"]] {
        let refused = operate(data, &[&command[..], &["--event-store-url", &empty.url()]].concat());
        expect_exit(
            &refused,
            2,
            &format!("there is no event log in kurrentdb://127.0.0.1:{}, but", empty.port()),
        );
        expect_exit(&refused, 2, "was written up to position");
        expect_exit(&refused, 2, "set EVENT_STORE_URL and --data-dir as the processes have them");
    }
    assert_eq!(empty.append_count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_in_the_wal_is_noticed_and_the_loss_accepted_by_an_operator() {
    let folder = folder();
    let data = folder.path();
    let process = serve(data).start().await;
    let token = fill(&process).await;
    let read_before_loss = process.client().get(message_path(&token, 1, MESSAGES)).send().await.expect(200);
    process.kill();
    let wal = fs::File::options().read(true).write(true).open(data.join("events.db-wal")).expect("the WAL");
    let (offset, mut byte) = (wal.metadata().expect("its size").len() / 5, [0]);
    wal.read_exact_at(&mut byte, offset).expect("a byte");
    wal.write_all_at(&[byte[0] ^ 1], offset).expect("a flipped byte");

    let damaged_wal = fs::read(data.join("events.db-wal")).expect("the WAL");
    let words = ["the log ends at position ", " acknowledged events are missing"];
    let (process, _) = start_refusing_commands(&serve(data), &words).await;
    process.shut_down().await;
    assert!(fs::read(data.join("events.db-wal")).expect("the WAL") == damaged_wal, "the WAL was changed");
    let (process, reason) = start_refusing_commands(&serve(data), &words).await;
    let remaining_head: u64 = reason
        .strip_prefix("the log ends at position ")
        .and_then(|rest| rest.split(',').next()?.parse().ok())
        .unwrap_or_else(|| panic!("{reason}"));
    assert!(
        (10..HEAD).contains(&remaining_head)
            && reason.ends_with(&format!("{} acknowledged events are missing", HEAD - remaining_head)),
        "{reason}"
    );
    assert!(process.stderr().contains(&reason), "{}", process.stderr());
    let client = process.client();
    for refused in [
        try_create_app(&client).await,
        post_keyed(&client, &token, MESSAGES).await,
        client.delete(message_path(&token, 1, 1)).send().await,
    ] {
        assert_eq!((refused.status.as_u16(), refused.code()), (503, "event_store_unavailable".to_owned()));
    }
    client.get(message_path(&token, 1, MESSAGES)).send().await.expect(200);
    expect_exit(&operate(data, &["events", "check"]), 0, &reason);
    expect_exit(&operate(data, &["projections", "list"]), 1, &reason);
    expect_actions_refused(data, &client, &reason).await;
    assert_eq!(quarantined_projections(data), [""; 0], "something was quarantined");

    expect_exit(&operate(data, &["events", "accept-loss"]), 1, &reason);
    expect_exit(
        &operate(data, &["events", "accept-loss", "--reason", "a test", "--execute"]),
        0,
        "incarnation",
    );
    let kept_wal = entry_names(data).into_iter().find(|name| name.starts_with("events.db-wal.other-log-"));
    assert!(fs::read(data.join(kept_wal.expect("a copy of the WAL"))).expect("the copy") == damaged_wal);
    // The process takes commands again without a restart. The operator action is the first event of the new
    // incarnation.
    process.wait_until_ready().await;
    process.wait_until_folded(remaining_head + 1).await;
    client.get(message_path(&token, 1, MESSAGES)).send().await.expect(404);
    // The key of the lost message may still be leased. Until the lease expires, the answer is 409.
    let again = eventually("the key is free", async || {
        let reply = post_keyed(&client, &token, MESSAGES).await;
        (reply.status != 409).then_some(reply)
    })
    .await
    .expect(201);
    assert!(!again.has("idempotency-replayed"), "the answer of a lost event was repeated");
    // The app and the chat are the first two events.
    assert_eq!(number(&again.json(), "message_number"), remaining_head - 2 + 1);
    let kept = post_keyed(&client, &token, 1).await.expect(201);
    assert_eq!(kept.header("idempotency-replayed"), "true");
    let answer = client
        .get(message_path(&token, 1, 1))
        .header("consistency-token", read_before_loss.header("consistency-token"))
        .header("prefer", "wait=0")
        .send()
        .await;
    assert_ne!(answer.status, 200, "a token of lost events was taken");
    let actions = operate(data, &["audit", "list", "--type", "LogIncarnationBegan"]);
    expect_exit(&actions, 0, "LogIncarnationBegan");

    let quarantined = quarantined_projections(data);
    assert!(
        quarantined.len() == 2
            && quarantined[0].starts_with("read-model.db")
            && quarantined[1].starts_with("search-index"),
        "{quarantined:?}"
    );
    process.shut_down().await;
    let wal_bytes = fs::metadata(data.join("events.db-wal")).map_or(0, |wal| wal.len());
    assert_eq!(wal_bytes, 0, "an orderly stop leaves a WAL");
    // Quarantining a damaged read model keeps the projections with lost events that were quarantined before.
    for _ in 0..2 {
        fs::write(data.join("read-model.db"), "damaged").expect("damage");
        serve(data).start().await.shut_down().await;
        assert_eq!(quarantined_projections(data), quarantined);
    }
}

/// The advice at the end of a refusal.
const ADVICE: &str = "docs/operations/lost-events.md says what to do first";

/// Expects that no action is executed on a log with a problem, whichever way an operator takes.
async fn expect_actions_refused(data: &Path, client: &Client, problem: &str) {
    let refusal = format!("{problem}; {ADVICE}");
    // A switch-over would wait forever for the lost events. A rebuild from scratch would remove an unfinished generation
    // that contains them.
    let url = client.url_of("");
    let warning = format!("{problem}; nothing is appended to it, and actions are refused");
    for server in [&[][..], &["--server", &url]] {
        for (command, code) in [
            (&["projections", "rebuild", "--all"][..], 1),
            (&["projections", "list"], 1),
            (&["dead-letters", "list"], 0),
        ] {
            let command = [command, server].concat();
            let shown = operate(data, &command);
            expect_exit(&shown, code, &format!("warning: {warning}"));
            let shown = String::from_utf8(shown.stderr).expect("text");
            assert_eq!(shown.matches("warning:").count(), 1, "{shown}");
            assert_eq!(warnings_in_json(data, &command, code), [&*warning], "{command:?}");
        }
    }
    for command in [["audit", "verify"], ["audit", "head"], ["events", "check"]] {
        assert_eq!(warnings_in_json(data, &command, 0), [&*warning], "{command:?}");
    }
    expect_long_commands_to_warn_at_once(data, &warning);
    // A failure has the warning, too.
    assert_eq!(warnings_in_json(data, &["audit", "show", "1000000"], 2), [&*warning]);
    for verb in [&["rebuild", "--from-scratch"][..], &["promote"], &["rollback"]] {
        let execute = ["--all", "--reason", "a test", "--execute"];
        expect_exit(&operate(data, &[&["projections"], verb, &execute].concat()), 2, &refusal);
        let at_server = operate(data, &[&["projections"], verb, &execute, &["--server", &url]].concat());
        expect_exit(&at_server, 2, &refusal);
    }
    for path in ["audit/verifications", "projections/drops", "dead-letters/retries"] {
        let mut body = json!({ "reason": "a test", "execute": true });
        if path.ends_with("retries") {
            body["all"] = true.into();
        }
        let refused = client.post(format!("/admin/v1/{path}"), &body).send().await;
        expect_refused_action(&refused.expect(409), &refusal);
    }
}

/// Expects that commands whose answer may never come also warn on standard error with `-o json`.
#[track_caller]
fn expect_long_commands_to_warn_at_once(data: &Path, warning: &str) {
    for command in [&["replay", "--to", "cat"][..], &["audit", "export", "--format", "jsonl"]] {
        let output = operate(data, &[command, &["-o", "json"]].concat());
        expect_exit(&output, 0, &format!("warning: {warning}"));
        // The answer has it, too.
        let output = [output.stdout, output.stderr].concat();
        assert_eq!(String::from_utf8_lossy(&output).matches(warning).count(), 2, "{command:?}");
    }
}

/// Runs a command with `-o json`, and returns the warnings in its answer. Expects that standard error has none.
#[track_caller]
fn warnings_in_json(data: &Path, command: &[&str], code: i32) -> Vec<String> {
    let output = operate(data, &[command, &["-o", "json"]].concat());
    let (answer, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{answer} {stderr}");
    assert!(!stderr.contains("warning:"), "{stderr}");
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    let diagnostics = answer["diagnostics"].as_array().expect("diagnostics");
    let warnings = diagnostics.iter().filter(|diagnostic| diagnostic["severity"] == "warning");
    warnings.map(|warning| warning["message"].as_str().expect("a message").to_owned()).collect()
}

#[track_caller]
fn expect_refused_action(refused: &Reply, reason: &str) {
    let problem = refused.json();
    assert_eq!(problem["code"], "action_not_possible", "{problem}");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(reason)), "{problem}");
}

/// Requests a drop of generations, or its dry run. There is nothing to drop.
async fn try_drop(client: &Client, execute: bool) -> Reply {
    let body = json!({ "reason": "a test", "execute": execute });
    client.post("/admin/v1/projections/drops", &body).send().await
}

async fn try_create_app(client: &Client) -> Reply {
    client.post(format!("{API}/apps"), &json!({ "name": "one more" })).send().await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_new_log_is_created_where_another_one_was() {
    let folder = folder();
    let (data, other) = (folder.path().join("data"), folder.path().join("other"));
    let process = serve(&data).start().await;
    let token = fill(&process).await;
    process.shut_down().await;
    let process = serve(&other).start().await;
    create_app(&process.client(), "of another log").await;
    process.shut_down().await;

    let log = data.join("events.db");
    fs::rename(&log, folder.path().join("kept.db")).expect("a missing log");
    let typo = data.join("event.db");
    let typo_url = format!("sqlite://{}", typo.display());
    for case in ["missing", "empty", "typo", "other"] {
        let options = match case {
            "typo" => serve(&data).with("--event-store-url", &typo_url),
            _ => serve(&data),
        };
        match case {
            "empty" => fs::write(&log, "").expect("an empty file"),
            "other" => drop(fs::copy(other.join("events.db"), &log).expect("a copy")),
            _ => {}
        }
        let said = match case {
            "missing" | "typo" => "there is no event log at",
            "empty" => "nothing is in the event log",
            _ => "of another log",
        };
        let (process, reason) =
            start_refusing_commands(&options, &[said, &format!("position {HEAD} of")]).await;
        let client = process.client();
        assert_eq!(try_create_app(&client).await.expect(503).code(), "event_store_unavailable", "{case}");
        client.get(message_path(&token, 1, MESSAGES)).send().await.expect(200);
        expect_refused_action(&try_drop(&client, true).await.expect(409), &format!("{reason}; {ADVICE}"));
        if case != "other" {
            expect_refused_action(&try_drop(&client, false).await.expect(409), &reason);
            let unlisted = client.get("/admin/v1/projections").send().await.expect(503);
            assert_eq!(unlisted.json()["detail"], reason, "{case}");
            for command in ["projections", "dead-letters"] {
                let begun = Instant::now();
                let unlisted = operate(&data, &[command, "list", "--server", &client.url_of("")]);
                expect_exit(&unlisted, 2, &reason);
                assert!(begun.elapsed() < Duration::from_secs(30), "the request was repeated");
            }
        }
        let checked = operate(&data, &["events", "check"]);
        match case {
            "other" => expect_exit(&checked, 0, &reason),
            "typo" => assert!(!typo.exists(), "a log was created"),
            _ => {
                expect_exit(&checked, 2, &reason);
                assert!(fs::metadata(&log).is_ok_and(|file| file.len() == 0) == (case == "empty"), "{case}");
            }
        }
        process.shut_down().await;
        let _ = fs::remove_file(&log);
        assert_eq!(quarantined_projections(&data), [""; 0], "{case}");
    }

    // A restored log is taken up without a restart.
    let (process, _) = start_refusing_commands(&serve(&data), &["there is no event log at"]).await;
    fs::rename(folder.path().join("kept.db"), &log).expect("the log");
    process.wait_until_ready().await;
    create_message(&process.client(), &token, 1, "goes on").await;
    process.shut_down().await;

    // The loss of the whole log is accepted.
    fs::remove_file(&log).expect("a lost log");
    let log_url = format!("sqlite://{}", log.display());
    let accept = ["events", "accept-loss", "--event-store-url", &log_url, "--reason", "a test", "--execute"];
    expect_exit(&operate(&data, &accept), 0, "incarnation");
    let process = serve(&data).start().await;
    process.client().get(message_path(&token, 1, 1)).send().await.expect(404);
    create_app(&process.client(), "a new beginning").await;
    assert_eq!(quarantined_projections(&data).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn data_of_another_log_is_named_until_all_of_it_is_moved_away() {
    let folder = folder();
    let (data, other) = (folder.path().join("data"), folder.path().join("other"));
    let process = serve(&data).start().await;
    fill(&process).await;
    process.shut_down().await;
    let process = serve(&other).start().await;
    let token = create_app(&process.client(), "of the right log").await;
    process.shut_down().await;
    fs::copy(other.join("events.db"), data.join("events.db")).expect("a copy");

    let (process, _) = start_refusing_commands(&serve(&data), &["of another log"]).await;
    let names = ["log-anchor", "idempotency.db", "read-model.db", "search-index"];
    let mut left = names.map(|name| data.join(name).display().to_string()).to_vec();
    while !left.is_empty() {
        let is_named = |reason: &str, path: &String| reason.ends_with(&format!("{path} away"));
        let index = eventually("something that is still there is named", async || {
            let ready = process.client().get("/readyz").try_send().await.ok()?.json();
            let reason = ready["parts"][0]["reason"].as_str()?;
            left.iter().position(|path| is_named(reason, path))
        })
        .await;
        let path = left.remove(index);
        let refused = try_drop(&process.client(), true).await.expect(409);
        expect_refused_action(&refused, &format!("{path} away; {ADVICE}"));
        for suffix in ["", "-wal", "-shm"] {
            // A WAL may not be there.
            let _ = fs::rename(format!("{path}{suffix}"), format!("{path}.moved{suffix}"));
        }
    }
    process.wait_until_ready().await;
    create_chat(&process.client(), &token).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_index_of_another_restore_of_the_same_backup_must_be_moved_away() {
    let folder = folder();
    let [data, backup, first, second] =
        ["data", "backup", "first", "second"].map(|name| folder.path().join(name));
    let process = serve(&data).start().await;
    let token = fill(&process).await;
    process.shut_down().await;
    expect_exit(&operate(&data, &["backup", "--out", &backup.display().to_string()]), 0, "");
    for restored in [&first, &second] {
        let from = backup.display().to_string();
        let restore = ["restore", "--from", &from, "--execute", "--reason", "a test"];
        expect_exit(&operate(restored, &restore), 0, "new log");
    }
    let process = serve(&first).start().await;
    create_message(&process.client(), &token, 1, "of the first restore").await;
    process.shut_down().await;

    let index = first.join("search-index").display().to_string();
    let advice = format!("if this is the right log, move the search index {index} away");
    let options = serve(&second).with("--search-index-dir", &index);
    let (process, reason) = start_refusing_commands(&options, &["of another log", &advice]).await;
    assert!(reason.ends_with(&advice), "{reason}");
    fs::rename(&index, folder.path().join("search-index-of-the-first")).expect("a folder that is moved away");
    process.wait_until_ready().await;
    create_message(&process.client(), &token, 1, "of the second restore").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_data_folder_is_removed_under_load_takes_no_commands() {
    let folder = folder();
    let data = folder.path().join("data");
    let process = serve(&data).start().await;
    let client = process.client();
    let token = create_app(&client, "an app").await;
    create_chat(&client, &token).await;
    let load = tokio::spawn({
        let (client, token) = (client.clone(), token.clone());
        async move {
            let path = format!("{}/messages", chat_path(&token, 1));
            loop {
                let reply = client.post(&path, &json!({ "body": "load" })).send().await;
                if reply.status != 201 {
                    return reply;
                }
            }
        }
    });
    create_message(&client, &token, 1, "before").await;
    // Moved in one step, as a volume is unmounted.
    fs::rename(&data, folder.path().join("gone")).expect("the folder is gone");
    let refused = load.await.expect("the first refusal").expect(503);
    assert!(["event_store_unavailable", "outcome_unknown"].contains(&&*refused.code()), "{}", refused.code());
    wait_until_event_store_is_down(&client, &["was removed or replaced"]).await;
    try_create_app(&client).await.expect(503);
    assert!(!data.exists(), "the folder was created again");
    // The volume is back.
    fs::rename(folder.path().join("gone"), &data).expect("the folder is back");
    process.wait_until_ready().await;
    create_message(&client, &token, 1, "after").await;

    remove_folder(&data).await;
    wait_until_event_store_is_down(&client, &["was removed or replaced"]).await;
    assert_eq!(try_create_app(&client).await.expect(503).code(), "event_store_unavailable");
    assert!(!data.exists(), "the folder was created again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_the_log_removed_under_a_server_is_noticed() {
    let folder = folder();
    let data = folder.path();
    let process = serve(data).start().await;
    let client = process.client();
    create_app(&client, "an app").await;
    for file in ["events.db", "events.db-wal", "events.db-shm"] {
        fs::rename(data.join(file), data.join("gone")).expect("the file is gone");
        let reason =
            wait_until_event_store_is_down(&client, &[&format!("{file} was removed or replaced")]).await;
        try_create_app(&client).await.expect(503);
        // Readiness checks the files itself. Until the gate has noticed too, the log only can't be reached.
        let refused = eventually("the action is refused with a reason", async || {
            Some(try_drop(&client, true).await).filter(|reply| reply.status != 503)
        });
        expect_refused_action(&refused.await.expect(409), &format!("{reason}; {ADVICE}"));
        let tried = try_drop(&client, false).await.json().to_string();
        assert!(tried.contains(&format!("{file} was removed or replaced")), "{tried}");
        assert!(!data.join(file).exists(), "{file} was created again");
        fs::rename(data.join("gone"), data.join(file)).expect("the file is back");
        process.wait_until_ready().await;
        try_create_app(&client).await.expect(201);
        let tried = try_drop(&client, false).await.expect(200).json().to_string();
        assert!(!tried.contains("was removed or replaced"), "{tried}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn projections_and_keys_removed_under_a_server_are_recreated() {
    let folder = folder();
    let data = folder.path();
    let process = serve(data).start().await;
    let client = process.client();
    let token = create_app(&client, "an app").await;
    create_chat(&client, &token).await;
    post_keyed(&client, &token, 1).await.expect(201);
    process.wait_until_folded(3).await;
    for suffix in ["", "-wal", "-shm"] {
        for file in ["read-model.db", "idempotency.db"] {
            // A WAL may not be there.
            let _ = fs::remove_file(data.join(format!("{file}{suffix}")));
        }
    }
    remove_folder(&data.join("search-index")).await;
    // The answer comes from the log.
    assert_eq!(post_keyed(&client, &token, 1).await.expect(201).header("idempotency-replayed"), "true");
    eventually("both projections are stored again", async || {
        let stored = data.join("read-model.db").exists() && data.join("search-index/meta.json").exists();
        stored.then_some(())
    })
    .await;
    process.wait_until_folded(3).await;
    eventually("the message is found", async || {
        let path = format!("{}/messages/search?query=message", chat_path(&token, 1));
        let found: Value = client.get(path).try_send().await.ok()?.json();
        (found["total"] == 1).then_some(())
    })
    .await;
    // The positions that the test waited for may be those from before the removal, so the read is repeated.
    client.get(message_path(&token, 1, 1)).send_until(200).await;
    assert!(data.join("idempotency.db").exists());
}
