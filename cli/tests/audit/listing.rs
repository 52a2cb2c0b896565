//! Tests of `audit list`, `show`, `trace` and `stats`.

use serde_json::Value;

use crate::fixture::{APP, Fixture};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn event_types(data: &Value) -> Vec<&str> {
    let events = data["events"].as_array().expect("events");
    events.iter().map(|event| event["type"].as_str().expect("a type")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn listed_events_contain_no_raw_control_characters() {
    for fixture in Fixture::on_each_engine().await {
        let output = fixture.audit(&["list"]).expect(0);
        assert!(!output.stdout.contains(['\u{1b}', '\u{202e}']), "{}", output.stdout);
        fixture.check_snapshot("list", &output);
        fixture.check_snapshot(
            "list_page",
            &fixture.audit(&["list", "--order", "oldest", "--limit", "2"]).expect(0),
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_actor_of_a_deletion_is_found() {
    for fixture in Fixture::on_each_engine().await {
        let deletions = ["list", "--app", APP, "--chat", "1", "--type", "MessageDeleted"];
        fixture.check_snapshot("deletions", &fixture.audit(&deletions).expect(0));
        let json = fixture.audit(&[&deletions[..], &["--limit", "1", "-o", "json"]].concat()).expect(0);
        fixture.check_snapshot("deletions_json", &json);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_list_only_matching_events() {
    for fixture in Fixture::on_each_engine().await {
        let (third, sixth) = (fixture.position(3), fixture.position(6));
        let chat = format!("chat-{APP}-1");
        let cases: [(&[&str], usize); 14] = [
            (&["--stream", &chat], 6),
            (&["--stream", "chat-operations"], 1),
            (&["--app", APP], 11),
            (&["--app", APP, "--chat", "2"], 2),
            (&["--type", "AppRenamed,AppCreated", "--type", "ChatCreated"], 4),
            (&["--actor", "anonymous"], 1),
            (&["--actor", "alice@ops-1"], 1),
            (&["--address", "198.51.100.9"], 2),
            (&["--correlation", TRACE], 2),
            (&["--from", "2026-09-21T14:15:20Z", "--to", "2026-09-21T14:17:20Z"], 3),
            (&["--to", "2026-09-21"], 0),
            (&["--after", &third, "--before", &sixth], 2),
            (&["--text", "HELLO, gR\u{fc}"], 1),
            (&["--text", "counts looked\nWRONG"], 1),
        ];
        for (filter, expected) in cases {
            let data = fixture.data(&[&["list"], filter].concat());
            assert_eq!(event_types(&data).len(), expected, "{filter:?}: {:?}", event_types(&data));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_follow_one_another_without_a_gap() {
    for fixture in Fixture::on_each_engine().await {
        for (order, bound) in [("newest", "--before"), ("oldest", "--after")] {
            let whole = fixture.data(&["list", "--order", order]);
            let mut paged = Vec::new();
            let mut next: Option<String> = None;
            loop {
                let mut page = vec!["list", "--order", order, "--limit", "5"];
                if let Some(next) = &next {
                    page.extend([bound, next]);
                }
                let data = fixture.data(&page);
                paged.extend(data["events"].as_array().expect("events").clone());
                match data["next"].as_u64() {
                    Some(position) => next = Some(position.to_string()),
                    None => break,
                }
            }
            assert_eq!(
                &paged,
                whole["events"].as_array().expect("events"),
                "pages with the {order} events first"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_shown_whole_by_position_or_id() {
    for fixture in Fixture::on_each_engine().await {
        let by_position = fixture.audit(&["show", &fixture.position(8)]).expect(0);
        fixture.check_snapshot("show", &by_position);
        let by_id = fixture.audit(&["show", "00000000-0000-0000-0000-000000000008"]).expect(0);
        assert_eq!(by_id.stdout, by_position.stdout);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_event_is_a_finding_and_is_shown() {
    for fixture in Fixture::on_each_engine().await {
        fixture.check_snapshot("show_broken", &fixture.audit(&["show", &fixture.position(12)]).expect(1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_is_a_tree_of_requests_and_their_events() {
    for fixture in Fixture::on_each_engine().await {
        fixture.check_snapshot("trace", &fixture.audit(&["trace", TRACE]).expect(0));
        fixture.check_snapshot("trace_none", &fixture.audit(&["trace", "nobody"]).expect(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stats_count_events() {
    for fixture in Fixture::on_each_engine().await {
        fixture.check_snapshot("stats", &fixture.audit(&["stats"]).expect(0));
        // `others` is the number of the other types, not of their events.
        let counted = fixture.data(&["stats", "--top", "1"]);
        assert_eq!(
            (&counted["types"]["most"][0]["events"], &counted["types"]["others"]),
            (&4.into(), &6.into())
        );
    }
}
