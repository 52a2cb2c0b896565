//! Tests of the form of input and output: values pasted from a table, table widths, JSON envelopes, and options in
//! front of a verb.

use serde_json::Value;

use crate::fixture::{APP, Fixture};
use crate::operator::CommandOutput;

/// The length of the longest line, in characters.
fn width(text: &str) -> usize {
    text.lines().map(|line| line.chars().count()).max().unwrap_or_default()
}

fn envelope(output: &CommandOutput) -> Value {
    serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", output.stdout))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_is_found_by_the_beginning_of_its_token_or_by_its_name() {
    for fixture in Fixture::on_each_engine().await {
        fixture.project().await;
        let by_whole_token = fixture.data(&["list", "--app", APP, "--type", "MessageDeleted"]);
        assert_eq!(by_whole_token["events"].as_array().map(Vec::len), Some(2));
        for app in ["4Vq9…", "4Vq9", "4", "Support Desk"] {
            assert_eq!(
                fixture.data(&["list", "--app", app, "--type", "MessageDeleted"]),
                by_whole_token,
                "{app}"
            );
            let last = fixture.position(12);
            for arguments in [vec!["at", &last, "app", app], vec!["explain", "app", app]] {
                assert_eq!(fixture.data(&arguments)["subject"]["app_token"], APP, "{arguments:?}");
            }
            let counted = fixture.data(&["stats", "--app", app]);
            assert_eq!(counted["apps"]["most"][0]["key"], APP, "{app}");
            let exported = fixture.audit(&["export", "--format", "jsonl", "--app", app]).expect(0);
            assert_eq!(exported.stdout.lines().count(), 11, "{app}");
        }
        // The app was called "support" before it was renamed.
        let by_former_name = fixture.audit(&["list", "--app", "support"]).expect(2);
        assert!(by_former_name.stderr.contains("similar: \"Support Desk\""), "{}", by_former_name.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_found_by_its_name_in_a_table() {
    for fixture in Fixture::on_each_engine().await {
        let table = fixture.audit(&["list", "--type", "MessageDeleted"]).expect(0).stdout;
        let stream = table.split_whitespace().find(|word| word.starts_with("chat-")).expect("a stream");
        assert_eq!(stream, "chat-4Vq9…-1");
        let found = fixture.data(&["list", "--stream", stream, "--type", "MessageDeleted"]);
        assert_eq!(found["events"].as_array().map(Vec::len), Some(2), "{found}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_matches_nothing_is_reported_with_similar_names() {
    let [fixture, _] = Fixture::on_each_engine().await;
    let other_chat = format!("chat-{APP}-7");
    let no_such_stream =
        format!("the log has no stream \"{other_chat}\"; similar: \"chat-{APP}-2\", \"chat-{APP}-1\"");
    for (filter, expected) in [
        (["--stream", other_chat.as_str()], no_such_stream.as_str()),
        (["--actor", "alise@ops-1"], "no event by the actor \"alise@ops-1\"; similar: \"alice@ops-1\""),
        (["--address", "10.0.0.8"], "no event from the address \"10.0.0.8\"; similar: \"10.0.0.7\""),
        (["--correlation", "nobody"], "no event with the correlation id \"nobody\""),
        (
            ["--type", "MesageDeleted"],
            "no event type is called \"MesageDeleted\"; similar: \"MessageDeleted\"",
        ),
    ] {
        for verb in [&["list"][..], &["tail"], &["stats"], &["export", "--format", "csv"]] {
            let output = fixture.audit(&[verb, &filter].concat()).expect(0);
            assert!(output.stderr.contains(expected), "{verb:?} {filter:?}: {}", output.stderr);
        }
        let replay = ["replay", "--to", "cat", filter[0], filter[1]];
        let output = fixture.test_log.run(&replay).expect(0);
        assert!(output.stderr.contains(expected), "replay {filter:?}: {}", output.stderr);
    }
    let absent_chat = fixture.audit(&["list", "--app", APP, "--chat", "9"]).expect(0);
    assert!(absent_chat.stderr.contains("the app has no chat 9"), "{}", absent_chat.stderr);
    // The stream exists, so nothing is wrong with its name.
    let nothing = fixture.audit(&["list", "--stream", "chat-operations", "--text", "absent"]).expect(0);
    assert_eq!(nothing.stderr, "");
    let dead_letters = ["dead-letters", "retry", "--stream", &other_chat];
    fixture.project().await;
    let output =
        fixture.test_log.run(&[&dead_letters[..], &["--projection", "read-model"]].concat()).expect(2);
    assert!(output.stderr.contains(&no_such_stream), "{}", output.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_fit_80_columns_unless_they_are_printed_in_full() {
    for fixture in Fixture::on_each_engine().await {
        fixture.project().await;
        let last = fixture.position(12);
        for verb in [
            &["list"][..],
            &["tail"],
            &["stats"],
            &["trace", "4bf92f3577b34da6a3ce929d0e0e4736"],
            &["at", &last, "message", APP, "1", "1"],
            &["diff", "0", &last, "message", APP, "1", "1"],
            &["explain", "message", APP, "1", "1"],
            &["explain", "app", APP],
            &["explain", "event", &last],
            &["at", &last, "app", APP],
            &["diff", "0", &last, "app", APP],
            &["show", &last],
        ] {
            let table = fixture.audit(verb).stdout;
            assert!(width(&table) <= 80, "{verb:?}, {} columns:\n{table}", width(&table));
            assert!(!table.contains(APP), "{verb:?} prints the whole token");
        }
        let full = fixture.audit(&["list", "--full"]).expect(0).stdout;
        assert!(full.contains(&format!("chat-{APP}-1")) && full.contains("nobody looks any more."), "{full}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_point_beyond_the_head_of_the_log_gets_a_warning() {
    let [fixture, _] = Fixture::on_each_engine().await;
    let beyond = fixture.audit(&["at", "4000", "app", APP]).expect(0);
    assert!(beyond.stdout.starts_with("app 4Vq9… at position 12: present"), "{}", beyond.stdout);
    let warning = "warning: position 4000 is beyond the head of the log, which is 12\n";
    assert_eq!(beyond.stderr, warning);
    assert_eq!(fixture.audit(&["diff", "1", "4000", "app", APP]).expect(0).stderr, warning);
    let future = fixture.audit(&["at", "2999-01-01", "app", APP]).expect(0);
    assert!(future.stderr.contains("is in the future"), "{}", future.stderr);
    assert_eq!(fixture.audit(&["at", &fixture.position(12), "app", APP]).expect(0).stderr, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_answer_or_error_is_one_envelope_whose_data_is_an_object() {
    let [fixture, _] = Fixture::on_each_engine().await;
    let (last, file) = (fixture.position(12), fixture.test_log.path_text("events.csv"));
    for (verb, code) in [
        (&["head"][..], 0),
        (&["list"], 0),
        (&["tail"], 0),
        (&["show", "1"], 0),
        (&["at", &last, "app", APP], 0),
        (&["stats"], 0),
        (&["export", "--format", "csv", "--out", &file], 0),
        (&["verify"], 0),
        (&["show", "4000"], 2),
        (&["list", "--since", "soon"], 2),
        (&["list", "--limit", "0"], 2),
        (&["tail", "--since", "soon"], 2),
        (&["nonsense"], 2),
        (&["list", "--nonsense"], 2),
    ] {
        let output = fixture.audit(&[verb, &["-o", "json"]].concat()).expect(code);
        let envelope = envelope(&output);
        assert_eq!(envelope["version"], 1, "{verb:?}");
        assert!(envelope["data"].is_object(), "{verb:?}: {envelope}");
        assert_eq!(envelope["status"] == "error", code == 2, "{verb:?}: {envelope}");
        assert_eq!(envelope["diagnostics"][0]["severity"] == "error", code == 2, "{verb:?}: {envelope}");
        assert!(!output.stderr.contains("error"), "{verb:?}: {}", output.stderr);
    }
    let nonsense = fixture.audit(&["list", "--nonsense", "-o", "json"]).expect(2);
    let message = "unexpected argument '--nonsense' found";
    assert_eq!(envelope(&nonsense)["diagnostics"][0]["message"], message);
}

#[tokio::test(flavor = "multi_thread")]
async fn options_in_front_of_a_verb_apply_to_the_verb() {
    let [fixture, _] = Fixture::on_each_engine().await;
    let folder = fixture.test_log.folder.path().to_str().expect("a path").to_owned();
    for words in [
        ["--data-dir", &folder, "audit", "head", "-o", "json"],
        ["audit", "--data-dir", &folder, "-o", "json", "head"],
    ] {
        let output = fixture.test_log.run_without_log_arguments(&words).expect(0);
        assert_eq!(envelope(&output)["data"]["position"], 12, "{words:?}");
    }
    let misplaced = fixture.test_log.run_without_log_arguments(&["--limit", "5", "audit", "head"]).expect(2);
    assert!(misplaced.stderr.contains("chat-api audit head"), "{}", misplaced.stderr);
}
