//! Tests of `/apps/{app_token}/chats` and `…/chats/{chat_number}`.

use http::Method;
use serde_json::json;

use crate::contract::{Contract, assert_problem, without_times};
use crate::harness::api::{app_path, chat_path, number};

#[tokio::test(flavor = "multi_thread")]
async fn chats_are_numbered_from_one_in_each_app() {
    let contract = Contract::start().await;
    for token in [contract.app().await, contract.app().await] {
        for expected in 1..=3 {
            let created = contract.post(format!("{}/chats", app_path(&token)), &json!({})).await.expect(201);
            assert_eq!(
                created.json(),
                json!({ "message": "Chat created successfully", "chat_number": expected })
            );
            assert_eq!(created.header("location"), chat_path(&token, expected));
            let read = contract.get_after(&created, created.header("location")).await.expect(200);
            assert_eq!(
                without_times(read.json()),
                json!({ "chat_number": expected, "message_count": 0, "created_at": "T", "updated_at": "T" })
            );
            let app = contract.get_after(&created, app_path(&token)).await.expect(200);
            assert_eq!(number(&app.json(), "chat_count"), expected);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn creating_a_chat_needs_no_body_and_accepts_any_json() {
    let contract = Contract::start().await;
    let path = format!("{}/chats", app_path(&contract.app().await));
    let post = || contract.client().request(Method::POST, path.clone());
    contract.send(post()).await.expect(201);
    contract.send(post().header("content-type", "application/json")).await.expect(201);
    contract.send(post().header("content-type", "text/plain")).await.expect(201);
    for body in [json!({ "name": "x" }), json!([1, 2]), json!("text"), json!(null), json!(17)] {
        contract.send(post().json(&body)).await.expect(201);
    }
    let broken = post().header("content-type", "application/json").body("{");
    assert_problem(&contract.send(broken).await, 400, "malformed_json");
    let foreign = post().header("content-type", "text/plain").body("hello");
    assert_problem(&contract.send(foreign).await, 415, "unsupported_media_type");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_of_chats_is_paged_to_exhaustion() {
    let contract = Contract::start().await;
    let token = contract.app().await;
    let chats = format!("{}/chats", app_path(&token));
    let app = contract.get(app_path(&token)).await;
    let empty = contract.get_after(&app, chats.clone()).await.expect(200);
    assert_eq!(
        empty.json(),
        json!({ "status": "success", "message": "chats fetched successfully", "chats": [] })
    );

    let mut last_command = None;
    for _ in 1..=5 {
        last_command = Some(contract.post(chats.clone(), &json!({})).await.expect(201));
    }
    let last_command = last_command.expect("a chat");
    let (mut numbers, mut pages) = (Vec::new(), 0);
    let mut next = Some(format!("{chats}?limit=2"));
    while let Some(path) = next {
        let page = contract.get_after(&last_command, path).await.expect(200);
        let body = page.json();
        numbers
            .extend(body["chats"].as_array().expect("chats").iter().map(|chat| number(chat, "chat_number")));
        next = page.links().remove("next");
        pages += 1;
    }
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
    assert_eq!(pages, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_that_does_not_exist_is_not_found() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    let app = app_path(&token);
    for chat in ["2", "0", "-1", "01", "1.0", "x", "9223372036854775808", "99999999999999999999999"] {
        let chat = format!("{app}/chats/{chat}");
        for path in ["", "/messages", "/messages/1", "/messages/1/history", "/messages/search?query=fox"] {
            assert_problem(&contract.get(format!("{chat}{path}")).await, 404, "chat_not_found");
        }
        let body = json!({ "body": "x", "query": "x" });
        for path in ["/messages", "/messages/search"] {
            assert_problem(&contract.post(format!("{chat}{path}"), &body).await, 404, "chat_not_found");
        }
        assert_problem(&contract.put(format!("{chat}/messages/1"), &body).await, 404, "chat_not_found");
        assert_problem(&contract.delete(format!("{chat}/messages/1")).await, 404, "chat_not_found");
    }
}
