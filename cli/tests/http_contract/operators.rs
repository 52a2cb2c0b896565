//! Tests of operators with tokens and scopes of their own.

use std::path::Path;

use serde_json::{Value, json};

use crate::contract::{Contract, assert_problem};
use crate::event_stream::EventStream;
use crate::harness::api::API;
use crate::harness::client::Reply;
use crate::harness::deadline::eventually;
use crate::harness::deployment::folder;
use crate::harness::process::program;

/// Adds an operator to a file, and returns the token.
pub fn add_operator(file: &Path, name: &str, scopes: &str) -> String {
    let output = program()
        .args(["operators", "add", name, "--scope", scopes, "--operators"])
        .arg(file)
        .output()
        .expect("the program runs");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

async fn create_app(contract: &Contract, token: &str) -> Reply {
    let create = contract.client().post(format!("{API}/apps"), &json!({ "name": "first" }));
    contract.send(create.header("authorization", &format!("Bearer {token}"))).await
}

async fn list_apps(contract: &Contract, token: &str) -> Reply {
    let list = contract.client().get(format!("{API}/apps"));
    contract.send(list.header("authorization", &format!("Bearer {token}"))).await
}

/// Lists the apps until the response has this status.
async fn list_apps_until(contract: &Contract, token: &str, status: u16) {
    eventually(&format!("the apps are answered with {status}"), async || {
        (list_apps(contract, token).await.status.as_u16() == status).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_have_tokens_and_scopes_of_their_own() {
    let folder = folder();
    let file = folder.path().join("operators");
    let alice = add_operator(&file, "alice", "read,act");
    let bob = add_operator(&file, "bob", "read");
    let path = file.to_str().expect("text").to_owned();
    let contract = Contract::start_with(|options| {
        options.with("--operators", &path).with("--app-creation", "admin").with("--admin-token", "of-admin")
    })
    .await;
    for (token, name) in [(alice.as_str(), "alice"), ("of-admin", "admin")] {
        let created = create_app(&contract, token).await.expect(201);
        let app = created.json()["data"]["app_token"].as_str().expect("a token").to_owned();
        let list = format!("/admin/v1/audit/events?app={app}&type=AppCreated");
        let list = contract.client().get(list).header("authorization", &format!("Bearer {bob}"));
        let events = contract.send(list.after(&created)).await.expect(200).json();
        let actor = &events["data"]["events"][0]["metadata"]["actor"];
        assert_eq!((&actor["kind"], &actor["name"]), (&json!("admin"), &json!(name)), "{events}");
    }
    assert_problem(&create_app(&contract, &bob).await, 403, "operator_scope_missing");
    list_apps(&contract, &bob).await.expect(200);
    assert_problem(&list_apps(&contract, "chatop_x").await, 403, "admin_token_wrong");
    assert_problem(&contract.get(format!("{API}/apps")).await, 401, "admin_token_missing");
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_the_file_of_operators_apply_without_a_restart() {
    let folder = folder();
    let file = folder.path().join("operators");
    let alice = add_operator(&file, "alice", "read");
    let path = file.to_str().expect("text").to_owned();
    let contract = Contract::start_with(|options| options.with("--operators", &path)).await;
    list_apps(&contract, &alice).await.expect(200);
    let bob = add_operator(&file, "bob", "read");
    list_apps_until(&contract, &bob, 200).await;

    let text = std::fs::read_to_string(&file).expect("a file");
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with("alice")).collect();
    std::fs::write(&file, lines.join("\n")).expect("a file");
    list_apps_until(&contract, &alice, 403).await;
    list_apps_until(&contract, &bob, 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_ends_when_the_token_of_its_operator_is_withdrawn() {
    let folder = folder();
    let file = folder.path().join("operators");
    let (alice, bob) = (add_operator(&file, "alice", "read"), add_operator(&file, "bob", "read"));
    let path = file.to_str().expect("text").to_owned();
    let contract = Contract::start_with(|options| options.with("--operators", &path)).await;
    let app = contract.app_with_chat().await;
    let url = contract.client().url_of(&format!("/admin/v1/audit/tail?app={app}&type=MessageCreated"));
    let open = |token: &str| {
        let authorization = format!("Bearer {token}");
        EventStream::open(&url, &[("Authorization", &authorization), ("Connection", "close")])
    };
    let (mut of_alice, mut of_bob) = (open(&alice), open(&bob));
    contract.message(&app, "one").await;
    assert!(of_alice.next().is_some() && of_bob.next().is_some());

    let text = std::fs::read_to_string(&file).expect("a file");
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with("alice")).collect();
    std::fs::write(&file, lines.join("\n")).expect("a file");
    list_apps_until(&contract, &alice, 403).await;
    contract.message(&app, "two").await;
    assert!(of_bob.next().is_some());
    assert_eq!(of_alice.next(), None);
}

#[test]
fn an_operator_is_added_once_and_listed() {
    let folder = folder();
    let file = folder.path().join("operators");
    let token = add_operator(&file, "alice", "read,act");
    let text = std::fs::read_to_string(&file).expect("a file");
    assert!(text.contains("\nalice read,act sha256:") && !text.contains(&token), "{text}");
    for (name, scopes, reason) in [
        ("alice", "read", "line 2 has this name already"),
        ("admin", "read", "belongs to the admin token"),
        ("bob", "act", "`act` needs `read`"),
    ] {
        let add = ["operators", "add", name, "--scope", scopes, "--operators"];
        let output = program().args(add).arg(&file).output().expect("the program runs");
        assert_eq!(output.status.code(), Some(2));
        let message = String::from_utf8(output.stderr).expect("text");
        assert!(message.contains(reason), "{message}");
    }
    assert_eq!(std::fs::read_to_string(&file).expect("a file"), text);
    let list = ["operators", "list", "-o", "json", "--operators"];
    let output = program().args(list).arg(&file).output().expect("the program runs");
    let list: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(list["data"], json!({ "operators": [{ "name": "alice", "scopes": "read,act" }] }));
}

#[test]
fn a_server_with_a_bad_file_of_operators_does_not_start() {
    let folder = folder();
    let file = folder.path().join("operators");
    std::fs::write(&file, "# operators\nalice write sha256:00\n").expect("a file");
    let options = ["serve", "--listen-addr", "127.0.0.1:0", "--operators"];
    let output = program().args(options).arg(&file).current_dir(folder.path()).output().expect("it ends");
    assert_eq!(output.status.code(), Some(2));
    let message = String::from_utf8(output.stderr).expect("text");
    assert!(message.contains("line 2: the scopes are `read` or `read,act`"), "{message}");
    assert!(!folder.path().join("data").exists());
}
