//! Search queries: `POST` and `GET …/messages/search`.

use chat_domain::{ChatNumber, Position, SenderId};
use chat_ports::search_index::{Scope, SearchCursor, SearchPage, Sort, Total};
use serde_json::json;

use crate::fixture::*;

async fn fixture_with_hits() -> Fixture {
    let fixture = Fixture::with_projector();
    fixture.append_and_project(app(), vec![app_created("first_app"), chat_created(1)]).await;
    *fixture.index.page.lock().unwrap() = Some(SearchPage {
        position: Position::new(2),
        hits: vec![hit(3, "a <fox>", "a &lt;<mark>fox</mark>&gt;")],
        total: Total::Exactly(9),
        next: Some(SearchCursor { score: 7, position: Position::new(255) }),
    });
    fixture
}

fn chat_search_path() -> String {
    path("/chats/1/messages/search")
}

#[tokio::test]
async fn post_and_get_return_the_same_hits() {
    let fixture = fixture_with_hits().await;
    let mut body = json!({
        "status": "success",
        "messages": [{
            "message_number": 3,
            "body": "a <fox>",
            "created_at": "2026-09-21T14:13:23.007Z",
            "updated_at": "2026-09-21T14:13:23.007Z",
            "snippet": "a &lt;<mark>fox</mark>&gt;",
            "score": 7,
        }],
        "total": 9,
        "total_relation": "eq",
    });
    let posted = fixture.post(&chat_search_path(), &json!({ "query": "fox" })).await;
    assert!(posted.body["next"].as_str().unwrap().starts_with("s7-ff-"), "{}", posted.body);
    body["next"] = posted.body["next"].clone();
    assert_eq!((posted.status.as_u16(), &posted.body), (200, &body));
    assert_eq!(fixture.get(&format!("{}?query=fox", chat_search_path())).await.body, body);
    let requests = fixture.index.requests.lock().unwrap();
    assert_eq!(requests[0], requests[1]);
    assert_eq!(requests[0].scope, Scope::Chat(token(), ChatNumber::FIRST));
    assert_eq!((requests[0].limit, requests[0].sort, requests[0].fuzzy), (20, Sort::Relevance, false));
}

#[tokio::test]
async fn hits_of_an_app_have_chat_numbers() {
    let fixture = fixture_with_hits().await;
    for reply in [
        fixture.post(&path("/messages/search"), &json!({ "query": "fox" })).await,
        fixture.get(&path("/messages/search?query=fox")).await,
    ] {
        assert_eq!(reply.body["messages"][0]["chat_number"], 1);
    }
    assert_eq!(fixture.index.requests.lock().unwrap()[0].scope, Scope::App(token()));
}

#[tokio::test]
async fn passes_parameters_to_the_index() {
    let fixture = fixture_with_hits().await;
    let body = json!({
        "query": "\"red fox\"", "fuzzy": true, "sort": "oldest", "from": "2026-01-01T00:00:00Z",
        "to": "2026-12-31T23:59:59.999+01:00", "limit": 3, "cursor": "s7-ff", "sender": "u-17", "track_total": 5,
    });
    assert_eq!(fixture.post(&chat_search_path(), &body).await.status, 200);
    let query = "query=%22red+fox%22&fuzzy=true&sort=oldest&from=2026-01-01T00:00:00Z\
                 &to=2026-12-31T23:59:59.999%2B01:00&limit=3&cursor=s7-ff&sender=u-17&track_total=5";
    assert_eq!(fixture.get(&format!("{}?{query}", chat_search_path())).await.status, 200);
    let requests = fixture.index.requests.lock().unwrap();
    assert_eq!(requests[0], requests[1]);
    assert_eq!(requests[0].query, "\"red fox\"");
    assert_eq!((requests[0].limit, requests[0].sort, requests[0].fuzzy), (3, Sort::Oldest, true));
    assert_eq!(requests[0].sender.as_ref().map(SenderId::as_str), Some("u-17"));
    assert_eq!(requests[0].count_up_to, 5);
    assert_eq!(requests[0].created_from.unwrap().to_string(), "2026-01-01T00:00:00.000Z");
    assert_eq!(requests[0].created_until.unwrap().to_string(), "2026-12-31T22:59:59.999Z");
    assert_eq!(requests[0].cursor, Some(SearchCursor { score: 7, position: Position::new(255) }));
}

#[tokio::test]
async fn a_cursor_leads_through_its_own_search_only() {
    let fixture = fixture_with_hits().await;
    let first = fixture.post(&chat_search_path(), &json!({ "query": "fox" })).await;
    let cursor = first.body["next"].as_str().unwrap();
    for (path, more, status) in [
        (chat_search_path(), json!({}), 200),
        (chat_search_path(), json!({ "limit": 5, "fuzzy": false, "sort": "relevance" }), 200),
        (chat_search_path(), json!({ "query": "foxes" }), 422),
        (chat_search_path(), json!({ "fuzzy": true }), 422),
        (chat_search_path(), json!({ "sort": "newest" }), 422),
        (chat_search_path(), json!({ "from": "2026-01-01T00:00:00Z" }), 422),
        (chat_search_path(), json!({ "to": "2026-01-01T00:00:00Z" }), 422),
        (chat_search_path(), json!({ "sender": "u-17" }), 422),
        (path("/chats/2/messages/search"), json!({}), 422),
        (path("/messages/search"), json!({}), 422),
    ] {
        let mut body = json!({ "query": "fox", "cursor": cursor });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let reply = fixture.post(&path, &body).await;
        assert_eq!(reply.status.as_u16(), status, "{path} {body}");
        if status != 200 {
            assert_eq!(reply.problem(), (422, "body_invalid"));
            let detail = reply.body["detail"].as_str().unwrap();
            assert!(detail.starts_with("`cursor` belongs to another list"), "{detail}");
        }
    }
    let by_url = async |query: &str| {
        fixture.get(&format!("{}?query={query}&cursor={cursor}", chat_search_path())).await
    };
    assert_eq!(by_url("fox").await.status, 200);
    assert_eq!(by_url("foxes").await.problem(), (400, "malformed_query"));
}

#[tokio::test]
async fn a_cursor_of_one_sender_is_refused_with_another_sender_or_none() {
    let fixture = fixture_with_hits().await;
    let first = json!({ "query": "fox", "sender": "u" });
    let first = fixture.post(&chat_search_path(), &first).await;
    let cursor = first.body["next"].as_str().unwrap();
    for (body, status) in [
        (json!({ "query": "fox", "sender": "u", "cursor": cursor }), 200),
        (json!({ "query": "fox", "sender": "v", "cursor": cursor }), 422),
        (json!({ "query": "fox", "cursor": cursor }), 422),
        (json!({ "query": "u fox", "cursor": cursor }), 422),
        (json!({ "query": "\"u\" fox", "cursor": cursor }), 422),
    ] {
        assert_eq!(fixture.post(&chat_search_path(), &body).await.status, status, "{body}");
    }
}

#[tokio::test]
async fn rejects_invalid_searches() {
    let fixture = fixture_with_hits().await;
    let long = "x".repeat(1_025);
    let many = vec!["word"; 33].join(" ");
    for (body, problem) in [
        (json!({ "query": " \t" }), (422, "query_blank")),
        (json!({ "query": "" }), (422, "query_blank")),
        (json!({ "query": long }), (422, "query_too_long")),
        (json!({ "query": many }), (422, "query_too_long")),
        (json!({}), (422, "body_invalid")),
        (json!({ "query": 7 }), (422, "body_invalid")),
        (json!({ "query": "x", "limit": 0 }), (422, "body_invalid")),
        (json!({ "query": "x", "limit": 101 }), (422, "body_invalid")),
        (json!({ "query": "x", "limit": -1 }), (422, "body_invalid")),
        (json!({ "query": "x", "limit": 1.5 }), (422, "body_invalid")),
        (json!({ "query": "x", "limit": u64::MAX }), (422, "body_invalid")),
        (json!({ "query": "x", "limit": 1e30 }), (422, "body_invalid")),
        (json!({ "query": "x", "sort": "best" }), (422, "body_invalid")),
        (json!({ "query": "x", "from": "yesterday" }), (422, "body_invalid")),
        (json!({ "query": "x", "cursor": "a1" }), (422, "body_invalid")),
    ] {
        let reply = fixture.post(&chat_search_path(), &body).await;
        assert_eq!(reply.problem(), problem, "{body}");
        if body.get("limit").is_some() {
            assert_eq!(reply.body["detail"], "`limit` must be a number from 1 to 100", "{body}");
        }
    }
    for (query, problem) in [
        ("", (422, "query_blank")),
        ("query=", (422, "query_blank")),
        ("query=x&limit=x", (400, "malformed_query")),
        ("query=x&fuzzy=yes", (400, "malformed_query")),
        ("query=x&to=1", (400, "malformed_query")),
    ] {
        let reply = fixture.get(&format!("{}?{query}", chat_search_path())).await;
        assert_eq!(reply.problem(), problem, "{query}");
    }
    assert!(fixture.index.requests.lock().unwrap().is_empty(), "an invalid search reached the index");
}

#[tokio::test]
async fn searching_a_missing_chat_or_app_is_not_found() {
    let fixture = fixture_with_hits().await;
    let query = json!({ "query": "fox" });
    let reply = fixture.post(&path("/chats/2/messages/search"), &query).await;
    assert_eq!(reply.problem(), (404, "chat_not_found"));
    let other = format!("/api/v1/apps/{}/messages/search", "x".repeat(36));
    assert_eq!(fixture.post(&other, &query).await.problem(), (404, "app_not_found"));
}

#[tokio::test]
async fn a_search_without_an_index_is_unavailable() {
    let fixture = fixture_with_hits().await;
    *fixture.index.page.lock().unwrap() = None;
    let reply = fixture.get(&format!("{}?query=fox", chat_search_path())).await;
    assert_eq!(reply.problem(), (503, "read_model_unavailable"));
}
