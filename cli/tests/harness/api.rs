//! Shortcuts for paths and requests that many tests use.

use serde_json::{Value, json};

use super::client::{Client, Reply};

/// The prefix of the paths of the command API and the query API.
pub const API: &str = "/api/v1";

/// Returns the path of an app.
pub fn app_path(token: &str) -> String {
    format!("{API}/apps/{token}")
}

/// Returns the path of a chat.
pub fn chat_path(token: &str, chat: u64) -> String {
    format!("{}/chats/{chat}", app_path(token))
}

/// Returns the path of a message.
pub fn message_path(token: &str, chat: u64, message: u64) -> String {
    format!("{}/messages/{message}", chat_path(token, chat))
}

/// Returns a number of a JSON body.
#[track_caller]
pub fn number(body: &Value, member: &str) -> u64 {
    body[member].as_u64().unwrap_or_else(|| panic!("no number {member} in {body}"))
}

/// Creates an app and returns its token.
pub async fn create_app(client: &Client, name: &str) -> String {
    let reply = client.post(format!("{API}/apps"), &json!({ "name": name })).send().await.expect(201);
    reply.json()["data"]["app_token"].as_str().expect("a token").to_owned()
}

/// Creates a chat and returns its number.
pub async fn create_chat(client: &Client, token: &str) -> u64 {
    let reply = client.post(format!("{}/chats", app_path(token)), &json!({})).send().await.expect(201);
    number(&reply.json(), "chat_number")
}

/// Creates a message.
pub async fn create_message(client: &Client, token: &str, chat: u64, body: &str) -> Reply {
    let path = format!("{}/messages", chat_path(token, chat));
    client.post(path, &json!({ "body": body })).send().await.expect(201)
}
