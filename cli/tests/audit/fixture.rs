//! Two logs with the same events, one in SQLite and one in Postgres. The events have fixed ids, times and actors.

use std::collections::HashMap;

use chat_domain::event::SchemaVersion;
use chat_domain::metadata::EventId;
use chat_domain::{ExpectedRevision, Position, Revision, Timestamp};
use chat_ports::event_store::{EventStore, NewEvent, StreamAppend};
use chat_testing::postgres::Postgres;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::deployment::folder;
use crate::harness::process::ProcessOptions;
use crate::operator::{CommandOutput, LogServer, TestLog};

/// The token of the app that most events belong to.
pub const APP: &str = "4Vq9xKbT2mWcJz8RfNs6HyPdGu3LaEtX5Q7C";

/// A log with the seed events. [`Fixture::project`] creates the read model.
pub struct Fixture {
    pub test_log: TestLog,
    /// The URL of the read model's database; `None` if the read model is a file.
    database: Option<String>,
    /// The positions of the seed events, in order.
    pub positions: Vec<Position>,
}

impl Fixture {
    /// Creates one fixture with embedded engines and one with servers.
    pub async fn on_each_engine() -> [Self; 2] {
        let embedded = TestLog { name: "embedded", folder: folder(), server: None };
        let at_scale = TestLog { name: "at_scale", folder: folder(), server: Some(LogServer::postgres()) };
        let database = Postgres::shared().create_database();
        [Self::new(embedded, None).await, Self::new(at_scale, Some(database)).await]
    }

    async fn new(test_log: TestLog, database: Option<String>) -> Self {
        let positions = append_seed_events(&*test_log.log().await).await;
        Self { test_log, database, positions }
    }

    /// Returns the position of a seed event, by its number from 1 in the list of `seed_events`.
    pub fn position(&self, number: usize) -> String {
        self.positions[number - 1].to_string()
    }

    /// Folds the log into the read model, and stops the projector.
    pub async fn project(&self) {
        let mut options =
            ProcessOptions::new("projector", self.test_log.folder.path()).with("--only", "read-model");
        if let Some(server) = &self.test_log.server {
            options = options.with("--event-store-url", &server.url());
        }
        if let Some(database) = &self.database {
            options = options.with("--database-url", database);
        }
        let mut projector = options.spawn();
        projector.wait_for_address().await;
        let last = self.positions.last().expect("a seed event");
        projector.wait_until_folded(last.get()).await;
        projector.shut_down().await;
    }

    /// Runs an `audit` command on the log and the read model.
    pub fn audit(&self, arguments: &[&str]) -> CommandOutput {
        let mut full_arguments = vec!["audit"];
        full_arguments.extend(arguments);
        if let Some(database) = &self.database {
            full_arguments.extend(["--database-url", database]);
        }
        self.test_log.run(&full_arguments)
    }

    /// Runs an `audit` command and returns the data of its JSON output.
    pub fn data(&self, arguments: &[&str]) -> Value {
        let output = self.audit(&[arguments, &["-o", "json"]].concat()).expect(0);
        serde_json::from_str::<Value>(&output.stdout).expect("JSON")["data"].take()
    }

    /// Compares an output with its snapshot.
    #[track_caller]
    pub fn check_snapshot(&self, name: &str, output: &CommandOutput) {
        insta::assert_snapshot!(
            format!("{}_{name}", self.test_log.name),
            output.redacted(&self.test_log, &[])
        );
    }
}

struct SeedEvent {
    stream: String,
    event_type: &'static str,
    data: String,
    actor: Value,
    /// The causation id.
    request: &'static str,
    /// The correlation id.
    trace: &'static str,
}

/// Creates an event whose request is a trace of its own.
fn seed_event(
    stream: &str,
    event_type: &'static str,
    data: &Value,
    actor: &Value,
    request: &'static str,
) -> SeedEvent {
    let (stream, data, actor) = (stream.to_owned(), data.to_string(), actor.clone());
    SeedEvent { stream, event_type, data, actor, request, trace: request }
}

/// Twelve events, one a minute from 14:13:20 on 2026-09-21.
fn seed_events() -> Vec<SeedEvent> {
    let (app, chat, other_chat) = (format!("app-{APP}"), format!("chat-{APP}-1"), format!("chat-{APP}-2"));
    let agent = "curl/8.7.1 \u{1b}[31m";
    let anonymous = json!({ "kind": "anonymous", "address": "203.0.113.5", "user_agent": agent });
    let client = json!({ "kind": "app", "address": "10.0.0.7", "user_agent": "support-desk/2.1" });
    let stranger = json!({ "kind": "app", "address": "198.51.100.9", "user_agent": "python-requests/2.32" });
    let alice = json!({ "kind": "operator", "name": "alice@ops-1", "user_agent": "chat-api/0.1.0" });
    let body = |number: u64, text: &str| json!({ "message_number": number, "body": text });
    let rebuild = json!({
        "copies": [{ "projection": "read_model", "generation": 2 }, { "projection": "search_index", "generation": 2 }],
        "reason": "counts looked\nwrong"
    });
    let long = "The quick brown fox jumps over the lazy dog, again and again, until nobody looks any more.";
    let mut events = vec![
        seed_event(&app, "AppCreated", &json!({ "name": "support" }), &anonymous, "request-1"),
        seed_event(&app, "ChatCreated", &json!({ "chat_number": 1 }), &client, "request-2"),
        seed_event(&chat, "MessageCreated", &body(1, "Hello, Gr\u{fc}\u{df}e"), &client, "request-3"),
        seed_event(
            &chat,
            "MessageCreated",
            &body(2, "red \u{1b}[31m\nand \u{202e}backwards"),
            &client,
            "request-4",
        ),
        seed_event(&chat, "MessageCreated", &body(3, long), &client, "request-5"),
        seed_event(&app, "AppRenamed", &json!({ "name": "Support Desk" }), &client, "request-6"),
        seed_event(&chat, "MessageEdited", &body(1, "Hello again"), &client, "request-7"),
        seed_event(&chat, "MessageDeleted", &json!({ "message_number": 2 }), &stranger, "request-8"),
        seed_event(&chat, "MessageDeleted", &json!({ "message_number": 3 }), &stranger, "request-9"),
        seed_event("chat-operations", "RebuildStarted", &rebuild, &alice, "request-10"),
        seed_event(&app, "ChatCreated", &json!({ "chat_number": 2 }), &client, "request-11"),
        seed_event(&other_chat, "MessageCreated", &body(1, "torn"), &client, "request-12"),
    ];
    for deletion in &mut events[7..9] {
        deletion.trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    }
    // The last event can't be decoded, because its payload is cut.
    events[11].data.truncate(r#"{"body":"torn"#.len());
    events
}

async fn append_seed_events(log: &dyn EventStore) -> Vec<Position> {
    let mut revisions: HashMap<String, u64> = HashMap::new();
    let mut positions = Vec::new();
    for (index, event) in seed_events().into_iter().enumerate() {
        let number = u64::try_from(index).expect("few") + 1;
        let revision = revisions.entry(event.stream.clone()).or_default();
        let metadata = json!({
            "command": "Test", "actor": event.actor, "correlation_id": event.trace, "causation_id": event.request,
        });
        let append = StreamAppend {
            stream: event.stream.as_str().into(),
            expected_revision: ExpectedRevision::from_last_revision(
                revision.checked_sub(1).map(Revision::new),
            ),
            events: vec![NewEvent {
                id: EventId::new(Uuid::from_u128(u128::from(number))),
                event_type: event.event_type,
                schema_version: SchemaVersion::FIRST,
                recorded_at: Timestamp::from_millis(
                    1_790_000_000_000 + i64::try_from(index).expect("few") * 60_000,
                ),
                data: event.data,
                metadata: metadata.to_string().into(),
            }],
        };
        *revision += 1;
        positions.push(log.append(vec![append]).await.remove(0).expect("an append").position);
    }
    positions
}
