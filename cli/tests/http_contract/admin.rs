//! Tests of the admin token: the list of apps needs it, creating and using an app doesn't.

use crate::contract::{Contract, assert_problem};
use crate::harness::api::{API, app_path};

const TOKEN: &str = "correct-horse-battery-staple";

#[tokio::test(flavor = "multi_thread")]
async fn the_list_of_apps_needs_the_admin_token_if_one_is_set() {
    let contract = Contract::start_with(|options| options.with("--admin-token", TOKEN)).await;
    let list = || contract.client().get(format!("{API}/apps"));

    let missing = contract.send(list()).await;
    assert_problem(&missing, 401, "admin_token_missing");
    assert!(missing.header("www-authenticate").starts_with("Bearer"), "no challenge of Bearer: {missing:?}");
    for not_bearer in ["Basic dXNlcjpwYXNz", TOKEN, ""] {
        let reply = contract.send(list().header("authorization", not_bearer)).await;
        assert_problem(&reply, 401, "admin_token_missing");
    }
    let almost = &TOKEN[..TOKEN.len() - 1];
    for wrong in ["Bearer x", &format!("Bearer {almost}"), &format!("Bearer {TOKEN}x")] {
        assert_problem(&contract.send(list().header("authorization", wrong)).await, 403, "admin_token_wrong");
    }
    for right in [format!("Bearer {TOKEN}"), format!("bearer {TOKEN}")] {
        contract.send(list().header("authorization", &right)).await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn creating_and_using_an_app_needs_no_admin_token() {
    let contract = Contract::start_with(|options| options.with("--admin-token", TOKEN)).await;
    let token = contract.app_with_chat().await;
    let created = contract.message(&token, "Hi").await;
    contract.get_after(&created, app_path(&token)).await.expect(200);
    contract.get("/livez").await.expect(200);
}
