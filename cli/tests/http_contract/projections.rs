//! Tests of the operator routes for projections, dead letters and the check of events.

use serde_json::{Value, json};

use crate::contract::{Contract, assert_problem};

const ADMIN: &str = "/admin/v1";
const TOKEN: &str = "correct-horse-battery-staple";

/// Returns the data of a response, and asserts the status `ok`: the response has no findings.
async fn get_data(contract: &Contract, path: &str) -> Value {
    let mut answer = contract.get(format!("{ADMIN}{path}")).await.expect(200).json();
    assert_eq!((&answer["version"], &answer["status"]), (&1.into(), &"ok".into()), "{path}: {answer}");
    assert!(answer["diagnostics"].is_array(), "{path}");
    answer["data"].take()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_system_without_findings_is_reported_as_ok() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    contract.messages(&token, &["one", "two"]).await;

    let generations = get_data(&contract, "/projections").await;
    let all = generations["generations"].as_array().expect("generations").iter();
    let live =
        all.filter(|generation| generation["standing"] == "live").map(|generation| &generation["projection"]);
    assert_eq!(live.collect::<Vec<_>>(), ["read_model", "search_index"], "{generations}");

    for query in ["", "?all=true", "?all=false&projection=read_model&limit=1&after=0", "?stream=chat-x-1"] {
        let dead_letters = get_data(&contract, &format!("/dead-letters{query}")).await;
        assert_eq!((&dead_letters["letters"], &dead_letters["more"]), (&json!([]), &false.into()), "{query}");
    }
    for unknown in ["1", "999999999999", "x", "-1"] {
        let refused = contract.get(format!("{ADMIN}/dead-letters/{unknown}")).await;
        assert_problem(&refused, 404, "event_not_found");
    }

    let checked = get_data(&contract, "/events/check").await;
    assert_eq!((&checked["events"], &checked["findings"]), (&4.into(), &json!([])));
    assert_eq!(checked["types"], json!({ "AppCreated": 1, "ChatCreated": 1, "MessageCreated": 2 }));
    let next_page =
        get_data(&contract, &format!("/events/check?limit=1&after={}", checked["position"])).await;
    assert_eq!((&next_page["events"], &next_page["position"]), (&0.into(), &checked["position"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_parameters_are_named() {
    let contract = Contract::start().await;
    for (path, parameter) in [
        ("dead-letters?projection=read-model", "`projection`"),
        ("dead-letters?all=yes", "`all`"),
        ("dead-letters?after=x", "`after`"),
        ("dead-letters?limit=0", "`limit`"),
        ("dead-letters?limit=1001", "`limit`"),
        ("events/check?after=-1", "`after`"),
        ("events/check?limit=x", "`limit`"),
    ] {
        let refused = contract.get(format!("{ADMIN}/{path}")).await;
        assert_problem(&refused, 400, "malformed_query");
        let detail = refused.json()["detail"].as_str().expect("a detail").to_owned();
        assert!(detail.contains(parameter), "{path}: {detail}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn projection_dead_letter_and_check_routes_need_the_admin_token_if_one_is_set() {
    let contract = Contract::start_with(|options| options.with("--admin-token", TOKEN)).await;
    for path in ["projections", "dead-letters", "dead-letters/1", "events/check"] {
        let request = || contract.client().get(format!("{ADMIN}/{path}"));
        assert_problem(&contract.send(request()).await, 401, "admin_token_missing");
        let wrong = request().header("authorization", "Bearer wrong");
        assert_problem(&contract.send(wrong).await, 403, "admin_token_wrong");
    }
    let list = contract.client().get(format!("{ADMIN}/projections"));
    contract.send(list.header("authorization", &format!("Bearer {TOKEN}"))).await.expect(200);
}
