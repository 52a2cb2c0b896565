//! Shortcuts for paths and requests that many tests use.

use serde_json::{Value, json};

use super::client::{Client, Reply};
use super::deadline::eventually;

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

/// Whether a command was refused because the counters or the idempotency keys are unavailable. A command that is
/// refused for this reason was not executed.
pub fn are_counters_unavailable(reply: &Reply) -> bool {
    reply.status == 503 && reply.code() == "counters_unavailable"
}

/// Sends a command that creates something, and repeats it while the counters are unavailable: on a busy machine, Redis
/// may not answer in time.
pub async fn create<F: Future<Output = Reply>>(send: impl Fn() -> F) -> Reply {
    eventually("the counters are available", async || {
        let reply = send().await;
        (!are_counters_unavailable(&reply)).then_some(reply)
    })
    .await
    .expect(201)
}

/// Creates an app and returns its token.
pub async fn create_app(client: &Client, name: &str) -> String {
    let reply = create(|| client.post(format!("{API}/apps"), &json!({ "name": name })).send()).await;
    reply.json()["data"]["app_token"].as_str().expect("a token").to_owned()
}

/// Creates a chat and returns its number.
pub async fn create_chat(client: &Client, token: &str) -> u64 {
    let reply = create(|| client.post(format!("{}/chats", app_path(token)), &json!({})).send()).await;
    number(&reply.json(), "chat_number")
}

/// Creates a message.
pub async fn create_message(client: &Client, token: &str, chat: u64, body: &str) -> Reply {
    let path = format!("{}/messages", chat_path(token, chat));
    create(|| client.post(&path, &json!({ "body": body })).send()).await
}

/// Waits until `/readyz` says that this part is down, for a reason that contains all `words`. Returns the body of the
/// response. On a busy machine, the part may first be down for another reason: it does not answer in time.
pub async fn wait_until_down(client: &Client, part: &str, words: &[&str]) -> Value {
    eventually(&format!("{part} is down: {words:?}"), async || {
        let reply = client.get("/readyz").try_send().await.ok()?;
        let health = reply.json();
        let parts = health["parts"].as_array()?;
        let down = parts.iter().find(|entry| entry["name"] == part && entry["status"] == "down")?;
        let reason = down["reason"].as_str()?;
        (reply.status == 503 && words.iter().all(|word| reason.contains(word))).then_some(health)
    })
    .await
}

/// Waits until the event store is down, as [`wait_until_down`] does, and returns the reason.
pub async fn wait_until_event_store_is_down(client: &Client, words: &[&str]) -> String {
    let health = wait_until_down(client, "event_store", words).await;
    let mut parts = health["parts"].as_array().expect("parts").iter();
    let event_store = parts.find(|part| part["name"] == "event_store").expect("the event store");
    event_store["reason"].as_str().expect("a reason").to_owned()
}
