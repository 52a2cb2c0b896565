//! Tests of `/apps` and `/apps/{app_token}`.

use serde_json::json;

use crate::contract::{Contract, NO_APP, assert_problem, without_times};
use crate::harness::api::{API, app_path};

#[tokio::test(flavor = "multi_thread")]
async fn an_app_is_created_and_read() {
    let contract = Contract::start().await;
    let created = contract.post(format!("{API}/apps"), &json!({ "name": "first_app" })).await.expect(201);

    let body = created.json();
    let token = body["data"]["app_token"].as_str().expect("a token");
    assert_eq!(
        body,
        json!({
            "status": "success",
            "message": "App created successfully",
            "data": { "app_token": token, "name": "first_app" },
        })
    );
    assert_eq!(token.len(), 36);
    assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() && !b"0OIl".contains(&byte)), "{token}");
    assert_eq!(created.header("location"), app_path(token));

    let read = contract.get_after(&created, created.header("location")).await.expect(200);
    assert_eq!(
        without_times(read.json()),
        json!({ "name": "first_app", "app_token": token, "chat_count": 0, "created_at": "T", "updated_at": "T" })
    );
    assert_eq!(read.json()["created_at"], read.json()["updated_at"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_is_renamed() {
    let contract = Contract::start().await;
    let token = contract.app().await;
    let renamed = contract.put(app_path(&token), &json!({ "name": "renamed" })).await.expect(200);
    assert_eq!(renamed.json(), json!({ "status": "success", "message": "App renamed successfully" }));

    let read = contract.get_after(&renamed, app_path(&token)).await.expect(200).json();
    assert_eq!(read["name"], "renamed");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_not_unique_and_tokens_are() {
    let contract = Contract::start().await;
    let tokens = [contract.app().await, contract.app().await, contract.app().await];
    assert!(tokens[0] != tokens[1] && tokens[1] != tokens[2] && tokens[0] != tokens[2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_of_apps_is_paged_to_exhaustion() {
    let contract = Contract::start().await;
    let empty = contract.get(format!("{API}/apps")).await.expect(200);
    assert_eq!(empty.json(), json!([]));

    let mut last_command = None;
    for number in 1..=7 {
        let body = json!({ "name": format!("app {number}") });
        last_command = Some(contract.post(format!("{API}/apps"), &body).await.expect(201));
    }
    let last_command = last_command.expect("an app");
    let (mut names, mut pages) = (Vec::new(), 0);
    let mut next = Some(format!("{API}/apps?limit=3"));
    while let Some(path) = next {
        let page = contract.get_after(&last_command, path).await.expect(200);
        let apps = page.json();
        let apps = apps.as_array().expect("an array");
        names.extend(apps.iter().map(|app| app["name"].as_str().expect("a name").to_owned()));
        next = page.links().remove("next");
        pages += 1;
    }
    assert_eq!(names, (1..=7).map(|number| format!("app {number}")).collect::<Vec<_>>());
    assert_eq!(pages, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_does_not_exist_is_not_found() {
    let contract = Contract::start().await;
    for token in [NO_APP, "x", "0", &"0".repeat(36), &"z".repeat(37), "%00", "a%2Fb"] {
        let app = app_path(token);
        for path in ["", "/chats", "/chats/1", "/chats/1/messages", "/chats/1/messages/1"] {
            assert_problem(&contract.get(format!("{app}{path}")).await, 404, "app_not_found");
        }
        assert_problem(
            &contract.get(format!("{app}/chats/1/messages/1/history")).await,
            404,
            "app_not_found",
        );
        for path in ["/messages/search?query=fox", "/chats/1/messages/search?query=fox"] {
            assert_problem(&contract.get(format!("{app}{path}")).await, 404, "app_not_found");
        }
        let query = json!({ "query": "fox" });
        for path in ["/messages/search", "/chats/1/messages/search"] {
            assert_problem(&contract.post(format!("{app}{path}"), &query).await, 404, "app_not_found");
        }
        assert_problem(&contract.put(app.clone(), &json!({ "name": "x" })).await, 404, "app_not_found");
        assert_problem(&contract.post(format!("{app}/chats"), &json!({})).await, 404, "app_not_found");
        let body = json!({ "body": "x" });
        assert_problem(&contract.post(format!("{app}/chats/1/messages"), &body).await, 404, "app_not_found");
        assert_problem(&contract.put(format!("{app}/chats/1/messages/1"), &body).await, 404, "app_not_found");
        assert_problem(&contract.delete(format!("{app}/chats/1/messages/1")).await, 404, "app_not_found");
    }
}
