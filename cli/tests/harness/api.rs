//! Shortcuts for paths and requests that many tests use.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::client::{Client, Reply};
use super::deadline::TIMEOUT;

/// The prefix of the paths of the command API and the query API.
pub const API: &str = "/api/v1";

/// The pause before a command is repeated.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

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

/// Whether a command was refused because the counters or the idempotency keys are unavailable. It was not executed then.
pub fn are_counters_unavailable(reply: &Reply) -> bool {
    reply.status == 503 && reply.code() == "counters_unavailable"
}

/// Sends a command that creates something, and repeats it while the counters are unavailable: on a busy machine, Redis
/// may not answer in time.
async fn create(client: &Client, path: &str, body: &Value) -> Reply {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let reply = client.post(path, body).send().await;
        if !are_counters_unavailable(&reply) || Instant::now() >= deadline {
            return reply.expect(201);
        }
        sleep(RETRY_PAUSE).await;
    }
}

/// Creates an app and returns its token.
pub async fn create_app(client: &Client, name: &str) -> String {
    let reply = create(client, &format!("{API}/apps"), &json!({ "name": name })).await;
    reply.json()["data"]["app_token"].as_str().expect("a token").to_owned()
}

/// Creates a chat and returns its number.
pub async fn create_chat(client: &Client, token: &str) -> u64 {
    let reply = create(client, &format!("{}/chats", app_path(token)), &json!({})).await;
    number(&reply.json(), "chat_number")
}

/// Creates a message.
pub async fn create_message(client: &Client, token: &str, chat: u64, body: &str) -> Reply {
    create(client, &format!("{}/messages", chat_path(token, chat)), &json!({ "body": body })).await
}
