//! Tests of numbers under concurrency: clients of any process get 1..n, each number once.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod harness;

use std::sync::Arc;

use harness::api::{app_path, chat_path, create_app, create_chat, number};
use harness::client::Client;
use harness::deployment::{Deployment, folder};
use harness::process::ProcessOptions;
use serde_json::json;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

const CLIENTS: u64 = 200;

/// Posts to a path from many clients at once, distributed over `addresses`. Returns the sorted numbers of the responses.
async fn post_at_once(addresses: &[&str], path: &str, member: &'static str) -> Vec<u64> {
    let start = Arc::new(Barrier::new(usize::try_from(CLIENTS).expect("a count")));
    let mut posts = JoinSet::new();
    for (client, address) in (0..CLIENTS).zip(addresses.iter().cycle()) {
        let (own_client, path, start) = (Client::new(address), path.to_owned(), Arc::clone(&start));
        posts.spawn(async move {
            start.wait().await;
            let body = json!({ "body": format!("client {client}") });
            let reply = own_client.post(path, &body).send().await.expect(201);
            number(&reply.json(), member)
        });
    }
    let mut numbers = posts.join_all().await;
    numbers.sort_unstable();
    numbers
}

fn one_to_n() -> Vec<u64> {
    (1..=CLIENTS).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_creating_messages_in_one_chat_at_once_get_consecutive_numbers() {
    let deployment = Deployment::serve().await;
    let client = deployment.client();
    let token = create_app(client, "an app").await;
    let chat = create_chat(client, &token).await;
    let path = format!("{}/messages", chat_path(&token, chat));
    let numbers = post_at_once(&[deployment.processes()[0].url()], &path, "message_number").await;
    assert_eq!(numbers, one_to_n());
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_creating_chats_in_one_app_at_once_get_consecutive_numbers() {
    let deployment = Deployment::serve().await;
    let token = create_app(deployment.client(), "an app").await;
    let path = format!("{}/chats", app_path(&token));
    let numbers = post_at_once(&[deployment.processes()[0].url()], &path, "chat_number").await;
    assert_eq!(numbers, one_to_n());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_on_one_folder_share_the_numbers() {
    let folder = folder();
    let first = ProcessOptions::new("command-api", folder.path()).start().await;
    let second = ProcessOptions::new("command-api", folder.path()).start().await;
    let addresses = [first.url(), second.url()];
    let token = create_app(&first.client(), "an app").await;

    let chats = format!("{}/chats", app_path(&token));
    assert_eq!(post_at_once(&addresses, &chats, "chat_number").await, one_to_n());
    let messages = format!("{}/messages", chat_path(&token, 7));
    assert_eq!(post_at_once(&addresses, &messages, "message_number").await, one_to_n());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_message_is_stored_under_the_number_of_its_response() {
    let deployment = Deployment::serve().await;
    let client = deployment.client();
    let token = create_app(client, "an app").await;
    let chat = create_chat(client, &token).await;
    let mut posts = JoinSet::new();
    for text in 0..50 {
        let (client, path) = (client.clone(), format!("{}/messages", chat_path(&token, chat)));
        posts.spawn(async move {
            let body = format!("text {text}");
            let reply = client.post(path, &json!({ "body": body })).send().await.expect(201);
            (reply, body)
        });
    }
    for (created, body) in posts.join_all().await {
        let read = client.get(created.header("location")).after(&created).send().await.expect(200);
        assert_eq!(read.json()["body"], body);
    }
}
