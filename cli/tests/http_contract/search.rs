//! Tests of `…/messages/search`.

use http::Method;
use serde_json::{Value, json};

use crate::contract::{Contract, assert_problem, without_times};
use crate::harness::api::{app_path, chat_path, message_path, number};
use crate::harness::client::Reply;

fn message_numbers(found: &Reply) -> Vec<u64> {
    let body = found.json();
    body["messages"].as_array().expect("messages").iter().map(|hit| number(hit, "message_number")).collect()
}

/// Searches in chat 1, with the consistency token of a command. Returns the numbers of the hits in ascending order.
async fn search_chat(contract: &Contract, command: &Reply, token: &str, query: Value) -> Vec<u64> {
    let path = format!("{}/messages/search", chat_path(token, 1));
    let call = contract.client().post(path, &query).after(command);
    let mut numbers = message_numbers(&contract.send(call).await.expect(200));
    numbers.sort_unstable();
    numbers
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_in_a_chat_returns_hits_with_snippets() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    let last = contract.messages(&token, &["The quick brown fox", "a dog", "<b>fox</b> & co"]).await;
    let path = format!("{}/messages/search", chat_path(&token, 1));
    let answer =
        contract.send(contract.client().post(path.clone(), &json!({ "query": "fox" })).after(&last)).await;

    let mut body = without_times(answer.expect(200).json());
    for hit in body["messages"].as_array_mut().expect("hits") {
        assert!(hit["score"].is_number(), "{hit}");
        hit["score"] = json!("S");
    }
    let hit = |message: u64, body: &str, snippet: &str| {
        json!({
            "message_number": message, "body": body, "created_at": "T", "updated_at": "T",
            "snippet": snippet, "score": "S",
        })
    };
    let newest_first = [
        hit(3, "<b>fox</b> & co", "&lt;b&gt;<mark>fox</mark>&lt;/b&gt; &amp; co"),
        hit(1, "The quick brown fox", "The quick brown <mark>fox</mark>"),
    ];
    assert_eq!(
        body,
        json!({ "status": "success", "messages": newest_first, "total": 2, "total_relation": "eq", "next": null })
    );

    let by_url = contract.get_after(&last, format!("{path}?query=fox")).await.expect(200);
    assert_eq!(message_numbers(&by_url), [3, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_in_an_app_returns_the_chat_of_each_hit() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    let other = contract.app_with_chat().await;
    contract.message(&other, "a fox of another app").await;
    contract.post(format!("{}/chats", app_path(&token)), &json!({})).await.expect(201);
    contract.message(&token, "fox").await;
    let second = format!("{}/messages", chat_path(&token, 2));
    let last = contract.post(second, &json!({ "body": "fox" })).await.expect(201);

    let path = format!("{}/messages/search", app_path(&token));
    let get = contract.client().get(format!("{path}?query=fox")).after(&last);
    let post = contract.client().post(path, &json!({ "query": "fox" })).after(&last);
    for call in [get, post] {
        let body = contract.send(call).await.expect(200).json();
        let hits = body["messages"].as_array().expect("hits");
        let locations: Vec<_> =
            hits.iter().map(|hit| (number(hit, "chat_number"), number(hit, "message_number"))).collect();
        assert_eq!(locations, [(2, 1), (1, 1)]);
        assert_eq!(body["total"], 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_words_prefixes_substrings_phrases_and_typos_are_found() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    let bodies = [
        "Caf\u{e9} Sch\u{f6}nbrunn", // 1
        "the quick brown fox",       // 2
        "brown is the quick fox",    // 3
        "Привет, мир",               // 4
        "你好世界",                  // 5
        "안녕하세요",                // 6
        "สวัสดีครับ",                   // 7
        "مرحبا بالعالم",             // 8
        "\u{1f98a} emoji",           // 9
        "international",             // 10
    ];
    let last = contract.messages(&token, &bodies).await;
    let cases: [(&str, &[u64]); 17] = [
        ("cafe", &[1]),
        ("CAFÉ", &[1]),
        ("schon", &[1]),
        ("brunn", &[1]),
        ("quick fox", &[2, 3]),
        ("fox quick", &[2, 3]),
        ("\"quick brown\"", &[2]),
        ("quic fo", &[2, 3]),
        ("quick cat", &[]),
        ("прив", &[4]),
        ("МИР", &[4]),
        ("世界", &[5]),
        ("녕하", &[6]),
        ("สวัสดี", &[7]),
        ("بالعالم", &[8]),
        ("🦊", &[9]),
        ("nation", &[10]),
    ];
    for (query, expected) in cases {
        assert_eq!(
            search_chat(&contract, &last, &token, json!({ "query": query })).await,
            expected,
            "{query}"
        );
    }
    assert_eq!(search_chat(&contract, &last, &token, json!({ "query": "quikc" })).await, [] as [u64; 0]);
    assert_eq!(
        search_chat(&contract, &last, &token, json!({ "query": "quock", "fuzzy": true })).await,
        [2, 3]
    );
    assert_eq!(
        search_chat(&contract, &last, &token, json!({ "query": "internatoinal", "fuzzy": true })).await,
        [10]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn better_matches_come_first_and_equal_ones_newest_first() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    let bodies = ["the cat", "concatenate", "cats", "a cat", "bobcat", "category"];
    let last = contract.messages(&token, &bodies).await;
    let search = async |query: Value| {
        let path = format!("{}/messages/search", chat_path(&token, 1));
        message_numbers(&contract.send(contract.client().post(path, &query).after(&last)).await.expect(200))
    };
    assert_eq!(search(json!({ "query": "cat" })).await, [4, 1, 6, 3, 5, 2]);
    assert_eq!(search(json!({ "query": "cat", "sort": "relevance" })).await, [4, 1, 6, 3, 5, 2]);
    assert_eq!(search(json!({ "query": "cat", "sort": "newest" })).await, [6, 5, 4, 3, 2, 1]);
    assert_eq!(search(json!({ "query": "cat", "sort": "oldest" })).await, [1, 2, 3, 4, 5, 6]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_is_paged_to_exhaustion_in_every_order() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    let mut last = contract.message(&token, "fox 1").await;
    for body in 2..=7 {
        last = contract.message(&token, &format!("fox {body}")).await;
    }
    let newest: Vec<u64> = (1..=7).rev().collect();
    let oldest: Vec<u64> = (1..=7).collect();
    for (sort, expected) in [("relevance", &newest), ("newest", &newest), ("oldest", &oldest)] {
        let (mut paged, mut cursor) = (Vec::new(), Value::Null);
        loop {
            let query = json!({ "query": "fox", "limit": 3, "sort": sort, "cursor": cursor });
            let path = format!("{}/messages/search", chat_path(&token, 1));
            let page = contract.send(contract.client().post(path, &query).after(&last)).await.expect(200);
            assert_eq!(page.json()["total"], 7);
            paged.extend(message_numbers(&page));
            cursor = page.json()["next"].clone();
            if cursor.is_null() {
                break;
            }
            assert!(paged.len() < 7, "{sort}: the page with the last hit has a cursor");
        }
        assert_eq!(&paged, expected, "{sort}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn matches_are_counted_up_to_the_requested_number() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    let last = contract.messages(&token, &["fox 1", "fox 2", "fox 3"]).await;
    let path = format!("{}/messages/search", chat_path(&token, 1));
    for (track_total, total, relation) in
        [(0, 0, "gte"), (2, 2, "gte"), (3, 3, "eq"), (1_000_000_000, 3, "eq")]
    {
        let body = json!({ "query": "fox", "limit": 1, "track_total": track_total });
        let posted = contract.send(contract.client().post(&path, &body).after(&last)).await.expect(200);
        let query = format!("{path}?query=fox&limit=1&track_total={track_total}");
        let found = contract.get_after(&last, query).await.expect(200);
        assert_eq!(posted.json(), found.json());
        let body = found.json();
        assert_eq!((&body["total"], &body["total_relation"]), (&json!(total), &json!(relation)));
        assert_eq!(message_numbers(&found), [3], "`track_total={track_total}` changed the hits");
    }
    for wrong in ["-1", "1.5", "1000000001", "many", ""] {
        let refused = contract.get_after(&last, format!("{path}?query=fox&track_total={wrong}")).await;
        assert_eq!(refused.expect(400).code(), "malformed_query", "{wrong}");
    }
    let body = json!({ "query": "fox", "track_total": -1 });
    let refused = contract.send(contract.client().post(&path, &body)).await;
    assert_eq!(refused.expect(422).code(), "body_invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_can_be_limited_to_a_period() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    let last = contract.messages(&token, &["fox"]).await;
    let message = contract.get_after(&last, message_path(&token, 1, 1)).await.expect(200).json();
    let created = message["created_at"].as_str().expect("a time");
    let cases: [(&str, &str, &[u64]); 6] = [
        ("from", created, &[1]),
        ("to", created, &[1]),
        ("from", "2000-01-01T00:00:00Z", &[1]),
        ("to", "2000-01-01T00:00:00Z", &[]),
        ("from", "2200-01-01T00:00:00+02:00", &[]),
        ("to", "2200-01-01T00:00:00.5Z", &[1]),
    ];
    for (bound, time, expected) in cases {
        let query = json!({ "query": "fox", bound: time });
        assert_eq!(search_chat(&contract, &last, &token, query).await, expected, "{bound} {time}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn edited_messages_are_found_by_their_current_text() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    contract.message(&token, "a fox").await;
    let edited = contract.put(message_path(&token, 1, 1), &json!({ "body": "a dog" })).await.expect(200);
    assert_eq!(search_chat(&contract, &edited, &token, json!({ "query": "fox" })).await, [] as [u64; 0]);
    assert_eq!(search_chat(&contract, &edited, &token, json!({ "query": "dog" })).await, [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_is_valid_syntax() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    contract.message(&token, "a fox").await;
    let path = format!("{}/messages/search", chat_path(&token, 1));
    for query in [
        "\"",
        "\"\"",
        "\"fox",
        "fox\"",
        "AND",
        "OR NOT",
        "-fox",
        "+fox",
        "fox*",
        "*",
        "?",
        "body:fox",
        "(",
        ")(",
        "[a TO b]",
        "fox~2",
        "^",
        "\\",
        "\\\"",
        "{",
        "<mark>",
        "'; --",
        "%",
        "/fox/",
        "a",
        "!",
        "fo\u{0301}x",
    ] {
        contract.post(path.clone(), &json!({ "query": query })).await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_search_parameters_are_refused() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    for path in
        [format!("{}/messages/search", chat_path(&token, 1)), format!("{}/messages/search", app_path(&token))]
    {
        for blank in [json!({ "query": "" }), json!({ "query": " \u{3000}\t" })] {
            assert_problem(&contract.post(path.clone(), &blank).await, 422, "query_blank");
        }
        assert_problem(&contract.get(format!("{path}?query=%20")).await, 422, "query_blank");
        for wrong in
            ["limit=0", "limit=101", "limit=x", "sort=best", "from=yesterday", "to=1", "cursor=x", "fuzzy=2"]
        {
            let reply = contract.get(format!("{path}?query=fox&{wrong}")).await;
            assert_problem(&reply, 400, "malformed_query");
        }
        for (wrong, detail) in [
            (json!({ "query": 17 }), "`query` must be a string"),
            (json!([]), "the body must be a JSON object"),
            (json!({ "query": "fox", "limit": "x" }), "`limit` must be a number"),
            (json!({ "query": "fox", "limit": 0 }), "`limit` must be a number from 1 to 100"),
            (json!({ "query": "fox", "sort": "best" }), "`sort` must be `relevance`, `newest` or `oldest`"),
        ] {
            let reply = contract.post(path.clone(), &wrong).await;
            assert_problem(&reply, 422, "body_invalid");
            assert_eq!(reply.json()["detail"], detail, "{wrong}");
        }
        let lost_plus = contract.get(format!("{path}?query=fox&from=2026-01-01T00:00:00+02:00")).await;
        assert_problem(&lost_plus, 400, "malformed_query");
        let detail = "`from` has a space instead of `+`: write `%2B` for `+` in a URL";
        assert_eq!(lost_plus.json()["detail"], detail);
        contract.get(format!("{path}?query=fox&from=2026-01-01T00:00:00%2B02:00")).await.expect(200);
        let post = || contract.client().request(Method::POST, path.clone());
        let broken = post().header("content-type", "application/json").body("{\"query\":");
        assert_problem(&contract.send(broken).await, 400, "malformed_json");
        let foreign = post().header("content-type", "text/plain").body("{\"query\":\"fox\"}");
        assert_problem(&contract.send(foreign).await, 415, "unsupported_media_type");
        let long = json!({ "query": "x".repeat(1_025) });
        assert_problem(&contract.post(path.clone(), &long).await, 422, "query_too_long");
    }
}
