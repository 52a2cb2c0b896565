//! `Consistency-Token`, `Prefer: wait`, `Read-Model-Lag`

use chat_ports::search_index::SearchPage;
use chat_web::consistency::ConsistencyToken;
use serde_json::json;

use crate::stage::*;

#[tokio::test]
async fn a_query_waits_until_its_token_is_reached() {
    let stage = Stage::live();
    stage.tell(app(), vec![app_created("first_app")]).await;
    stage.stop_projector().await;
    let position = stage.append(app(), vec![app_renamed("renamed")]).await;
    let token = ConsistencyToken(position).to_string();
    let path = path("");
    let headers = [("consistency-token", token.as_str()), ("prefer", "wait=10")];
    let query = stage.get_with(&path, &headers);
    let (answer, ()) = tokio::join!(query, async {
        // The query looks first and waits then.
        tokio::task::yield_now().await;
        stage.start_projector();
    });
    assert_eq!(answer.body["name"], "renamed");
    assert_eq!(answer.header("consistency-token"), token);
}

#[tokio::test]
async fn a_projection_that_does_not_come_in_time_is_behind() {
    let stage = Stage::live();
    let position = stage.tell(app(), vec![app_created("first_app")]).await;
    stage.stop_projector().await;
    let ahead = ConsistencyToken(chat_domain::Position::new(position.get() + 1)).to_string();
    let answer = stage.get_with(&path(""), &[("consistency-token", &ahead), ("prefer", "wait=0")]).await;
    assert_eq!(answer.problem(), (503, "read_model_behind"));
    assert_eq!(answer.header("retry-after"), "1");
}

#[tokio::test]
async fn without_a_token_a_query_answers_from_what_is_there_and_says_how_old_that_is() {
    let stage = Stage::live();
    let seen = stage.tell(app(), vec![app_created("first_app")]).await;
    stage.stop_projector().await;
    stage.append(app(), vec![app_renamed("renamed")]).await;
    let answer = stage.get(&path("")).await;
    assert_eq!(answer.body["name"], "first_app");
    assert_eq!(answer.header("consistency-token"), ConsistencyToken(seen).to_string());
    let recorded_at = at(1).millis();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let age = i64::try_from(now).unwrap() - recorded_at;
    let lag: i64 = answer.header("read-model-lag").parse().unwrap();
    assert!(lag <= age.max(0) && lag >= age.saturating_sub(60_000).max(0), "{lag} of {age}");
}

#[tokio::test]
async fn a_token_that_this_server_never_gave_out_is_malformed() {
    let stage = Stage::live();
    let answer = stage.get_with(&path(""), &[("consistency-token", "yesterday")]).await;
    assert_eq!(answer.problem(), (400, "malformed_query"));
    assert!(answer.body["detail"].as_str().unwrap().contains("Consistency-Token"));
}

#[tokio::test]
async fn a_search_waits_for_the_index_too() {
    let stage = Stage::live();
    let position = stage.tell(app(), vec![app_created("first_app"), chat_created(1)]).await;
    let page = |position| SearchPage { position, hits: Vec::new(), total: 0, next: None };
    *stage.index.page.lock().unwrap() = Some(page(chat_domain::Position::START));
    let token = ConsistencyToken(position).to_string();
    let path = path("/chats/1/messages/search?query=fox");
    let behind = stage.get_with(&path, &[("consistency-token", &token), ("prefer", "wait=0")]).await;
    assert_eq!(behind.problem(), (503, "read_model_behind"));

    let headers = [("consistency-token", token.as_str()), ("prefer", "wait=10")];
    let (answer, ()) = tokio::join!(stage.get_with(&path, &headers), async {
        tokio::task::yield_now().await;
        *stage.index.page.lock().unwrap() = Some(page(position));
    });
    assert_eq!(answer.body, json!({ "status": "success", "messages": [], "total": 0, "next": null }));
    assert_eq!(answer.header("consistency-token"), token);
}

#[tokio::test]
async fn before_any_projector_ran_queries_say_that_they_can_not_answer() {
    let stage = Stage::without_projector();
    let answer = stage.get(&path("")).await;
    assert_eq!(answer.problem(), (503, "read_model_unavailable"));
    assert_eq!(answer.header("retry-after"), "1");
}
