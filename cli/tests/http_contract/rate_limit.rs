//! Tests of the rate limit of each app.

use serde_json::json;

use crate::contract::{Contract, assert_problem};
use crate::harness::api::{app_path, create_app};

#[tokio::test(flavor = "multi_thread")]
async fn an_app_over_its_limit_gets_a_retry_after() {
    // The quota hardly refills while the test runs.
    let contract = Contract::start_with(|options| options.with("--rate-limit", "5/h")).await;
    let token = contract.app().await;
    let chats = format!("{}/chats", app_path(&token));
    for remaining in (0..5).rev() {
        let created = contract.post(chats.clone(), &json!({})).await.expect(201);
        assert!(
            created.header("ratelimit").contains(&format!("r={remaining}")),
            "{}",
            created.header("ratelimit")
        );
        assert!(created.header("ratelimit-policy").contains("q=5"), "{}", created.header("ratelimit-policy"));
    }
    let refused = contract.post(chats, &json!({})).await;
    assert_problem(&refused, 429, "rate_limited");
    let seconds: u64 = refused.header("retry-after").parse().expect("seconds");
    assert!((1..=3_600).contains(&seconds), "{seconds}");
    assert!(refused.header("ratelimit").contains("r=0"));
    assert!(refused.has("ratelimit-policy"));
    assert_problem(&contract.get(app_path(&token)).await, 429, "rate_limited");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_app_has_its_own_limit() {
    let contract = Contract::start_with(|options| options.with("--rate-limit", "1/h")).await;
    let (first, second) = (contract.app().await, create_app(contract.client(), "second").await);
    for token in [first, second] {
        let chats = format!("{}/chats", app_path(&token));
        contract.post(chats.clone(), &json!({})).await.expect(201);
        let refused = contract.post(chats, &json!({})).await;
        assert_problem(&refused, 429, "rate_limited");
        assert!(refused.has("consistency-token"), "the refusal lacks its consistency token");
    }
    contract.client().get("/readyz").send_until(200).await;
}
