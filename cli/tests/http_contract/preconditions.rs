//! Tests of `ETag`, `If-None-Match` and `If-Match`.

use http::Method;
use serde_json::json;

use crate::contract::{Contract, assert_problem};
use crate::harness::api::{app_path, chat_path, message_path};

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_version_is_answered_with_304() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    let created = contract.message(&token, "Hi").await;
    for path in [app_path(&token), chat_path(&token, 1), message_path(&token, 1, 1)] {
        let read = contract.get_after(&created, path.clone()).await.expect(200);
        let tag = read.header("etag").to_owned();
        assert!(tag.starts_with('"') && tag.ends_with('"') && tag.len() > 2, "{tag} is not strong");

        let get = || contract.client().get(path.clone());
        for known in [tag.clone(), format!("\"other\", {tag}"), format!("W/{tag}"), "*".to_owned()] {
            let head = contract.client().request(Method::HEAD, path.clone());
            for call in [get(), head] {
                let unchanged = contract.send(call.header("if-none-match", &known)).await.expect(304);
                assert!(unchanged.body.is_empty() && !unchanged.has("content-length"), "{known}");
                assert_eq!(unchanged.header("etag"), tag);
            }
        }
        for other in ["\"other\"", "\"0\"", "\"999999\""] {
            contract.send(get().header("if-none-match", other)).await.expect(200);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rename_and_an_edit_change_the_tags() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    let mut command = contract.message(&token, "Hi").await;
    let paths = [app_path(&token), chat_path(&token, 1), message_path(&token, 1, 1)];
    let mut tags = Vec::new();
    for path in &paths {
        tags.push(contract.get_after(&command, path.clone()).await.header("etag").to_owned());
    }
    contract.put(app_path(&token), &json!({ "name": "other" })).await.expect(200);
    command = contract.put(message_path(&token, 1, 1), &json!({ "body": "Hello" })).await.expect(200);
    for (path, tag) in paths.iter().zip(tags) {
        assert_ne!(contract.get_after(&command, path.clone()).await.header("etag"), tag, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_a_stale_version_is_refused() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    let created = contract.message(&token, "Hi").await;
    let changes = [
        (app_path(&token), json!({ "name": "other" })),
        (message_path(&token, 1, 1), json!({ "body": "other" })),
    ];
    for (path, change) in changes {
        let tag = contract.get_after(&created, path.clone()).await.expect(200).header("etag").to_owned();
        let put = || contract.client().put(path.clone(), &change);
        for stale in ["\"999\"", "\"other\"", "\"0\""] {
            assert_problem(&contract.send(put().header("if-match", stale)).await, 412, "precondition_failed");
        }
        // A weak tag never matches (RFC 9110, 13.1.1).
        let weak = put().header("if-match", &format!("W/{tag}"));
        assert_problem(&contract.send(weak).await, 412, "precondition_failed");

        contract.send(put().header("if-match", &tag)).await.expect(200);
        assert_problem(&contract.send(put().header("if-match", &tag)).await, 412, "precondition_failed");
        contract.send(put().header("if-match", "*")).await.expect(200);
        contract.send(put()).await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_of_a_stale_version_or_one_in_if_none_match_is_refused() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    let created = contract.message(&token, "Hi").await;
    let path = message_path(&token, 1, 1);
    let tag = contract.get_after(&created, path.clone()).await.expect(200).header("etag").to_owned();
    let delete = |name: &'static str, value: &str| contract.client().delete(path.clone()).header(name, value);
    for (name, value) in [("if-match", "\"999\""), ("if-none-match", &tag), ("if-none-match", "*")] {
        assert_problem(&contract.send(delete(name, value)).await, 412, "precondition_failed");
    }
    contract.send(delete("if-match", &tag)).await.expect(204);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_a_version_in_if_none_match_is_refused() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    let created = contract.message(&token, "Hi").await;
    let changes = [
        (app_path(&token), json!({ "name": "other" })),
        (message_path(&token, 1, 1), json!({ "body": "other" })),
    ];
    for (path, change) in changes {
        let tag = contract.get_after(&created, path.clone()).await.expect(200).header("etag").to_owned();
        let put = || contract.client().put(path.clone(), &change);
        for excluded in ["*".to_owned(), tag.clone(), format!("W/{tag}")] {
            let refused = contract.send(put().header("if-none-match", &excluded)).await;
            assert_problem(&refused, 412, "precondition_failed");
        }
        contract.send(put().header("if-none-match", "\"999\"")).await.expect(200);
        // That change has made a new version, so `tag` no longer excludes the current one.
        contract.send(put().header("if-none-match", &tag)).await.expect(200);
    }
    let missing = contract.client().put(message_path(&token, 1, 2), &json!({ "body": "x" }));
    assert_problem(&contract.send(missing.header("if-none-match", "*")).await, 404, "message_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_precondition_does_not_hide_a_missing_message() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    let put = contract.client().put(message_path(&token, 1, 1), &json!({ "body": "x" }));
    assert_problem(&contract.send(put.header("if-match", "\"1\"")).await, 404, "message_not_found");
    contract.message(&token, "Hi").await;
    contract.delete(message_path(&token, 1, 1)).await.expect(204);
    let put = contract.client().put(message_path(&token, 1, 1), &json!({ "body": "x" }));
    assert_problem(&contract.send(put.header("if-match", "\"1\"")).await, 410, "message_deleted");
}
