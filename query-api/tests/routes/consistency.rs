//! Tests of the consistency headers `Consistency-Token`, `Prefer: wait` and `Read-Model-Lag`.

use chat_domain::{Position, StreamId};
use chat_ports::event_store::LogId;
use chat_ports::search_index::SearchPage;
use chat_web::consistency::ConsistencyToken;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde_json::json;
use uuid::Uuid;

use crate::fixture::*;

#[tokio::test]
async fn a_query_waits_for_its_token() {
    let fixture = Fixture::with_projector();
    fixture.append_and_project(app(), vec![app_created("first_app")]).await;
    fixture.stop_projector().await;
    let position = fixture.append(app(), vec![app_renamed("renamed")]).await;
    let token = consistency_token(position);
    let path = path("");
    let headers = [("consistency-token", token.as_str()), ("prefer", "wait=10")];
    let query = fixture.get_with(&path, &headers);
    let (reply, ()) = tokio::join!(query, async {
        // Lets the query begin first.
        tokio::task::yield_now().await;
        fixture.start_projector();
    });
    assert_eq!(reply.body["name"], "renamed");
    assert_eq!(reply.header("consistency-token"), token);
}

#[tokio::test]
async fn a_query_fails_if_its_token_is_not_reached_in_time() {
    let fixture = Fixture::with_projector();
    fixture.append_and_project(app(), vec![app_created("first_app")]).await;
    fixture.stop_projector().await;
    let token = consistency_token(fixture.append(app(), vec![app_renamed("renamed")]).await);
    let reply = fixture.get_with(&path(""), &[("consistency-token", &token), ("prefer", "wait=0")]).await;
    assert_eq!(reply.problem(), (503, "read_model_behind"));
    assert_eq!(reply.header("retry-after"), "1");
}

#[tokio::test]
async fn refuses_a_token_beyond_the_head_of_the_log_at_once() {
    let fixture = Fixture::with_projector();
    let index_position =
        fixture.append_and_project(app(), vec![app_created("first_app"), chat_created(1)]).await;
    *fixture.index.page.lock().unwrap() = Some(SearchPage::empty(index_position));
    let head = fixture.append_and_project(chat(1), vec![created(1, "Hi")]).await;
    let beyond_the_head = consistency_token(Position::new(head.get() + 1));
    let tokens_beyond_the_head = [beyond_the_head, "v1-zzzzzzzzzzzz".to_owned()];
    for token in tokens_beyond_the_head {
        for route in ["", "/chats", "/chats/1", "/chats/1/messages", "/chats/1/messages/1/history"] {
            // A query that waited for its token would answer 503 after 10 s.
            let headers = [("consistency-token", token.as_str()), ("prefer", "wait=10")];
            let reply = fixture.get_with(&path(route), &headers).await;
            assert_eq!(reply.problem(), (400, "consistency_token_unknown"), "{route} {token}");
        }
        let search = path("/chats/1/messages/search?query=fox");
        let reply = fixture.get_with(&search, &[("consistency-token", token.as_str())]).await;
        assert_eq!(reply.problem(), (400, "consistency_token_unknown"), "{token}");
    }
    assert!(fixture.index.requests.lock().unwrap().is_empty(), "a refused search reached the index");
}

#[tokio::test]
async fn refuses_a_token_of_another_log() {
    let fixture = Fixture::with_projector();
    let position = fixture.append_and_project(app(), vec![app_created("first_app")]).await;
    let foreign_token = ConsistencyToken::new(LogId(Uuid::from_u128(83)).into(), position).to_string();
    for route in ["", "/chats/1/messages/1/history", "/messages/search?query=fox"] {
        let reply = fixture.get_with(&path(route), &[("consistency-token", &foreign_token)]).await;
        assert_eq!(reply.problem(), (400, "consistency_token_unknown"), "{route}");
    }
}

#[tokio::test]
async fn accepts_a_token_without_a_tag_up_to_the_head() {
    let fixture = Fixture::with_projector();
    let position = fixture.append_and_project(app(), vec![app_created("first_app")]).await;
    // The token has the position in base 36. Below 10, that is the same digit as in decimal.
    assert!(position.get() < 10, "position {position} differs in base 36");
    let token = format!("v1-{position}");
    let reply = fixture.get_with(&path(""), &[("consistency-token", &token)]).await;
    assert_eq!(
        (reply.status.as_u16(), reply.header("consistency-token")),
        (200, consistency_token(position).as_str())
    );
}

#[tokio::test]
async fn waiting_queries_of_one_app_do_not_block_those_of_another() {
    let fixture = Fixture::with_projector();
    fixture.append_and_project(app(), vec![app_created("first_app")]).await;
    fixture.append_and_project(StreamId::App(other_token()), vec![app_created("second_app")]).await;
    fixture.stop_projector().await;
    let token = consistency_token(fixture.append(app(), vec![app_renamed("renamed")]).await);
    let first_app = path("");
    let waiting = [("consistency-token", token.as_str()), ("prefer", "wait=10")];
    let mut first_app_queries: FuturesUnordered<_> =
        (0..300).map(|_| fixture.get_with(&first_app, &waiting)).collect();
    let too_many = "too many queries are waiting for their consistency token";
    for _ in 256..300 {
        // 256 queries of the first app wait. Its other 44 queries are refused at once.
        let refused = first_app_queries.next().await.unwrap();
        assert_eq!(refused.problem(), (503, "read_model_behind"));
        assert_eq!(refused.body["detail"], too_many);
    }
    let second_app = format!("/api/v1/apps/{}", other_token().expose());
    let headers = [("consistency-token", token.as_str()), ("prefer", "wait=0")];
    let reply = fixture.get_with(&second_app, &headers).await;
    assert_eq!(reply.problem(), (503, "read_model_behind"));
    assert_ne!(reply.body["detail"], too_many, "the query was not allowed to wait");
    fixture.start_projector();
    while let Some(reply) = first_app_queries.next().await {
        if reply.status == 503 {
            // On a slow machine, the wait may have ended before the projector has applied the event.
            assert_eq!(reply.problem(), (503, "read_model_behind"));
            assert_ne!(reply.body["detail"], too_many, "the query was not allowed to wait");
        } else {
            assert_eq!(reply.body["name"], "renamed");
        }
    }
    let reply = fixture.get_until_ok(&first_app, &waiting).await;
    assert_eq!(reply.body["name"], "renamed");
}

#[tokio::test]
async fn a_query_without_a_token_does_not_wait_and_reports_the_read_models_lag() {
    let fixture = Fixture::with_projector();
    let position = fixture.append_and_project(app(), vec![app_created("first_app")]).await;
    fixture.stop_projector().await;
    fixture.append(app(), vec![app_renamed("renamed")]).await;
    let reply = fixture.get_until_lag_is_reported(&path("")).await;
    assert_eq!(reply.body["name"], "first_app");
    assert_eq!(reply.header("consistency-token"), consistency_token(position));
    let recorded_at = at(1).millis();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let age = i64::try_from(now).unwrap() - recorded_at;
    let lag: i64 = reply.header("read-model-lag").parse().unwrap();
    assert!(
        lag <= age.max(0) && lag >= age.saturating_sub(60_000).max(0),
        "the lag is {lag} ms, the age of the event {age} ms"
    );
}

#[tokio::test]
async fn rejects_a_malformed_token() {
    let fixture = Fixture::with_projector();
    let reply = fixture.get_with(&path(""), &[("consistency-token", "yesterday")]).await;
    assert_eq!(reply.problem(), (400, "malformed_header"));
    let detail = reply.body["detail"].as_str().unwrap();
    assert!(detail.contains("Consistency-Token"), "the detail does not name the header: {detail}");
}

#[tokio::test]
async fn a_search_waits_for_the_index() {
    let fixture = Fixture::with_projector();
    let position = fixture.append_and_project(app(), vec![app_created("first_app"), chat_created(1)]).await;
    let empty_page = SearchPage::empty;
    *fixture.index.page.lock().unwrap() = Some(empty_page(Position::START));
    let token = consistency_token(position);
    let path = path("/chats/1/messages/search?query=fox");
    let behind = fixture.get_with(&path, &[("consistency-token", &token), ("prefer", "wait=0")]).await;
    assert_eq!(behind.problem(), (503, "read_model_behind"));

    let headers = [("consistency-token", token.as_str()), ("prefer", "wait=10")];
    let (reply, ()) = tokio::join!(fixture.get_with(&path, &headers), async {
        tokio::task::yield_now().await;
        *fixture.index.page.lock().unwrap() = Some(empty_page(position));
    });
    assert_eq!(
        reply.body,
        json!({ "status": "success", "messages": [], "total": 0, "total_relation": "eq", "next": null })
    );
    assert_eq!(reply.header("consistency-token"), token);
}

#[tokio::test]
async fn queries_are_unavailable_before_a_projector_has_started() {
    let fixture = Fixture::without_projector();
    let reply = fixture.get(&path("")).await;
    assert_eq!(reply.problem(), (503, "read_model_unavailable"));
    assert_eq!(reply.header("retry-after"), "1");
}
