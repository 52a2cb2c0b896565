//! Tests of actions over HTTP, and of commands with `--server`: dry runs, and jobs.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::contract::{Contract, assert_problem};
use crate::event_stream::EventStream;
use crate::harness::api::app_path;
use crate::harness::client::Reply;
use crate::harness::deadline::eventually;
use crate::harness::deployment::folder;
use crate::harness::process::program;
use crate::operators::add_operator;

const ADMIN: &str = "/admin/v1";

async fn post(contract: &Contract, path: &str, body: &Value) -> Reply {
    contract.post(format!("{ADMIN}{path}"), body).await
}

/// Starts a deployment with the operator alice, who may read and act. Returns the folder of the file of operators, the
/// deployment, and alice's token.
async fn start_with_operator() -> (TempDir, Contract, String) {
    let folder = folder();
    let file = folder.path().join("operators");
    let alice = add_operator(&file, "alice", "read,act");
    let path = file.to_str().expect("text").to_owned();
    (folder, Contract::start_with(|options| options.with("--operators", &path)).await, alice)
}

/// Requests a job, waits until the job has ended, and returns it.
async fn run_job(contract: &Contract, path: &str, options: Value) -> Value {
    let mut body = options;
    body["execute"] = true.into();
    body["reason"] = "a test".into();
    let requested = post(contract, path, &body).await.expect(202);
    let location = requested.header("location").to_owned();
    assert_eq!(requested.json()["data"]["reason"], "a test");
    eventually("the job has ended", async || {
        let job = contract.get(location.as_str()).await.expect(200).json();
        job["data"]["ended_at"].is_string().then(|| job["data"].clone())
    })
    .await
}

/// The types of the events of a job, and the actor that all of them have.
async fn trace(contract: &Contract, job: &Value) -> (Vec<String>, Value) {
    let id = job["id"].as_str().expect("an id");
    let trace = contract.get(format!("{ADMIN}/audit/traces/{id}")).await.expect(200).json();
    let events = trace["data"]["requests"][0]["events"].as_array().expect("events").clone();
    let actor = events[0]["metadata"]["actor"].clone();
    assert!(events.iter().all(|event| event["metadata"]["actor"] == actor), "{trace}");
    (events.iter().map(|event| event["type"].as_str().expect("a type").to_owned()).collect(), actor)
}

#[tokio::test(flavor = "multi_thread")]
async fn projections_are_rebuilt_rolled_back_promoted_and_dropped_by_jobs() {
    let contract = Contract::start_with(|options| options.with("--keep-previous", "1")).await;
    let token = contract.app_with_chat().await;
    contract.message(&token, "Hi").await;

    let plan = post(&contract, "/projections/rebuilds", &json!({})).await.expect(200).json();
    assert_eq!(plan["data"]["generations"].as_array().map(Vec::len), Some(2), "{plan}");
    let jobs = contract.get(format!("{ADMIN}/jobs")).await.expect(200).json();
    assert_eq!(jobs["data"]["jobs"], json!([]), "the dry run requested a job");

    let rebuilt = run_job(&contract, "/projections/rebuilds", json!({})).await;
    assert_eq!((&rebuilt["state"], &rebuilt["attempts"]), (&json!("ok"), &json!(1)), "{rebuilt}");
    assert_eq!(rebuilt["report"]["promoted"]["taken_over"], true, "{rebuilt}");
    let (types, actor) = trace(&contract, &rebuilt).await;
    assert_eq!(types, ["JobRequested", "JobStarted", "RebuildStarted", "ProjectionsPromoted", "JobEnded"]);
    assert_eq!((&actor["kind"], &actor["user_agent"]), (&json!("operator"), &json!("admin-api")));
    assert_eq!(actor["name"], rebuilt["operator"]);

    let back = run_job(&contract, "/projections/rollbacks", json!({})).await;
    assert_eq!((&back["state"], &back["report"]["to"][0]["generation"]), (&json!("ok"), &json!(1)), "{back}");
    // The request names no projections. The record names those that were switched back.
    assert_eq!(back["options"], json!({ "projections": ["read_model", "search_index"] }), "{back}");
    let only_search = json!({ "projections": ["search_index"] });
    let promoted = run_job(&contract, "/projections/promotions", only_search).await;
    let promoted = &promoted["report"]["to"];
    assert_eq!(promoted, &json!([{ "projection": "search_index", "generation": 2 }]));

    let rollback = json!({ "projections": ["read_model"], "reason": "x", "execute": true });
    assert_problem(&post(&contract, "/projections/rollbacks", &rollback).await, 409, "action_not_possible");
    // A rollback that names no projections switches back those that the last promotion switched.
    let plan = post(&contract, "/projections/rollbacks", &json!({})).await.expect(200).json();
    assert_eq!(plan["data"]["to"], json!([{ "projection": "search_index", "generation": 1 }]), "{plan}");
    let drop_live = json!({ "projections": ["read_model"], "generation": 1 });
    assert_problem(&post(&contract, "/projections/drops", &drop_live).await, 409, "action_not_possible");
    let drop = json!({ "projections": ["read_model"], "generation": 2 });
    // A projector works on a superseded generation for the time of --keep-previous, and meanwhile a drop fails.
    let dropped = eventually("the generation is dropped", async || {
        let job = run_job(&contract, "/projections/drops", drop.clone()).await;
        (job["state"] == "ok").then_some(job)
    })
    .await;
    let (types, _) = trace(&contract, &dropped).await;
    assert_eq!(types, ["JobRequested", "JobStarted", "ProjectionsDropped", "JobEnded"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_with_the_same_key_returns_the_same_job() {
    let contract = Contract::start().await;
    let body = json!({ "reason": "weekly", "execute": true });
    let verify = |key: &str, body: &Value| {
        let path = format!("{ADMIN}/audit/verifications");
        contract.client().post(path, body).header("idempotency-key", key)
    };
    let first = contract.send(verify("k1", &body)).await.expect(202);
    assert!(!first.has("idempotency-replayed"));
    let again = contract.send(verify("k1", &body)).await.expect(202);
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(again.header("location"), first.header("location"));
    let other_reason = json!({ "reason": "daily", "execute": true });
    assert_problem(&contract.send(verify("k1", &other_reason)).await, 422, "idempotency_key_reused");
    let other = contract.send(verify("k2", &body)).await.expect(202);
    assert_ne!(other.header("location"), first.header("location"));

    let newest = contract.get(format!("{ADMIN}/jobs?limit=1")).await.expect(200);
    assert_eq!(newest.json()["data"]["jobs"][0]["id"], other.json()["data"]["id"]);
    let cursor = newest.header("next-cursor").to_owned();
    let older = contract.get(format!("{ADMIN}/jobs?limit=1&cursor={cursor}")).await.expect(200);
    assert_eq!(older.json()["data"]["jobs"][0]["id"], first.json()["data"]["id"]);
    assert!(!older.has("next-cursor"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_changes_of_a_job_are_streamed_until_its_end() {
    let contract = Contract::start().await;
    contract.app_with_chat().await;
    let body = json!({ "reason": "a test", "execute": true });
    let requested = post(&contract, "/audit/verifications", &body).await.expect(202);
    let url = contract.client().url_of(&format!("{}/events", requested.header("location")));
    let states = tokio::task::spawn_blocking(move || {
        let mut stream = EventStream::open(&url, &[("Connection", "close")]);
        let mut states = Vec::new();
        while let Some(line) = stream.line() {
            if let Some(job) = line.strip_prefix("data: ") {
                let job: Value = serde_json::from_str(job).expect("JSON");
                states.push(job["state"].as_str().expect("a state").to_owned());
            }
        }
        states
    });
    let states = states.await.expect("the end of the stream");
    assert_eq!(states.last().map(String::as_str), Some("ok"), "{states:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_that_do_not_exist_are_not_resolved() {
    let contract = Contract::start().await;
    for (path, body) in [
        ("/dead-letters/retries", json!({ "position": 1 })),
        ("/dead-letters/discards", json!({ "position": 1 })),
        ("/dead-letters/acknowledgements", json!({ "position": 1 })),
        ("/dead-letters/acknowledgements", json!({ "position": 1, "reason": "x", "execute": true })),
        ("/dead-letters/retries", json!({ "stream": "app-x", "reason": "x", "execute": true })),
        ("/dead-letters/discards", json!({ "position": 1, "reason": "x", "execute": true })),
    ] {
        assert_problem(&post(&contract, path, &body).await, 409, "action_not_possible");
    }
    let unknown = "the log has no stream \"app-x\"";
    let retry = post(&contract, "/dead-letters/retries", &json!({ "stream": "app-x" })).await;
    assert_eq!(retry.json()["detail"], unknown);
    let list = contract.client().get(format!("{ADMIN}/dead-letters?stream=app-x"));
    assert_eq!(contract.send(list).await.expect(200).json()["diagnostics"][0]["message"], unknown);
    for path in ["/dead-letters/retries", "/dead-letters/acknowledgements"] {
        let dry_run = post(&contract, path, &json!({ "all": true })).await.expect(200).json();
        assert_eq!(dry_run["data"]["executed"], false);
        let job = run_job(&contract, path, json!({ "all": true })).await;
        assert_eq!((&job["state"], &job["report"]["executed"]), (&json!("ok"), &json!(true)), "{job}");
    }
}

/// Makes a signing key, and returns its path and the public key.
pub fn signing_key(folder: &Path) -> (String, String) {
    let key = folder.join("key").to_str().expect("text").to_owned();
    let output = program().args(["audit", "keygen", "--out", &key]).output().expect("the program runs");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let public_key = std::fs::read_to_string(format!("{key}.pub")).expect("a public key");
    (key, public_key)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_signed_and_verified_by_jobs() {
    let folder = folder();
    let (key, public_key) = signing_key(folder.path());
    let contract = Contract::start_with(|options| options.with("--audit-key", &key)).await;
    let token = contract.app().await;
    let chat = contract.post(format!("{}/chats", app_path(&token)), &json!({})).await.expect(201);
    let (_, position) = chat.header("consistency-token").split_once('.').expect("a tag and a position");
    let position = u64::from_str_radix(position, 36).expect("a position");
    let until = json!({ "until": position.to_string() });
    let signed = run_job(&contract, "/audit/checkpoints", until).await;
    assert_eq!((&signed["state"], &signed["report"]["checkpoint"]["events"]), (&json!("ok"), &json!(2)));
    let (types, _) = trace(&contract, &signed).await;
    assert_eq!(types, ["JobRequested", "JobStarted", "SigningKeyUsed", "JobEnded"]);

    let note = signed["report"]["note"].as_str().expect("a text");
    let against_checkpoint = json!({ "checkpoint": note, "public_key": public_key });
    let verified = run_job(&contract, "/audit/verifications", against_checkpoint).await;
    assert_eq!((&verified["state"], &verified["report"]["signature"]), (&json!("ok"), &json!("good")));
    let changed = note.replacen(&format!("position {position}"), &format!("position {}", position - 1), 1);
    let against_checkpoint = json!({ "checkpoint": changed, "public_key": public_key });
    let verified = run_job(&contract, "/audit/verifications", against_checkpoint).await;
    assert_eq!(verified["state"], "finding", "{verified}");
    let no_note = json!({ "checkpoint": "nonsense" });
    assert_problem(&post(&contract, "/audit/verifications", &no_note).await, 409, "action_not_possible");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_refusal_of_a_malformed_action_names_the_field() {
    let contract = Contract::start().await;
    for (path, body, field) in [
        ("/projections/rebuilds", json!({ "execute": true }), "`reason`"),
        ("/projections/rebuilds", json!({ "execute": true, "reason": "  " }), "`reason`"),
        ("/projections/rebuilds", json!({ "reason": "x".repeat(1_001) }), "`reason`"),
        ("/projections/rebuilds", json!({ "execute": "yes" }), "`execute`"),
        ("/projections/rebuilds", json!({ "reason": 5 }), "`reason`"),
        ("/projections/rebuilds", json!({ "from_scrach": true }), "`from_scrach`"),
        ("/projections/rebuilds", json!({ "projections": ["all"] }), "`projections[0]`"),
        ("/projections/rebuilds", json!({ "projections": [] }), "`projections`"),
        ("/projections/rebuilds", json!({ "until": "soon" }), "`until`"),
        ("/projections/drops", json!({ "generation": -1 }), "`generation`"),
        ("/dead-letters/retries", json!({}), "`position`"),
        ("/dead-letters/discards", json!({}), "`position`"),
        ("/dead-letters/acknowledgements", json!({ "position": 1, "all": true }), "`position`"),
        ("/audit/verifications", json!({ "public_key": "x" }), "`public_key`"),
    ] {
        let refused = post(&contract, path, &body).await;
        assert_problem(&refused, 422, "body_invalid");
        let detail = refused.json()["detail"].as_str().expect("a detail").to_owned();
        assert!(detail.contains(field), "{path} {body}: {detail}");
    }
    assert_problem(&post(&contract, "/audit/checkpoints", &json!({})).await, 409, "action_not_possible");
    for id in ["x", "0199f3a2-5d3c-7c4e-9f6d-2b1a0c9e8f70"] {
        for path in [format!("{ADMIN}/jobs/{id}"), format!("{ADMIN}/jobs/{id}/events")] {
            assert_problem(&contract.get(path).await, 404, "job_not_found");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_who_may_only_read_sees_what_an_action_would_do() {
    let folder = folder();
    let file = folder.path().join("operators");
    let (alice, bob) = (add_operator(&file, "alice", "read,act"), add_operator(&file, "bob", "read"));
    let path = file.to_str().expect("text").to_owned();
    let contract = Contract::start_with(|options| options.with("--operators", &path)).await;
    let verify = |token: &str, body: Value| {
        let call = contract.client().post(format!("{ADMIN}/audit/verifications"), &body);
        call.header("authorization", &format!("Bearer {token}"))
    };
    let execute = json!({ "reason": "weekly", "execute": true });
    contract.send(verify(&bob, json!({}))).await.expect(200);
    assert_problem(&contract.send(verify(&bob, execute.clone())).await, 403, "operator_scope_missing");
    assert_problem(&contract.send(verify("x", execute.clone())).await, 403, "admin_token_wrong");
    let requested = contract.send(verify(&alice, execute)).await.expect(202).json();
    assert_eq!(
        (&requested["data"]["operator"], &requested["data"]["program"]),
        (&json!("alice"), &json!("admin-api"))
    );
}

/// Runs an operator command through a server, with `-o json`. Returns the exit code, the answer and the messages.
async fn run_at_server(url: &str, token: &str, arguments: &[&str]) -> (Option<i32>, Value, String) {
    let mut command = program();
    command.args(arguments).args(["--server", url, "-o", "json"]).env("CHAT_API_TOKEN", token);
    let output = tokio::task::spawn_blocking(move || command.output().expect("the program runs"));
    let output = output.await.expect("the end of the command");
    let answer = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output.status.code(), answer, String::from_utf8(output.stderr).expect("text"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_acts_through_a_server() {
    let (_folder, contract, alice) = start_with_operator().await;
    let url = contract.client().url_of("");
    let rebuild = ["projections", "rebuild", "--all"];
    let (code, planned, _) = run_at_server(&url, &alice, &rebuild).await;
    assert_eq!((code, planned["data"]["generations"].as_array().map(Vec::len)), (Some(0), Some(2)));

    let execute = ["projections", "rebuild", "--all", "--execute", "--reason", "a test"];
    let (code, done, messages) = run_at_server(&url, &alice, &execute).await;
    assert_eq!(code, Some(0), "{done} {messages}");
    assert_eq!(done["data"]["promoted"]["taken_over"], true, "{done}");
    let jobs = contract.client().get(format!("{ADMIN}/jobs"));
    let jobs =
        contract.send(jobs.header("authorization", &format!("Bearer {alice}"))).await.expect(200).json();
    assert_eq!(
        (&jobs["data"]["jobs"][0]["operator"], &jobs["data"]["jobs"][0]["reason"]),
        (&json!("alice"), &json!("a test"))
    );

    for (token, arguments, reason) in [
        ("x", &rebuild[..], "admin_token_wrong"),
        (alice.as_str(), &["dead-letters", "discard", "1"], "action_not_possible"),
        (alice.as_str(), &["projections", "drop", "--generation", "7"], "action_not_possible"),
        (alice.as_str(), &["projections", "rollback", "--execute"], "--reason is missing"),
        (alice.as_str(), &["dead-letters", "retry", "--stream", "app-x"], "the whole name of the stream"),
    ] {
        let (code, failed, _) = run_at_server(&url, token, arguments).await;
        let message = failed["diagnostics"][0]["message"].as_str().expect("a message");
        assert!(code == Some(2) && message.contains(reason), "{arguments:?}: {failed}");
    }
    for arguments in [&["dead-letters", "retry", "--all"][..], &["dead-letters", "acknowledge", "--all"]] {
        let arguments = [arguments, &["--execute", "--reason", "a test"]].concat();
        let (code, done, _) = run_at_server(&url, &alice, &arguments).await;
        assert_eq!((code, &done["data"]["executed"]), (Some(0), &json!(true)), "{done}");
    }
}

/// Runs an operator command through a server, without `-o json`. Returns the exit code, the answer and the messages.
async fn print_at_server(
    url: &str,
    token: Option<&str>,
    arguments: &[&str],
) -> (Option<i32>, String, String) {
    let mut command = program();
    command.args(arguments).args(["--server", url]);
    if let Some(token) = token {
        command.env("CHAT_API_TOKEN", token);
    }
    let output = tokio::task::spawn_blocking(move || command.output().expect("the program runs"));
    let output = output.await.expect("the end of the command");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_at_a_server_print_tables_unless_json_is_requested() {
    let (_folder, contract, alice) = start_with_operator().await;
    let url = contract.client().url_of("");
    for (arguments, expected) in [
        (&["projections", "rebuild", "--all"][..], "DISK (ESTIMATE)"),
        (
            &["projections", "rebuild", "--all", "--execute", "--reason", "a test"],
            "\nread_model: generations 1",
        ),
        (&["projections", "list"], "PROJECTION      STATE"),
        (&["projections", "rollback"], "readers see read_model 2, search_index 2, and would see"),
        (&["projections", "drop"], "there is nothing to drop\n"),
        (&["dead-letters", "retry", "--all"], "there are no dead letters\n"),
        (&["dead-letters", "list"], "read_model: 0 dead letters, 0 discarded"),
        (&["dead-letters", "acknowledge", "--all"], "every discarded event is acknowledged\n"),
    ] {
        let (code, answer, messages) = print_at_server(&url, Some(&alice), arguments).await;
        assert_eq!(code, Some(0), "{arguments:?}: {answer} {messages}");
        assert!(answer.contains(expected) && !answer.contains('{'), "{arguments:?}: {answer}");
    }
    let (code, listed, _) = run_at_server(&url, &alice, &["projections", "list"]).await;
    assert_eq!((code, &listed["data"]["generations"][0]["projection"]), (Some(0), &json!("read_model")));
    let (code, _, shown) = print_at_server(&url, Some(&alice), &["dead-letters", "show", "1"]).await;
    assert!(code == Some(2) && shown.contains("event_not_found"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_at_a_server_says_where_its_token_comes_from() {
    let folder = folder();
    let file = folder.path().join("operators");
    add_operator(&file, "alice", "read,act");
    let path = file.to_str().expect("text").to_owned();
    let contract = Contract::start_with(|options| options.with("--operators", &path)).await;
    let url = contract.client().url_of("");
    for (token, hint) in [
        (
            None,
            "Set CHAT_API_TOKEN to the token of an operator, or name a file that has it with --token-file",
        ),
        (Some("x"), "The token is that of CHAT_API_TOKEN"),
    ] {
        let (code, _, messages) = print_at_server(&url, token, &["projections", "list"]).await;
        assert!(code == Some(2) && messages.contains(hint), "{messages}");
        for command in
            ["operators add NAME --scope read,act --operators FILE", "operators list --operators FILE"]
        {
            assert!(messages.contains(command), "{messages}");
        }
    }
}
