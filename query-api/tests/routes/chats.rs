//! `GET /apps/{app_token}/chats`, `GET …/chats/{chat_number}`

use chat_domain::{AppToken, StreamId};
use serde_json::json;

use crate::stage::*;

#[tokio::test]
async fn an_app_without_chats_has_an_empty_list() {
    let stage = Stage::live();
    stage.tell(app(), vec![app_created("first_app")]).await;
    let answer = stage.get(&path("/chats")).await;
    let body = json!({ "status": "success", "message": "chats fetched successfully", "chats": [] });
    assert_eq!((answer.status.as_u16(), &answer.body), (200, &body));
    assert!(answer.link("next").is_none());
}

#[tokio::test]
async fn chats_are_listed_by_number_page_by_page() {
    let stage = Stage::live();
    let mut events = vec![app_created("first_app")];
    events.extend((1..=5).map(chat_created));
    stage.tell(app(), events).await;
    let first = stage.get(&path("/chats?limit=3")).await;
    let numbers = |answer: &Answer| -> Vec<u64> {
        let chats = answer.body["chats"].as_array().unwrap();
        chats.iter().map(|chat| chat["chat_number"].as_u64().unwrap()).collect()
    };
    assert_eq!(numbers(&first), [1, 2, 3]);
    let second = stage.get(&first.link("next").unwrap()).await;
    assert_eq!(numbers(&second), [4, 5]);
    assert!(second.link("next").is_none());
}

#[tokio::test]
async fn a_chat_counts_the_messages_that_exist() {
    let stage = Stage::live();
    stage.tell(app(), vec![app_created("first_app"), chat_created(1)]).await;
    stage.tell(chat(1), vec![created(1, "a"), created(2, "b"), deleted(1)]).await;
    let answer = stage.get(&path("/chats/1")).await;
    let body = json!({
        "chat_number": 1,
        "message_count": 1,
        "created_at": "2026-09-21T14:13:21.007Z",
        "updated_at": "2026-09-21T14:13:22.007Z",
    });
    assert_eq!((answer.status.as_u16(), &answer.body), (200, &body));
    assert_eq!(answer.header("etag"), "\"3\"");
    assert_eq!(stage.get_with(&path("/chats/1"), &[("if-none-match", "\"3\"")]).await.status, 304);
}

#[tokio::test]
async fn a_chat_that_is_not_there_is_told_from_an_app_that_is_not() {
    let stage = Stage::live();
    let another = AppToken::parse(&"x".repeat(36)).unwrap();
    stage.tell(StreamId::App(another), vec![app_created("another")]).await;
    assert_eq!(stage.get(&path("/chats")).await.problem(), (404, "app_not_found"));
    assert_eq!(stage.get(&path("/chats/1")).await.problem(), (404, "app_not_found"));
    stage.tell(app(), vec![app_created("first_app"), chat_created(1)]).await;
    for number in ["2", "0", "-1", "01", "x", "9223372036854775808"] {
        let answer = stage.get(&path(&format!("/chats/{number}"))).await;
        assert_eq!(answer.problem(), (404, "chat_not_found"), "{number}");
    }
}
