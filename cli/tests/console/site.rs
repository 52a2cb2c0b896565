//! A server with content for the console's pages, and pages to test.

use std::path::PathBuf;

use chat_domain::event::SchemaVersion;
use chat_domain::metadata::EventId;
use chat_domain::{ExpectedRevision, Metadata, Timestamp};
use chat_ports::event_store::{EventStore as _, NewEvent, StreamAppend, StreamRead};
use chat_sqlite::SqliteEventStore;
use chat_testing::browser::{Browser, Window};
use serde_json::json;
use tempfile::TempDir;
use uuid::Uuid;

use crate::harness::api::{chat_path, create_app, create_chat, message_path};
use crate::harness::client::Client;
use crate::harness::deadline::eventually;
use crate::harness::deployment::{Deployment, folder};
use crate::harness::process::{ProcessOptions, program};

/// The key Enter in WebDriver.
pub const ENTER: &str = "\u{E007}";

/// Texts that would act as HTML, scripts, templates or direction controls if a page did not escape them.
pub const HOSTILE: [&str; 4] = [
    "<img src=x onerror=\"document.title='changed'\"><script>document.title='changed'</script>",
    "\"'><svg onload=document.title='changed'>",
    "javascript:document.title='changed'",
    "\u{202e}reversed\u{2066} {{ 7 * 7 }} &lt;b&gt;",
];

/// The position of the dead letter of [`Site::with_dead_letter`].
pub const DEAD_LETTER: u64 = 10;

/// A running server with an app, two chats, and messages that were created, edited and deleted.
pub struct Site {
    deployment: Deployment,
    pub url: String,
    pub token: String,
    _key_folder: TempDir,
    /// The file of the public key of the server's checkpoints.
    pub public_key: PathBuf,
}

impl Site {
    pub async fn start() -> Self {
        Self::start_with(|options| options).await
    }

    /// Starts a server with more options.
    pub async fn start_with(configure: impl Fn(ProcessOptions) -> ProcessOptions) -> Self {
        let key_folder = folder();
        let key = key_folder.path().join("key");
        let made = program().args(["audit", "keygen", "--out"]).arg(&key).output().expect("it runs");
        assert!(made.status.success(), "{made:?}");
        let key_text = key.to_str().expect("text");
        let configure = |options: ProcessOptions| configure(options.with("--audit-key", key_text));
        let deployment = Deployment::serve_with(configure).await;
        let client = deployment.client();
        let token = create_app(client, HOSTILE[0]).await;
        for _ in 0..2 {
            create_chat(client, &token).await;
        }
        for text in HOSTILE {
            let message =
                json!({ "body": text, "sender": { "id": "u-1", "name": text }, "data": { "x": text } });
            client.post(format!("{}/messages", chat_path(&token, 1)), &message).send().await.expect(201);
        }
        let edit = json!({ "body": "edited <b>text</b>" });
        client.put(message_path(&token, 1, 2), &edit).send().await.expect(200);
        client.delete(message_path(&token, 1, 3)).send().await.expect(204);
        eventually("the read model has the deletion", async || {
            let reply = client.get(message_path(&token, 1, 3)).send().await;
            (reply.status == 410).then_some(())
        })
        .await;
        let url = client.url_of("");
        let public_key = key.with_extension("pub");
        Self { deployment, url, token, _key_folder: key_folder, public_key }
    }

    /// Starts a server whose second chat has an event of a type that no program knows.
    pub async fn with_dead_letter() -> Self {
        let site = Self::start().await;
        let log = SqliteEventStore::open(&site.deployment.folder().join("events.db")).expect("the log");
        let stream = format!("chat-{}-2", site.token);
        let last = log.read_stream(StreamRead::last_event(stream.as_str())).await.expect("a stream").pop();
        let event = NewEvent {
            id: EventId::new(Uuid::new_v4()),
            event_type: "MessagePinned",
            schema_version: SchemaVersion::FIRST,
            recorded_at: Timestamp::from_millis(1_790_000_000_000),
            data: "{\"message_number\":1}".to_owned(),
            metadata: serde_json::to_string(&Metadata::default()).expect("JSON").into(),
        };
        let expected_revision = ExpectedRevision::from_last_revision(last.map(|event| event.revision));
        let append = StreamAppend { stream: stream.into(), expected_revision, events: vec![event] };
        let appended = log.append(vec![append]).await.remove(0).expect("an append");
        assert_eq!(appended.position.get(), DEAD_LETTER);
        site.deployment.processes()[0].wait_until_folded(DEAD_LETTER).await;
        site
    }

    pub fn client(&self) -> &Client {
        self.deployment.client()
    }

    /// The address of a page.
    pub fn page(&self, path: &str) -> String {
        format!("{}/console{path}", self.url)
    }

    /// Requests a verification of the log, and returns the path of the job's page below `/console` when it has ended.
    pub async fn ended_job(&self) -> String {
        let action = json!({ "execute": true, "reason": "of a test" });
        let requested = self.client().post("/admin/v1/audit/verifications", &action).send().await.expect(202);
        let location = requested.header("location").to_owned();
        eventually("the job has ended", async || {
            let job = self.client().get(location.as_str()).send().await.expect(200).json();
            job["data"]["ended_at"].is_string().then_some(())
        })
        .await;
        location.replace("/admin/v1", "")
    }
}

/// Opens a window of the shared browser.
pub async fn open_window() -> Window {
    Browser::shared().open_window().await
}

/// Pages of a site with a dead letter, below `/console`, each with a text that it must show.
pub const PAGES: [(&str, &str); 23] = [
    ("", "need attention"),
    ("/events", "MessageCreated"),
    ("/events?type=MessageDeleted&app=1", "MessageDeleted"),
    ("/events/4", "Rows and documents"),
    ("/events/10", "The event is a dead letter"),
    ("/apps", HOSTILE[0]),
    ("/apps/1", "Chats"),
    ("/apps/1?at=3", "3"),
    ("/apps/1/chats/1", "edited <b>text</b>"),
    ("/apps/1/chats/1?at=5", "5"),
    ("/apps/1/chats/1/messages/2", "edited <b>text</b>"),
    ("/apps/1/chats/1/messages/2/diff?from=5&to=9", "edited"),
    ("/apps/1/chats/1/messages/3", "deleted"),
    ("/search", "Search"),
    ("/search?app=1&query=text", "1 hit"),
    ("/projections", "Generations"),
    ("/dead-letters", "MessagePinned"),
    ("/dead-letters/10", "What a retry would do"),
    ("/proofs", "Proofs"),
    ("/jobs", "Verification of the log"),
    ("/activity", "Activity"),
    ("/events/99", "No event has this position or id"),
    ("/sign-in", "need attention"),
];
