//! Consistency: `Consistency-Token`, `Prefer: wait`, `Read-Model-Lag`.

use chat_ports::search_index::SearchPage;
use chat_web::consistency::ConsistencyToken;
use serde_json::json;

use crate::fixture::*;

#[tokio::test]
async fn a_query_waits_for_its_token() {
    let fixture = Fixture::live();
    fixture.append_and_project(app(), vec![app_created("first_app")]).await;
    fixture.stop_projector().await;
    let position = fixture.append(app(), vec![app_renamed("renamed")]).await;
    let token = ConsistencyToken(position).to_string();
    let path = path("");
    let headers = [("consistency-token", token.as_str()), ("prefer", "wait=10")];
    let query = fixture.get_with(&path, &headers);
    let (reply, ()) = tokio::join!(query, async {
        // Lets the query run once and start to wait.
        tokio::task::yield_now().await;
        fixture.start_projector();
    });
    assert_eq!(reply.body["name"], "renamed");
    assert_eq!(reply.header("consistency-token"), token);
}

#[tokio::test]
async fn a_query_fails_if_its_token_is_not_reached_in_time() {
    let fixture = Fixture::live();
    let position = fixture.append_and_project(app(), vec![app_created("first_app")]).await;
    fixture.stop_projector().await;
    let ahead = ConsistencyToken(chat_domain::Position::new(position.get() + 1)).to_string();
    let reply = fixture.get_with(&path(""), &[("consistency-token", &ahead), ("prefer", "wait=0")]).await;
    assert_eq!(reply.problem(), (503, "read_model_behind"));
    assert_eq!(reply.header("retry-after"), "1");
}

#[tokio::test]
async fn a_query_without_a_token_does_not_wait_and_reports_its_lag() {
    let fixture = Fixture::live();
    let position = fixture.append_and_project(app(), vec![app_created("first_app")]).await;
    fixture.stop_projector().await;
    fixture.append(app(), vec![app_renamed("renamed")]).await;
    let reply = fixture.get(&path("")).await;
    assert_eq!(reply.body["name"], "first_app");
    assert_eq!(reply.header("consistency-token"), ConsistencyToken(position).to_string());
    let recorded_at = at(1).millis();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let age = i64::try_from(now).unwrap() - recorded_at;
    let lag: i64 = reply.header("read-model-lag").parse().unwrap();
    assert!(lag <= age.max(0) && lag >= age.saturating_sub(60_000).max(0), "{lag} of {age}");
}

#[tokio::test]
async fn rejects_a_malformed_token() {
    let fixture = Fixture::live();
    let reply = fixture.get_with(&path(""), &[("consistency-token", "yesterday")]).await;
    assert_eq!(reply.problem(), (400, "malformed_query"));
    assert!(reply.body["detail"].as_str().unwrap().contains("Consistency-Token"));
}

#[tokio::test]
async fn a_search_waits_for_the_index() {
    let fixture = Fixture::live();
    let position = fixture.append_and_project(app(), vec![app_created("first_app"), chat_created(1)]).await;
    let page = |position| SearchPage { position, hits: Vec::new(), total: 0, next: None };
    *fixture.index.page.lock().unwrap() = Some(page(chat_domain::Position::START));
    let token = ConsistencyToken(position).to_string();
    let path = path("/chats/1/messages/search?query=fox");
    let behind = fixture.get_with(&path, &[("consistency-token", &token), ("prefer", "wait=0")]).await;
    assert_eq!(behind.problem(), (503, "read_model_behind"));

    let headers = [("consistency-token", token.as_str()), ("prefer", "wait=10")];
    let (reply, ()) = tokio::join!(fixture.get_with(&path, &headers), async {
        tokio::task::yield_now().await;
        *fixture.index.page.lock().unwrap() = Some(page(position));
    });
    assert_eq!(reply.body, json!({ "status": "success", "messages": [], "total": 0, "next": null }));
    assert_eq!(reply.header("consistency-token"), token);
}

#[tokio::test]
async fn queries_are_unavailable_before_the_first_projection() {
    let fixture = Fixture::without_projector();
    let reply = fixture.get(&path("")).await;
    assert_eq!(reply.problem(), (503, "read_model_unavailable"));
    assert_eq!(reply.header("retry-after"), "1");
}
