//! A deployment, and requests to it whose responses are checked against its OpenAPI document.

use std::path::Path;
use std::sync::Mutex;

use http::Method;
use serde_json::{Value, json};

use crate::harness::api::{API, app_path, chat_path, create};
use crate::harness::client::{Call, Client, Reply};
use crate::harness::deployment::{Deployment, LockedLog};
use crate::harness::process::ProcessOptions;
use crate::openapi::Document;

/// A chat API, its client and its document.
pub struct Contract {
    deployment: Deployment,
    document: Document,
    /// The response to the last successful command. [`Self::get`] sends the consistency token of this response, and so
    /// does [`Self::post`] for a search.
    last_command: Mutex<Option<Reply>>,
}

/// A well-formed token that no app has.
pub const NO_APP: &str = "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz";

impl Contract {
    /// Starts the deployment of the suite.
    pub async fn start() -> Self {
        Self::start_with(|options| options).await
    }

    /// Starts the deployment of the suite with configured options.
    pub async fn start_with(configure: impl Fn(ProcessOptions) -> ProcessOptions) -> Self {
        let deployment = crate::deployment(configure).await;
        let document =
            Document::new(deployment.client().get("/openapi.json").send().await.expect(200).json());
        Self { deployment, document, last_command: Mutex::new(None) }
    }

    /// Returns the client. A response is checked against the document only if its request is sent with [`Self::send`].
    pub fn client(&self) -> &Client {
        self.deployment.client()
    }

    /// Requests a shutdown of all processes.
    pub fn terminate_all(&self) {
        for process in self.deployment.processes() {
            process.terminate();
        }
    }

    /// Returns the concatenated `/metrics` of all processes.
    pub async fn metrics_of_all(&self) -> String {
        let mut text = String::new();
        for process in self.deployment.processes() {
            let metrics = process.client().get("/metrics").send().await.expect(200);
            text.push_str(&String::from_utf8_lossy(&metrics.body));
        }
        text
    }

    /// Returns the folder of the data.
    pub fn folder(&self) -> &Path {
        self.deployment.folder()
    }

    /// Whether the positions of the log have no gaps.
    pub fn has_contiguous_positions(&self) -> bool {
        self.deployment.has_contiguous_positions()
    }

    /// Locks the log, so that nothing can be appended until the lock is released. Returns `None` for a log in
    /// KurrentDB, which can't be locked.
    pub async fn lock_log(&self) -> Option<LockedLog> {
        self.deployment.lock_log().await
    }

    /// Returns the OpenAPI document.
    pub fn document(&self) -> &Document {
        &self.document
    }

    /// Sends a request and checks the response against the document.
    pub async fn send(&self, call: Call<'_>) -> Reply {
        let reply = call.send().await;
        self.document.check(&reply);
        if reply.status.is_client_error() || reply.status.is_server_error() {
            check_problem(&reply);
        }
        let id = reply.header("x-request-id");
        assert!(!id.is_empty(), "an empty X-Request-Id");
        // The response to a command has a consistency token. The response to an operator action has none.
        let is_command =
            reply.method != Method::GET && !is_search(&reply.path) && reply.has("consistency-token");
        if is_command && reply.status.is_success() {
            *self.last_command.lock().expect("an unpoisoned mutex") = Some(reply.clone());
        }
        reply
    }

    /// Sends a `GET` with the consistency token of the last command, if there is one.
    pub async fn get(&self, path: impl Into<String>) -> Reply {
        self.send(self.after_the_last_command(self.client().get(path))).await
    }

    fn after_the_last_command<'a>(&self, call: Call<'a>) -> Call<'a> {
        let last_command = self.last_command.lock().expect("an unpoisoned mutex").clone();
        match &last_command {
            Some(command) => call.after(command),
            None => call,
        }
    }

    /// Sends a `GET` with the consistency token of an earlier response: to a command, or to a query.
    pub async fn get_after(&self, earlier: &Reply, path: impl Into<String>) -> Reply {
        self.send(self.client().get(path).after(earlier)).await
    }

    /// Sends a `POST` of JSON.
    pub async fn post(&self, path: impl Into<String>, body: &Value) -> Reply {
        let call = self.client().post(path, body);
        self.send(if is_search(&call.path) { self.after_the_last_command(call) } else { call }).await
    }

    /// Sends a `PUT` of JSON.
    pub async fn put(&self, path: impl Into<String>, body: &Value) -> Reply {
        self.send(self.client().put(path, body)).await
    }

    /// Sends a `DELETE`.
    pub async fn delete(&self, path: impl Into<String>) -> Reply {
        self.send(self.client().delete(path)).await
    }

    /// Sends a command that creates something, see [`create`].
    async fn create(&self, path: &str, body: &Value) -> Reply {
        create(|| self.post(path, body)).await
    }

    /// Creates an app and returns its token.
    pub async fn app(&self) -> String {
        let reply = self.create(&format!("{API}/apps"), &json!({ "name": "an app" })).await;
        reply.json()["data"]["app_token"].as_str().expect("a token").to_owned()
    }

    /// Creates an app with a chat and returns its token.
    pub async fn app_with_chat(&self) -> String {
        let token = self.app().await;
        self.create(&format!("{}/chats", app_path(&token)), &json!({})).await;
        token
    }

    /// Creates a message in chat 1.
    pub async fn message(&self, token: &str, body: &str) -> Reply {
        self.create(&format!("{}/messages", chat_path(token, 1)), &json!({ "body": body })).await
    }

    /// Creates messages in chat 1, and returns the response to the last one.
    pub async fn messages(&self, token: &str, bodies: &[&str]) -> Reply {
        let mut last = None;
        for body in bodies {
            last = Some(self.message(token, body).await);
        }
        last.expect("at least one body")
    }
}

/// Whether a path is that of a search: a query, although it may be sent with `POST`.
fn is_search(path: &str) -> bool {
    path.ends_with("/search")
}

/// Asserts that an error has the members of a problem, and no others. Skips responses of health routes and responses to
/// `HEAD`.
fn check_problem(reply: &Reply) {
    if matches!(reply.path.as_str(), "/readyz" | "/health") || reply.method == Method::HEAD {
        return;
    }
    let request_line = format!("{} {}", reply.method, reply.path);
    assert_eq!(reply.header("content-type"), "application/problem+json", "{request_line}");
    let problem = reply.json();
    let members: Vec<&String> = problem.as_object().expect("an object").keys().collect();
    let expected = ["code", "detail", "message", "request_id", "status", "title", "type"];
    let mut sorted = members.clone();
    sorted.sort();
    assert_eq!(sorted, expected, "{request_line}");
    let code = problem["code"].as_str().expect("a code");
    assert_eq!(problem["type"], format!("/docs/errors/{code}"), "{request_line}");
    assert_eq!(problem["status"], reply.status.as_u16(), "{request_line}");
    assert_eq!(problem["message"], problem["detail"], "{request_line}");
    assert_eq!(problem["request_id"], reply.header("x-request-id"), "{request_line}");
    assert_ne!(problem["title"], "", "{request_line}");
    assert_ne!(problem["detail"], "", "{request_line}");
}

/// Asserts that a response is a problem with this status and code.
#[track_caller]
pub fn assert_problem(reply: &Reply, status: u16, code: &str) {
    let found = (reply.status.as_u16(), reply.code());
    assert_eq!(found, (status, code.to_owned()), "{} {}: {:?}", reply.method, reply.path, reply.body);
}

/// Asserts that a text has the shape of a time in RFC 3339, UTC, with milliseconds.
#[track_caller]
pub fn assert_time(time: &Value) {
    let text = time.as_str().unwrap_or_else(|| panic!("{time} is no text"));
    let shape: String =
        text.chars().map(|character| if character.is_ascii_digit() { '0' } else { character }).collect();
    assert_eq!(shape, "0000-00-00T00:00:00.000Z", "{text}");
}

/// Checks the times of a body and replaces them by `T`, so that bodies can be compared.
pub fn without_times(mut body: Value) -> Value {
    match &mut body {
        Value::Object(members) => {
            for (name, value) in members.iter_mut() {
                if matches!(name.as_str(), "created_at" | "updated_at" | "at") {
                    assert_time(value);
                    *value = json!("T");
                } else {
                    *value = without_times(value.take());
                }
            }
        }
        Value::Array(elements) => {
            for element in elements {
                *element = without_times(element.take());
            }
        }
        _ => {}
    }
    body
}
