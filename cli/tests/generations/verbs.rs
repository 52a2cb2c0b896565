//! Output of each projections command, on both topologies.

use crate::harness::api::{create_app, create_chat, create_message};
use crate::harness::deadline::eventually;
use crate::test_system::{CommandOutput, TestSystem, Topology};

/// Takes out what differs from run to run: the folder, the server, the token, times, sizes, rates, large numbers.
fn redacted(stage: &TestSystem, token: &str, text: &str) -> String {
    let text = text.replace(&stage.folder().display().to_string(), "[FOLDER]").replace(token, "[TOKEN]");
    let text = text.replace(&format!("{}…", &token[..4]), "[TOKEN]…");
    let mut shown = String::new();
    for line in text.lines() {
        let words: Vec<&str> = line.trim().split(' ').filter(|word| !word.is_empty()).collect();
        let indent = line.len() - line.trim_start().len();
        let words: Vec<String> = words.iter().map(|word| redacted_word(word)).collect();
        let line = without_sizes(&words).join(" ");
        shown += &" ".repeat(indent);
        shown += &line;
        shown.push('\n');
    }
    shown
}

/// `116 KiB` is `[SIZE]`.
fn without_sizes(words: &[String]) -> Vec<&str> {
    let mut shown: Vec<&str> = Vec::new();
    for word in words {
        if ["B", "KiB", "MiB"].contains(&word.as_str()) {
            shown.pop();
            shown.push("[SIZE]");
        } else {
            shown.push(word);
        }
    }
    shown
}

fn redacted_word(word: &str) -> String {
    let digits = word.chars().filter(char::is_ascii_digit).count();
    if word.starts_with("postgres://") {
        return "[DATABASE],".to_owned();
    }
    if word.len() > 20 && word.contains('T') && word.ends_with('Z') {
        return "[TIME]".to_owned();
    }
    if let Some((_, hash)) = word.split_once(':')
        && hash.len() == 64
    {
        return "[DIGEST]".to_owned();
    }
    if let Some(rate) = word.strip_suffix("/s")
        && rate.parse::<u64>().is_ok()
    {
        return "N/s".to_owned();
    }
    let number = word.trim_end_matches([',', '.', ';']);
    if digits > 1 && number.parse::<u64>().is_ok() {
        return word.replace(number, "N");
    }
    word.to_owned()
}

struct CommandScenario {
    stage: TestSystem,
    token: String,
    name: &'static str,
}

impl CommandScenario {
    async fn begin(topology: Topology) -> Self {
        let stage = TestSystem::start(topology).await;
        let token = create_app(stage.client(), "an app").await;
        let chat = create_chat(stage.client(), &token).await;
        for body in ["one", "two", "three"] {
            create_message(stage.client(), &token, chat, body).await;
        }
        let name = match topology {
            Topology::Embedded => "embedded",
            Topology::AtScale => "at_scale",
        };
        let story = Self { stage, token, name };
        story.settled().await;
        story
    }

    /// Waits until every live generation has a projector of its own that has folded everything.
    async fn settled(&self) {
        eventually("all generations that are live are kept", async || {
            let list = self.stage.run_json(&["projections", "list"]).await;
            let mut live =
                list["data"].as_array()?.iter().filter(|listed| listed["standing"] == "live").peekable();
            live.peek()?;
            live.all(|listed| {
                listed["state"] == "live" && listed["lag_ms"] == 0 && listed["events_per_second"] == 0
            })
            .then_some(())
        })
        .await;
    }

    fn show(&self, verb: &str, answer: &CommandOutput) {
        let (text, said) = (answer.text(), answer.stderr());
        let acts = |letter: char| letter != '\n' && (letter.is_control() || letter == '\u{202e}');
        assert!(!text.contains(acts), "it does something to a terminal: {text:?}");
        let notes: Vec<&str> = said
            .lines()
            .filter(|line| ["note", "warning", "chat-api"].iter().any(|of| line.starts_with(of)))
            .collect();
        let all =
            format!("exit code {}\n{text}--\n{}", answer.0.status.code().unwrap_or(-1), notes.join("\n"));
        insta::assert_snapshot!(format!("{verb}_{}", self.name), redacted(&self.stage, &self.token, &all));
    }

    async fn says(&self, verb: &str, code: i32, arguments: &[&str]) {
        let arguments: Vec<&str> = ["projections"].iter().chain(arguments).copied().collect();
        self.show(verb, &self.stage.run(&arguments).await.expect(code));
    }
}

async fn check_every_command(topology: Topology) {
    let story = CommandScenario::begin(topology).await;
    let reason = ["--execute", "--operator", "a tester", "--reason", "a test"];
    let with_reason = |verb: &[&'static str]| -> Vec<&str> { verb.iter().chain(&reason).copied().collect() };
    story.says("list", 0, &["list"]).await;
    story.says("rebuild_dry_run", 0, &["rebuild", "--all"]).await;
    story.says("rebuild_without_a_reason", 2, &["rebuild", "--all", "--execute"]).await;
    story.says("promote_nothing", 2, &["promote"]).await;
    story.says("rebuild", 0, &with_reason(&["rebuild", "--all"])).await;
    story.settled().await;
    story.says("rollback_dry_run", 0, &["rollback"]).await;
    story.says("rollback", 0, &with_reason(&["rollback"])).await;
    story.settled().await;
    story.says("promote_dry_run", 0, &["promote", "read-model"]).await;
    story.says("verify_sample", 0, &["verify", "read-model", "--sample", "2"]).await;
    story.says("verify_full", 0, &["verify", "search-index", "--full"]).await;

    // Somebody alters a row that readers see.
    story
        .stage
        .alter(1, "UPDATE messages SET body = 'altered\u{1b}[2J\u{9b}\u{202e}' WHERE number = 2")
        .await;
    story.says("verify_sample_finds", 1, &["verify", "read-model", "--sample", "2"]).await;
    story.says("verify_full_finds", 1, &["verify", "read-model", "--full"]).await;
    story.says("rebuild_differs", 1, &with_reason(&["rebuild", "read-model"])).await;
    story.says("diff", 1, &["diff", "read-model"]).await;
    story.says("promote", 0, &with_reason(&["promote", "read-model"])).await;
    story.settled().await;
    story.says("verify_after", 0, &["verify", "read-model", "--full"]).await;

    let drop = with_reason(&["drop", "--generation", "2"]);
    story.says("drop_dry_run", 0, &["drop"]).await;
    // The projectors of what was live before go on for a while.
    let dropped = eventually("nobody works on it any more", async || {
        let drop: Vec<&str> = ["projections"].iter().chain(&drop).copied().collect();
        Some(story.stage.run(&drop).await).filter(|answer| answer.0.status.code() == Some(0))
    });
    story.show("drop", &dropped.await);
    assert!(!story.stage.folder().join("search-index.2").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_verb_says_what_it_did_with_everything_embedded() {
    check_every_command(Topology::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_verb_says_what_it_did_at_scale() {
    check_every_command(Topology::AtScale).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_lacks_an_event_is_explained_by_the_event_it_lacks() {
    let story = CommandScenario::begin(Topology::Embedded).await;
    story.stage.alter(1, "DELETE FROM messages WHERE number = 3").await;
    let verified = story.stage.run_json(&["projections", "verify", "read-model", "--full"]).await;
    assert_eq!(verified["status"], "finding");
    let shown = &verified["data"]["shown"];
    assert_eq!(shown.as_array().map(Vec::len), Some(1), "{verified}");
    assert_eq!((shown[0]["message_number"].as_u64(), shown[0]["chat_number"].as_u64()), (Some(3), Some(1)));
    assert_eq!(shown[0]["first_event"]["event_type"], "MessageCreated");
    assert_eq!(shown[0]["first_event"]["position"], 5);
    assert_eq!(shown[0]["difference"], "only_second");
}
