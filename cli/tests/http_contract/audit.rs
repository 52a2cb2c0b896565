//! Tests of the audit routes.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::contract::{Contract, NO_APP, assert_problem};
use crate::harness::api::message_path;

pub const AUDIT: &str = "/admin/v1/audit";
const ADMIN_TOKEN: &str = "correct-horse-battery-staple";

/// Creates an app with a chat of three messages, edits the first one and deletes the second one.
pub async fn seeded_app(contract: &Contract) -> String {
    let token = contract.app_with_chat().await;
    contract.messages(&token, &["Hello, Grüße", "gone", "here to stay"]).await;
    let edit = serde_json::json!({ "body": "Hello again" });
    contract.put(message_path(&token, 1, 1), &edit).await.expect(200);
    contract.delete(message_path(&token, 1, 2)).await.expect(204);
    // `explain` compares the events with the row of the read model. This query waits until the row is up to date.
    contract.get(message_path(&token, 1, 2)).await.expect(410);
    token
}

/// Sends a `GET` and returns the `data` of the envelope. Asserts that the envelope has version 1, the status `ok` and a
/// list of diagnostics.
async fn get_data(contract: &Contract, path: &str) -> Value {
    let mut answer = contract.get(path).await.expect(200).json();
    assert_eq!((&answer["version"], &answer["status"]), (&1.into(), &"ok".into()), "{path}: {answer}");
    assert!(answer["diagnostics"].is_array(), "{path}");
    answer["data"].take()
}

fn event_types(data: &Value) -> Vec<&str> {
    let events = data["events"].as_array().expect("events");
    events.iter().map(|event| event["type"].as_str().expect("a type")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_queries_need_the_admin_token_if_one_is_set() {
    let contract = Contract::start_with(|options| options.with("--admin-token", ADMIN_TOKEN)).await;
    for path in [
        "/events".to_owned(),
        "/events/1".to_owned(),
        "/traces/x".to_owned(),
        "/tail".to_owned(),
        "/stats".to_owned(),
        "/explain/events/1".to_owned(),
        format!("/explain/apps/{NO_APP}"),
        format!("/explain/apps/{NO_APP}/chats/1"),
        format!("/explain/apps/{NO_APP}/chats/1/messages/1"),
        format!("/at/apps/{NO_APP}?point=1"),
        format!("/diff/apps/{NO_APP}?from=1&to=2"),
    ] {
        let request = || contract.client().get(format!("{AUDIT}{path}"));
        assert_problem(&contract.send(request()).await, 401, "admin_token_missing");
        let wrong = request().header("authorization", "Bearer wrong");
        assert_problem(&contract.send(wrong).await, 403, "admin_token_wrong");
    }
    let list = contract.client().get(format!("{AUDIT}/events"));
    contract.send(list.header("authorization", &format!("Bearer {ADMIN_TOKEN}"))).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_is_accepted_by_its_own_query_only() {
    let contract = Contract::start().await;
    seeded_app(&contract).await;
    for order in ["newest", "oldest"] {
        let path = format!("{AUDIT}/events?order={order}&limit=2");
        let first = contract.get(path.clone()).await.expect(200);
        let cursor = first.header("next-cursor").to_owned();
        let by_cursor = contract.get(format!("{path}&cursor={cursor}")).await.expect(200).json();
        let link = first.header("link").split(['<', '>']).nth(1).expect("a link").to_owned();
        assert_eq!(by_cursor["data"], contract.get(link).await.expect(200).json()["data"], "{order}");
        let other_order = if order == "newest" { "oldest" } else { "newest" };
        for other in [
            format!("audit/events?order={other_order}&"),
            format!("audit/events?order={order}&type=MessageCreated&"),
            "audit/traces/x?".to_owned(),
            "dead-letters?".to_owned(),
        ] {
            let refused = contract.get(format!("/admin/v1/{other}cursor={cursor}")).await;
            assert_problem(&refused, 400, "malformed_query");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_openapi_document_has_exactly_the_expected_audit_routes() {
    let contract = Contract::start().await;
    let mut expected = BTreeSet::new();
    for route in [
        "events",
        "events/{event}",
        "explain/events/{event}",
        "stats",
        "tail",
        "traces/{correlation_id}",
        "checkpoints",
        "verifications",
    ] {
        expected.insert(format!("{AUDIT}/{route}"));
    }
    let (app, chat) = ("apps/{app_token}", "apps/{app_token}/chats/{chat_number}");
    let message = "apps/{app_token}/chats/{chat_number}/messages/{message_number}";
    for route in ["explain", "at", "diff"] {
        expected.extend([app, chat, message].map(|subject| format!("{AUDIT}/{route}/{subject}")));
    }
    let described = contract.document().operations().into_iter();
    let described = described.filter(|(_, path)| path.starts_with(AUDIT)).map(|(method, path)| {
        let is_action = ["checkpoints", "verifications"].iter().any(|action| path.ends_with(action));
        assert_eq!(method, if is_action { "POST" } else { "GET" }, "{path}");
        path
    });
    assert_eq!(described.collect::<BTreeSet<_>>(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_listed_through_filters() {
    let contract = Contract::start().await;
    let token = seeded_app(&contract).await;
    let all = get_data(&contract, &format!("{AUDIT}/events?app={token}&order=oldest")).await;
    let expected = [
        "AppCreated",
        "ChatCreated",
        "MessageCreated",
        "MessageCreated",
        "MessageCreated",
        "MessageEdited",
        "MessageDeleted",
    ];
    assert_eq!(event_types(&all), expected);
    assert_eq!(all["next"], Value::Null);
    for (filter, expected) in [
        (
            format!("app={token}&chat=1&type=MessageEdited,MessageDeleted"),
            vec!["MessageDeleted", "MessageEdited"],
        ),
        (format!("stream=app-{token}"), vec!["ChatCreated", "AppCreated"]),
        (format!("app={token}&text=gr%C3%BC%C3%9Fe"), vec!["MessageCreated"]),
        (format!("app={token}&actor=anonymous"), vec!["AppCreated"]),
        (format!("app={token}&to=2020-01-01"), vec![]),
    ] {
        let found = get_data(&contract, &format!("{AUDIT}/events?{filter}")).await;
        assert_eq!(event_types(&found), expected, "{filter}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn links_lead_from_page_to_page_without_a_gap() {
    let contract = Contract::start().await;
    let token = seeded_app(&contract).await;
    for order in ["newest", "oldest"] {
        let whole = get_data(&contract, &format!("{AUDIT}/events?app={token}&order={order}")).await;
        let mut paged = Vec::new();
        let mut next = Some(format!("{AUDIT}/events?app={token}&order={order}&limit=3"));
        while let Some(path) = next {
            let page = contract.get(path).await.expect(200);
            paged.extend(page.json()["data"]["events"].as_array().expect("events").clone());
            assert_eq!(page.has("link"), page.json()["data"]["next"].is_number());
            next = page.links().remove("next");
        }
        assert_eq!(&paged, whole["events"].as_array().expect("events"), "{order}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_shown_explained_and_traced() {
    let contract = Contract::start().await;
    let token = seeded_app(&contract).await;
    let listed = get_data(&contract, &format!("{AUDIT}/events?app={token}&type=MessageDeleted")).await;
    let event = &listed["events"][0];
    let (position, id) = (&event["position"], event["id"].as_str().expect("an id"));

    let shown = get_data(&contract, &format!("{AUDIT}/events/{position}")).await;
    assert_eq!(&shown["event"], event);
    assert_eq!((&shown["previous"]["type"], &shown["following"]), (&"MessageEdited".into(), &Value::Null));
    assert_eq!(get_data(&contract, &format!("{AUDIT}/events/{id}")).await, shown);

    let explained = get_data(&contract, &format!("{AUDIT}/explain/events/{position}")).await;
    let effects = explained["touches"].as_array().expect("touches");
    let effects: Vec<_> = effects.iter().map(|effect| &effect["effect"]).collect();
    assert_eq!(effects, ["changed", "removed", "removed"]);

    let correlation = event["metadata"]["correlation_id"].as_str().expect("an id");
    let trace = get_data(&contract, &format!("{AUDIT}/traces/{correlation}")).await;
    assert_eq!(&trace["requests"][0]["events"][0], event);

    for unknown in ["999999999999", "00000000-0000-0000-0000-000000000000", "x", "%FF"] {
        assert_problem(&contract.get(format!("{AUDIT}/events/{unknown}")).await, 404, "event_not_found");
        assert_problem(
            &contract.get(format!("{AUDIT}/explain/events/{unknown}")).await,
            404,
            "event_not_found",
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_routes_explain_and_at_and_diff_and_stats_agree_with_the_events() {
    let contract = Contract::start().await;
    let token = seeded_app(&contract).await;
    let all = get_data(&contract, &format!("{AUDIT}/events?app={token}&order=oldest")).await;
    let position_of_event = |index: usize| all["events"][index]["position"].clone();
    let app = format!("apps/{token}");
    for (path, field_count) in [
        (app.clone(), 6),
        (format!("{app}/chats/1"), 5),
        (format!("{app}/chats/1/messages/1"), 5),
        (format!("{app}/chats/1/messages/2"), 5),
        (format!("{app}/chats/2"), 0),
    ] {
        let explained = get_data(&contract, &format!("{AUDIT}/explain/{path}")).await;
        assert_eq!(explained["agrees"], true, "{explained}");
        assert_eq!(explained["fields"].as_array().map(Vec::len), Some(field_count), "{explained}");
    }
    let message = format!("{app}/chats/1/messages/1");
    let explained = get_data(&contract, &format!("{AUDIT}/explain/{message}")).await;
    let body = &explained["fields"][1];
    assert_eq!((&body["value"], &body["set_by"]["position"]), (&"Hello again".into(), &position_of_event(5)));

    let past = get_data(&contract, &format!("{AUDIT}/at/{message}?point={}", position_of_event(4))).await;
    assert_eq!(past["fields"][1]["value"], "Hello, Grüße");
    let chat = get_data(&contract, &format!("{AUDIT}/at/{app}/chats/1?point=2020-01-01")).await;
    assert_eq!(chat["existence"], "absent");
    let now = get_data(&contract, &format!("{AUDIT}/at/{app}?point={}", position_of_event(6))).await;
    assert_eq!(now["existence"], "present");

    let span = format!("from={}&to={}", position_of_event(4), position_of_event(6));
    let changed = get_data(&contract, &format!("{AUDIT}/diff/{message}?{span}")).await;
    assert_eq!(event_types(&changed), ["MessageEdited"]);
    assert_eq!(changed["changes"][0]["before"], "Hello, Grüße");
    let changed = get_data(&contract, &format!("{AUDIT}/diff/{app}/chats/1?{span}")).await;
    assert_eq!(event_types(&changed), ["MessageEdited", "MessageDeleted"]);
    let changed = get_data(&contract, &format!("{AUDIT}/diff/{app}?{span}")).await;
    assert_eq!(changed["changes"], Value::Array(Vec::new()));

    let counted = get_data(&contract, &format!("{AUDIT}/stats?app={token}&top=1")).await;
    assert_eq!((&counted["events"], &counted["types"]["most"][0]["events"]), (&7.into(), &3.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_parameters_are_refused_with_a_hint() {
    let contract = Contract::start().await;
    for (path, hint) in [
        ("events?app=x".to_owned(), "`app`"),
        ("events?chat=1".to_owned(), "`chat`"),
        ("events?limit=0".to_owned(), "`limit`"),
        ("events?limit=1001".to_owned(), "`limit`"),
        ("events?order=sideways".to_owned(), "`order`"),
        ("events?since=soon".to_owned(), "`since`"),
        ("events?after=x".to_owned(), "`after`"),
        ("stats?top=0".to_owned(), "`top`"),
        ("traces/x?from=soon".to_owned(), "`from`"),
        ("events?from=2026-01-01T00:00:00+02:00".to_owned(), "write `%2B`"),
        (format!("at/apps/{NO_APP}?point=2026-01-01T00:00:00+02:00"), "write `%2B`"),
        ("tail?last=x".to_owned(), "`last`"),
        (format!("at/apps/{NO_APP}"), "`point`"),
        (format!("at/apps/{NO_APP}?point=soon"), "`point`"),
        (format!("diff/apps/{NO_APP}?from=1"), "`to`"),
        (format!("diff/apps/{NO_APP}?from=2&to=1"), "`from`"),
    ] {
        let refused = contract.get(format!("{AUDIT}/{path}")).await;
        assert_problem(&refused, 400, "malformed_query");
        let detail = refused.json()["detail"].as_str().expect("a detail").to_owned();
        assert!(detail.contains(hint), "{path}: {detail}");
    }
    assert_problem(&contract.get(format!("{AUDIT}/explain/apps/x")).await, 404, "app_not_found");
    let chat = format!("{AUDIT}/at/apps/{NO_APP}/chats/0?point=1");
    assert_problem(&contract.get(chat).await, 404, "chat_not_found");
}
