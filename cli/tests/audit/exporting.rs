//! Tests of `audit export`.

use std::fs;

use serde_json::Value;

use crate::fixture::Fixture;
use crate::operator::CommandOutput;

#[tokio::test(flavor = "multi_thread")]
async fn every_event_is_exported_as_a_line_of_json() {
    for fixture in Fixture::on_each_engine().await {
        let output = fixture.audit(&["export", "--format", "jsonl"]).expect(0);
        let events: Vec<Value> =
            output.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let positions: Vec<u64> = events.iter().filter_map(|event| event["position"].as_u64()).collect();
        let expected: Vec<u64> = fixture.positions.iter().map(|position| position.get()).collect();
        assert_eq!(positions, expected);
        assert_eq!(events[3]["data"]["body"], "red \u{1b}[31m\nand \u{202e}backwards");
        // The truncated payload `{"body":"torn` is not JSON, so it is exported as base64.
        assert_eq!(events[11]["data_base64"], "eyJib2R5IjoidG9ybg==");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_of_an_export_to_standard_output_is_on_standard_error() {
    let [fixture, _] = Fixture::on_each_engine().await;
    let export = ["export", "--format", "jsonl", "-o", "json"];
    let envelope =
        |output: &CommandOutput| serde_json::from_str::<Value>(&output.stderr).expect("one line of JSON");
    let exported = fixture.audit(&export).expect(0);
    assert_eq!(exported.stdout.lines().count(), 12);
    let answer = envelope(&exported);
    assert_eq!((&answer["status"], &answer["data"]["events"]), (&"ok".into(), &12.into()), "{answer}");

    let nothing = fixture.audit(&[&export[..], &["--type", "MesageDeleted"]].concat()).expect(0);
    assert_eq!(envelope(&nothing)["diagnostics"][0]["severity"], "warning");
    let failed = fixture.audit(&[&export[..], &["--since", "soon"]].concat()).expect(2);
    assert_eq!(envelope(&failed)["status"], "error");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_csv_file_has_a_line_for_each_event() {
    for fixture in Fixture::on_each_engine().await {
        let arguments = ["export", "--format", "csv", "--out", "events.csv", "--type", "MessageDeleted"];
        fixture.check_snapshot("export_csv", &fixture.audit(&arguments).expect(0));
        let file = fs::read_to_string(fixture.test_log.path("events.csv")).expect("a file");
        insta::assert_snapshot!(format!("{}_csv", fixture.test_log.name), file);
        // An existing file is not overwritten.
        fixture.check_snapshot("export_again", &fixture.audit(&arguments).expect(2));
    }
}
