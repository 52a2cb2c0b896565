//! `audit export`

use std::fs;

use serde_json::Value;

use crate::story::Stage;

#[tokio::test(flavor = "multi_thread")]
async fn every_event_is_exported_as_a_line_of_json() {
    for stage in Stage::both().await {
        let said = stage.audit(&["export", "--format", "jsonl"]).expect(0);
        let events: Vec<Value> =
            said.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let positions: Vec<u64> = events.iter().filter_map(|event| event["position"].as_u64()).collect();
        let expected: Vec<u64> = stage.positions.iter().map(|position| position.get()).collect();
        assert_eq!(positions, expected);
        assert_eq!(events[3]["data"]["body"], "red \u{1b}[31m\nand \u{202e}backwards");
        // `{"body":"torn`
        assert_eq!(events[11]["data_base64"], "eyJib2R5IjoidG9ybg==");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_csv_file_has_a_line_for_each_event() {
    for stage in Stage::both().await {
        let arguments = ["export", "--format", "csv", "--out", "events.csv", "--type", "MessageDeleted"];
        stage.check("export_csv", &stage.audit(&arguments).expect(0));
        let file = fs::read_to_string(stage.setting.path("events.csv")).expect("a file");
        insta::assert_snapshot!(format!("{}_csv", stage.setting.name), file);
        // What is there is not written over.
        stage.check("export_again", &stage.audit(&arguments).expect(2));
    }
}
