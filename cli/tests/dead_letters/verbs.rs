//! An event that no program can read, from its being found to its being acknowledged, on both line-ups.

use chat_domain::Position;
use serde_json::Value;

use crate::damage::{append, created, log};
use crate::harness::api::{chat_path, create_app, create_chat, create_message, message_path};
use crate::harness::deadline::eventually;
use crate::shown::{name, redacted};
use crate::test_system::{TestSystem, Topology};

struct CommandScenario {
    stage: TestSystem,
    token: String,
    positions: Vec<(Position, &'static str)>,
}

impl CommandScenario {
    /// A chat with two messages, a third that can't be read, and a fourth that waits behind it.
    async fn begin(topology: Topology) -> Self {
        let stage = TestSystem::start(topology).await;
        let token = create_app(stage.client(), "an app").await;
        let chat = create_chat(stage.client(), &token).await;
        for body in ["one", "two"] {
            create_message(stage.client(), &token, chat, body).await;
        }
        let (log, stream) = (log(&stage).await, format!("chat-{token}-1"));
        let broken = append(&*log, &stream, "MessageCreated", r#"{"message_number":3,"body":7}"#).await;
        let behind = append(&*log, &stream, "MessageCreated", &created(4, "four")).await;
        let story = Self { stage, token, positions: vec![(broken, "BROKEN"), (behind, "BEHIND")] };
        story.reason_becomes(Some("2 events could not be applied and are parked")).await;
        story
    }

    fn broken(&self) -> String {
        self.positions[0].0.to_string()
    }

    /// Waits until the projecting process says this of both projections.
    async fn reason_becomes(&self, reason: Option<&str>) {
        let client = self.stage.projecting().client();
        eventually(&format!("{reason:?}"), async || {
            let ready = client.get("/readyz").send().await.json();
            let parts = ready["parts"].as_array()?.iter().filter(|part| !part["projection"].is_null());
            let reasons: Vec<&Value> = parts.map(|part| &part["reason"]).collect();
            (reasons.len() == 2 && reasons.iter().all(|given| given.as_str() == reason)).then_some(())
        })
        .await;
    }

    /// Carries a command out, and compares what it says.
    async fn says(&self, verb: &str, arguments: &[&str], code: i32) {
        let answer = self.stage.run(arguments).await.expect(code);
        let said = format!("{}---\n{}", answer.text(), answer.stderr());
        let said = redacted(&self.stage, &self.token, &self.positions, &said);
        insta::assert_snapshot!(format!("{verb}_{}", name(&self.stage)), said);
    }
}

async fn a_broken_event_is_dealt_with(topology: Topology) {
    let story = CommandScenario::begin(topology).await;
    let broken = story.broken();
    story.says("list", &["dead-letters", "list"], 1).await;
    story.says("list_all", &["dead-letters", "list", "--all", "--projection", "read-model"], 1).await;
    story.says("show", &["dead-letters", "show", &broken], 0).await;
    story.says("retry_dry_run", &["dead-letters", "retry", &broken], 1).await;
    story.says("no_reason", &["dead-letters", "retry", "--all", "--execute"], 2).await;
    let retry = ["dead-letters", "retry", &broken, "--execute", "--reason", "just in case"];
    story.says("retry", &retry, 1).await;

    let behind = story.positions[1].0.to_string();
    story.says("discard_behind", &["dead-letters", "discard", &behind], 2).await;
    story.says("discard_dry_run", &["dead-letters", "discard", &broken, "--dry-run"], 0).await;
    story.reason_becomes(Some("2 events could not be applied and are parked")).await;
    let discard = ["dead-letters", "discard", &broken, "--execute", "--reason", "it holds no text"];
    story.says("discard", &discard, 0).await;
    story.reason_becomes(Some("1 events were discarded and not acknowledged")).await;

    let client = story.stage.client();
    let path = |number| message_path(&story.token, 1, number);
    for query in story.stage.clients() {
        assert_eq!(query.get(path(4)).send().await.expect(200).json()["body"], "four");
        assert_eq!(query.get(path(3)).send().await.expect(404).code(), "message_not_found");
    }
    let fifth = create_message(client, &story.token, 1, "five").await;
    let chat = client.get(chat_path(&story.token, 1)).after(&fifth).send().await.expect(200).json();
    assert_eq!(chat["message_count"], 4, "the discarded one does not count: {chat}");

    story.says("list_discarded", &["dead-letters", "list"], 1).await;
    story.says("acknowledge_dry_run", &["dead-letters", "acknowledge", "--all"], 0).await;
    let acknowledge = ["dead-letters", "acknowledge", &broken, "--execute", "--reason", "the app was told"];
    story.says("acknowledge", &acknowledge, 0).await;
    story.reason_becomes(None).await;
    story.says("list_nothing", &["dead-letters", "list"], 0).await;
    story.says("show_acknowledged", &["dead-letters", "show", &broken], 0).await;
    let listed = story.stage.run_json(&["dead-letters", "list", "--all"]).await;
    assert_eq!((listed["version"].as_u64(), listed["status"].as_str()), (Some(1), Some("ok")));
    let states: Vec<_> =
        listed["data"]["letters"].as_array().expect("letters").iter().map(|of| &of["state"]).collect();
    assert_eq!(states, ["acknowledged", "acknowledged"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_event_is_dealt_with_where_everything_is_one_process() {
    a_broken_event_is_dealt_with(Topology::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_event_is_dealt_with_at_scale() {
    a_broken_event_is_dealt_with(Topology::AtScale).await;
}
