//! Tests of the output of each `projections` command, on both topologies.

use chat_domain::{Position, Timestamp};
use chat_files::heartbeat::FileHeartbeats;
use chat_ports::clock;
use chat_ports::heartbeat::{Heartbeat, ProjectorRole};
use serde_json::Value;

use crate::harness::api::{create_app, create_chat, create_message};
use crate::harness::deadline::eventually;
use crate::harness::deployment::folder;
use crate::harness::process::{ProcessOptions, program};
use crate::test_system::{CommandOutput, TestSystem, Topology};

/// Replaces the parts of an output that differ between runs: folder, database URL, token, times, sizes, rates, digests,
/// and numbers of two or more digits.
fn redacted(system: &TestSystem, token: &str, text: &str) -> String {
    let text = text.replace(&system.folder().display().to_string(), "[FOLDER]").replace(token, "[TOKEN]");
    let text = text.replace(&format!("{}…", &token[..4]), "[TOKEN]…");
    let mut output = String::new();
    for line in text.lines() {
        let words: Vec<&str> = line.trim().split(' ').filter(|word| !word.is_empty()).collect();
        let indent = line.len() - line.trim_start().len();
        let words: Vec<String> = words.iter().map(|word| redacted_word(word)).collect();
        let line = with_redacted_sizes(&words).join(" ");
        output += &" ".repeat(indent);
        output += &line;
        output.push('\n');
    }
    output
}

/// Replaces sizes such as `116 KiB` by `[SIZE]`.
fn with_redacted_sizes(words: &[String]) -> Vec<&str> {
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
    system: TestSystem,
    token: String,
    topology_name: &'static str,
}

impl CommandScenario {
    async fn start(topology: Topology) -> Self {
        let system = TestSystem::start(topology).await;
        let token = create_app(system.client(), "an app").await;
        let chat = create_chat(system.client(), &token).await;
        for body in ["one", "two", "three"] {
            create_message(system.client(), &token, chat, body).await;
        }
        let topology_name = match topology {
            Topology::Embedded => "embedded",
            Topology::AtScale => "at_scale",
        };
        let scenario = Self { system, token, topology_name };
        scenario.wait_until_live_generations_are_folded().await;
        scenario
    }

    /// Waits until every live generation has a projector that has folded the whole log.
    async fn wait_until_live_generations_are_folded(&self) {
        eventually("each live generation has a projector that is up to date", async || {
            let list = self.system.run_json(&["projections", "list"]).await;
            let mut live = list["data"]["generations"]
                .as_array()?
                .iter()
                .filter(|listed| listed["standing"] == "live")
                .peekable();
            live.peek()?;
            live.all(|listed| {
                listed["state"] == "live" && listed["lag_ms"] == 0 && listed["events_per_second"] == 0
            })
            .then_some(())
        })
        .await;
    }

    /// Waits until every generation has folded the whole log, also the previous ones, which projectors keep up to date
    /// for a while.
    async fn wait_until_all_generations_are_folded(&self) {
        self.wait_until_live_generations_are_folded().await;
        eventually("each generation is up to date", async || {
            let list = self.system.run_json(&["projections", "list"]).await;
            let is_up_to_date = |listed: &Value| listed["lag_ms"] == 0;
            list["data"]["generations"].as_array()?.iter().all(is_up_to_date).then_some(())
        })
        .await;
    }

    /// Checks the form of an output, and compares the output with its snapshot.
    fn check_snapshot(&self, snapshot: &str, answer: &CommandOutput) {
        let (stdout, stderr) = (answer.text(), answer.stderr());
        assert!(!stdout.contains(&self.token), "a token is printed: {stdout}");
        let has_long_word = |line: &str| line.split(' ').any(|word| word.chars().count() > 76);
        let is_wide = |line: &&str| line.chars().count() > 80 && !has_long_word(line);
        assert_eq!(stdout.lines().find(is_wide), None, "{stdout}");
        let is_control = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
        assert!(!stdout.contains(is_control), "unescaped control characters: {stdout:?}");
        let notes: Vec<&str> = stderr
            .lines()
            .filter(|line| ["note", "warning", "chat-api"].iter().any(|prefix| line.starts_with(prefix)))
            .collect();
        let output =
            format!("exit code {}\n{stdout}--\n{}", answer.0.status.code().unwrap_or(-1), notes.join("\n"));
        insta::assert_snapshot!(
            format!("{snapshot}_{}", self.topology_name),
            redacted(&self.system, &self.token, &output)
        );
    }

    async fn check_output(&self, snapshot: &str, code: i32, arguments: &[&str]) {
        let arguments: Vec<&str> = ["projections"].iter().chain(arguments).copied().collect();
        self.check_snapshot(snapshot, &self.system.run(&arguments).await.expect(code));
    }
}

async fn check_every_command(topology: Topology) {
    let scenario = CommandScenario::start(topology).await;
    let reason = ["--execute", "--operator", "a tester", "--reason", "a test"];
    let with_reason = |verb: &[&'static str]| -> Vec<&str> { verb.iter().chain(&reason).copied().collect() };
    scenario.check_output("list", 0, &["list"]).await;
    scenario.check_output("rebuild_dry_run", 0, &["rebuild", "--all"]).await;
    scenario.check_output("rebuild_without_a_reason", 2, &["rebuild", "--all", "--execute"]).await;
    scenario.check_output("promote_nothing", 2, &["promote"]).await;
    scenario.check_output("rebuild", 0, &with_reason(&["rebuild", "--all"])).await;
    scenario.wait_until_all_generations_are_folded().await;
    scenario.check_output("rollback_dry_run", 0, &["rollback"]).await;
    scenario.check_output("rollback", 0, &with_reason(&["rollback"])).await;
    scenario.wait_until_all_generations_are_folded().await;
    let again = scenario.system.run(&["projections", "rollback"]).await.expect(2);
    assert!(again.stderr().contains("`promote` makes generation 2 live again"), "{again:?}");
    scenario.check_output("promote_dry_run", 0, &["promote", "read-model"]).await;
    scenario.check_output("verify_sample", 0, &["verify", "read-model", "--sample", "2"]).await;
    scenario.check_output("verify_full", 0, &["verify", "search-index", "--full"]).await;
    scenario.check_output("verify_all", 0, &["verify", "--all", "--full"]).await;

    // A row of the live generation is altered.
    scenario
        .system
        .alter(1, "UPDATE messages SET body = 'altered\u{1b}[2J\u{9b}\u{202e}' WHERE number = 2")
        .await;
    scenario.check_output("verify_sample_finds", 1, &["verify", "read-model", "--sample", "2"]).await;
    scenario.check_output("verify_full_finds", 1, &["verify", "read-model", "--full"]).await;
    scenario.check_output("rebuild_differs", 1, &with_reason(&["rebuild", "read-model"])).await;
    scenario.check_output("diff", 1, &["diff", "read-model"]).await;
    // Without a name, what is being built is compared. The search index has only a left-over generation.
    let built = scenario.system.run(&["projections", "diff"]).await.expect(1).text();
    assert!(built.starts_with("read_model: ") && !built.contains("search_index"), "{built}");
    let full = scenario.system.run(&["projections", "diff", "read-model", "--full"]).await.expect(1).text();
    assert!(full.contains(&format!("of app {}", scenario.token)), "{full}");
    scenario.check_output("promote", 0, &with_reason(&["promote", "read-model"])).await;
    scenario.wait_until_live_generations_are_folded().await;
    scenario.check_output("verify_after", 0, &["verify", "read-model", "--full"]).await;

    let drop_generation_2 = with_reason(&["drop", "--generation", "2"]);
    // The projectors of the previous generations continue for a while. Until they stop, a dry run says that the
    // generations can't be dropped.
    let planned = eventually("the generation can be dropped", async || {
        let answer = scenario.system.run(&["projections", "drop"]).await;
        let refusal = "the drop would be refused: a projector of the running system works on";
        assert_eq!(answer.0.status.code() == Some(1), answer.stderr().contains(refusal), "{answer:?}");
        Some(answer).filter(|answer| answer.0.status.code() == Some(0))
    });
    scenario.check_snapshot("drop_dry_run", &planned.await);
    let dropped = eventually("the generation is dropped", async || {
        let arguments: Vec<&str> = ["projections"].iter().chain(&drop_generation_2).copied().collect();
        Some(scenario.system.run(&arguments).await).filter(|answer| answer.0.status.code() == Some(0))
    });
    scenario.check_snapshot("drop", &dropped.await);
    assert!(
        !scenario.system.folder().join("search-index.2").exists(),
        "the index of generation 2 still exists"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn each_command_reports_its_result() {
    check_every_command(Topology::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_command_reports_its_result_at_scale() {
    check_every_command(Topology::AtScale).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_live_generation_is_a_finding_and_a_live_generation_with_only_a_standby_is_catching_up() {
    let folder = folder();
    let list = async || {
        let mut command = program();
        command.args(["projections", "list", "-o", "json", "--data-dir"]).arg(folder.path());
        let output = command.output().expect("the program runs");
        let listed: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        (output.status.code(), listed)
    };
    // A shutdown removes the heartbeats. On a busy machine, they may not be removed in time.
    let mut state = Value::Null;
    for _ in 0..5 {
        ProcessOptions::new("serve", folder.path()).start().await.shut_down().await;
        let (code, mut listed) = list().await;
        assert_eq!(code, Some(0), "{listed}");
        state = listed["data"]["generations"][0]["state"].take();
        if state == "not_running" {
            break;
        }
    }
    assert_eq!(state, "not_running");

    // A projector has just ended, and the standby is about to take over. The standby's heartbeat is dated a minute
    // ahead, so that it stays recent on a busy machine.
    let heartbeat = Heartbeat {
        at: Timestamp::from_millis(clock::now().millis() + 60_000),
        state: "standing_by".to_owned(),
        position: Position::START,
        events_per_second: 0,
        last_error: None,
    };
    let heartbeats = FileHeartbeats::for_path(folder.path().join("read-model.db"));
    heartbeats.publish(ProjectorRole::Standby, &heartbeat).expect("a heartbeat");
    assert_eq!(list().await.1["data"]["generations"][0]["state"], "catching_up");

    std::fs::remove_dir_all(folder.path().join("search-index")).expect("a removal");
    let (code, listed) = list().await;
    assert_eq!((code, &listed["status"]), (Some(1), &"finding".into()), "{listed}");
    let warning = listed["diagnostics"][0]["message"].as_str().expect("a message");
    assert!(warning.starts_with("the live generation 1 of search_index can't be read at"), "{warning}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_row_is_explained_by_the_event_that_created_it() {
    let scenario = CommandScenario::start(Topology::Embedded).await;
    scenario.system.alter(1, "DELETE FROM messages WHERE number = 3").await;
    let verified = scenario.system.run_json(&["projections", "verify", "read-model", "--full"]).await;
    assert_eq!(verified["status"], "finding");
    let shown = &verified["data"]["verifications"][0]["shown"];
    assert_eq!(shown.as_array().map(Vec::len), Some(1), "{verified}");
    assert_eq!((shown[0]["message_number"].as_u64(), shown[0]["chat_number"].as_u64()), (Some(3), Some(1)));
    assert_eq!(shown[0]["first_event"]["type"], "MessageCreated");
    assert_eq!(shown[0]["first_event"]["position"], 5);
    assert_eq!(shown[0]["difference"], "only_second");
}
