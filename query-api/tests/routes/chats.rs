//! Chat queries: `GET /apps/{app_token}/chats`, `GET …/chats/{chat_number}`.

use chat_domain::{AppToken, StreamId};
use serde_json::json;

use crate::fixture::*;

#[tokio::test]
async fn lists_no_chats_for_an_empty_app() {
    let fixture = Fixture::with_projector();
    fixture.append_and_project(app(), vec![app_created("first_app")]).await;
    let reply = fixture.get(&path("/chats")).await;
    let body = json!({ "status": "success", "message": "chats fetched successfully", "chats": [] });
    assert_eq!((reply.status.as_u16(), &reply.body), (200, &body));
    assert_eq!(reply.link("next"), None);
}

#[tokio::test]
async fn lists_chats_in_pages_by_number() {
    let fixture = Fixture::with_projector();
    let mut events = vec![app_created("first_app")];
    events.extend((1..=5).map(chat_created));
    fixture.append_and_project(app(), events).await;
    let first = fixture.get(&path("/chats?limit=3")).await;
    let numbers = |reply: &Reply| -> Vec<u64> {
        let chats = reply.body["chats"].as_array().unwrap();
        chats.iter().map(|chat| chat["chat_number"].as_u64().unwrap()).collect()
    };
    assert_eq!(numbers(&first), [1, 2, 3]);
    let second = fixture.get(&first.link("next").unwrap()).await;
    assert_eq!(numbers(&second), [4, 5]);
    assert_eq!(second.link("next"), None);
    let by_cursor = format!("/chats?limit=3&cursor={}", first.header("next-cursor"));
    assert_eq!(numbers(&fixture.get(&path(&by_cursor)).await), [4, 5]);
    let of_another_app = format!("/api/v1/apps/{}{by_cursor}", "x".repeat(36));
    assert_eq!(fixture.get(&of_another_app).await.problem(), (400, "malformed_query"));
}

#[tokio::test]
async fn the_message_count_excludes_deleted_messages() {
    let fixture = Fixture::with_projector();
    fixture.append_and_project(app(), vec![app_created("first_app"), chat_created(1)]).await;
    fixture.append_and_project(chat(1), vec![created(1, "a"), created(2, "b"), deleted(1)]).await;
    let reply = fixture.get(&path("/chats/1")).await;
    let body = json!({
        "chat_number": 1,
        "message_count": 1,
        "created_at": "2026-09-21T14:13:21.007Z",
        "updated_at": "2026-09-21T14:13:22.007Z",
    });
    assert_eq!((reply.status.as_u16(), &reply.body), (200, &body));
    assert_eq!(reply.header("etag"), "\"3\"");
    assert_eq!(fixture.get_with(&path("/chats/1"), &[("if-none-match", "\"3\"")]).await.status, 304);
}

#[tokio::test]
async fn distinguishes_a_missing_chat_from_a_missing_app() {
    let fixture = Fixture::with_projector();
    let another = AppToken::parse(&"x".repeat(36)).unwrap();
    fixture.append_and_project(StreamId::App(another), vec![app_created("another")]).await;
    assert_eq!(fixture.get(&path("/chats")).await.problem(), (404, "app_not_found"));
    assert_eq!(fixture.get(&path("/chats/1")).await.problem(), (404, "app_not_found"));
    fixture.append_and_project(app(), vec![app_created("first_app"), chat_created(1)]).await;
    for number in ["2", "0", "-1", "01", "x", "9223372036854775808"] {
        let reply = fixture.get(&path(&format!("/chats/{number}"))).await;
        assert_eq!(reply.problem(), (404, "chat_not_found"), "{number}");
    }
}
