//! App queries: `GET /apps`, `GET /apps/{app_token}`.

use chat_domain::{AppToken, StreamId};
use serde_json::json;

use crate::fixture::*;

fn numbered_token(number: u8) -> AppToken {
    AppToken::parse(&char::from(b'a' + number).to_string().repeat(36)).unwrap()
}

fn bearer() -> String {
    format!("Bearer {ADMIN_TOKEN}")
}

#[tokio::test]
async fn shows_an_app() {
    let fixture = Fixture::with_projector();
    fixture
        .append_and_project(app(), vec![app_created("first_app"), chat_created(1), app_renamed("renamed")])
        .await;
    let reply = fixture.get_until_lag_is_reported(&path("")).await;
    let body = json!({
        "name": "renamed",
        "app_token": token().expose(),
        "chat_count": 1,
        "created_at": "2026-09-21T14:13:20.007Z",
        "updated_at": "2026-09-21T14:13:22.007Z",
    });
    assert_eq!((reply.status.as_u16(), reply.body.clone()), (200, body));
    assert_eq!(reply.header("etag"), "\"3\"");
    assert_eq!(reply.header("read-model-lag"), "0");
    let consistency_token = reply.header("consistency-token");
    assert!(consistency_token.starts_with("v1-"), "{consistency_token}");
}

#[tokio::test]
async fn answers_304_for_a_cached_version() {
    let fixture = Fixture::with_projector();
    fixture.append_and_project(app(), vec![app_created("first_app")]).await;
    let same = fixture.get_with(&path(""), &[("if-none-match", "\"0\", W/\"1\"")]).await;
    assert_eq!(same.status, 304);
    assert!(same.body.is_null(), "a 304 with a body: {}", same.body);
    assert_eq!(same.header("etag"), "\"1\"");
    assert!(same.headers.contains_key("consistency-token"), "a 304 without a token: {:?}", same.headers);
    let other = fixture.get_with(&path(""), &[("if-none-match", "\"2\"")]).await;
    assert_eq!(other.status, 200);
}

#[tokio::test]
async fn a_missing_app_is_a_404_with_a_consistency_token() {
    let fixture = Fixture::with_projector();
    fixture.append_and_project(StreamId::App(numbered_token(0)), vec![app_created("another")]).await;
    let reply = fixture.get_with(&path(""), &[("x-request-id", "request-1")]).await;
    assert_eq!(reply.problem(), (404, "app_not_found"));
    assert!(reply.headers.contains_key("consistency-token"), "a 404 without a token: {:?}", reply.headers);
    insta::assert_json_snapshot!(reply.body, @r#"
    {
      "code": "app_not_found",
      "detail": "no app has this token",
      "message": "no app has this token",
      "request_id": "request-1",
      "status": 404,
      "title": "App not found",
      "type": "/docs/errors/app_not_found"
    }
    "#);
}

#[tokio::test]
async fn a_malformed_token_is_not_found() {
    let fixture = Fixture::with_projector();
    for wrong in ["short", &"0".repeat(36), "%00", "%ff"] {
        let reply = fixture.get(&format!("/api/v1/apps/{wrong}")).await;
        assert_eq!(reply.status, 404, "{wrong}");
    }
}

#[tokio::test]
async fn lists_apps_in_pages_in_creation_order() {
    let fixture = Fixture::with_projector();
    for number in 0..5 {
        fixture
            .append_and_project(
                StreamId::App(numbered_token(number)),
                vec![app_created(&format!("app {number}"))],
            )
            .await;
    }
    let mut names = Vec::new();
    let mut next = Some("/api/v1/apps?limit=2".to_owned());
    let mut pages = 0;
    while let Some(page_url) = next {
        let reply = fixture.get_with(&page_url, &[("authorization", &bearer())]).await;
        assert_eq!(reply.status, 200);
        let apps = reply.body.as_array().unwrap().clone();
        names.extend(apps.iter().map(|app| app["name"].as_str().unwrap().to_owned()));
        next = reply.link("next");
        let is_page_url = |url: &str| url.starts_with("/api/v1/apps?limit=2&cursor=");
        assert!(next.as_deref().is_none_or(is_page_url), "the link leads elsewhere: {next:?}");
        pages += 1;
    }
    assert_eq!(names, ["app 0", "app 1", "app 2", "app 3", "app 4"]);
    assert_eq!(pages, 3);
}

#[tokio::test]
async fn refuses_to_list_apps_without_an_operator_token() {
    let fixture = Fixture::with_projector();
    let anonymous = fixture.get("/api/v1/apps?limit=wrong").await;
    assert_eq!(anonymous.problem(), (401, "admin_token_missing"));
    assert_eq!(anonymous.header("www-authenticate"), "Bearer realm=\"admin\"");
    let other = fixture.get_with("/api/v1/apps", &[("authorization", "Bearer x")]).await;
    assert_eq!(other.problem(), (403, "admin_token_wrong"));
}

#[tokio::test]
async fn rejects_a_cursor_that_is_not_of_the_list() {
    let fixture = Fixture::with_projector();
    fixture.append_and_project(app(), vec![app_created("first_app")]).await;
    for cursor in ["c1", "a", "a1-1", "1", "zzz"] {
        let path = format!("/api/v1/apps?cursor={cursor}");
        let reply = fixture.get_with(&path, &[("authorization", &bearer())]).await;
        assert_eq!(reply.problem(), (400, "malformed_query"), "{cursor}");
        let detail = reply.body["detail"].as_str().unwrap();
        assert!(detail.contains("`cursor`"), "the detail does not name the parameter: {detail}");
    }
}
