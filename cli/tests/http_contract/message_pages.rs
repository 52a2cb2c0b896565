//! Tests of the pages of `…/messages`.

use serde_json::json;

use crate::contract::{Contract, assert_problem};
use crate::harness::api::{API, app_path, chat_path, message_path, number};
use crate::harness::client::Reply;

fn message_numbers(page: &Reply) -> Vec<u64> {
    let body = page.json();
    body["messages"]
        .as_array()
        .expect("messages")
        .iter()
        .map(|message| number(message, "message_number"))
        .collect()
}

/// Follows a link relation from a page to the end, and returns the message numbers of each page. Each request sends the
/// consistency token of the last command, so that the pages have the change of that command.
async fn follow(contract: &Contract, last_command: &Reply, start: String, relation: &str) -> Vec<Vec<u64>> {
    let mut pages = Vec::new();
    let mut next = Some(start);
    while let Some(path) = next {
        let page = contract.get_after(last_command, path).await.expect(200);
        pages.push(message_numbers(&page));
        next = page.links().remove(relation);
        assert!(pages.len() < 100, "the links form a cycle");
    }
    pages
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_without_messages_has_an_empty_page() {
    let contract = Contract::start().await;
    let token = contract.app().await;
    let chats = format!("{}/chats", app_path(&token));
    let created = contract.post(chats, &json!({})).await.expect(201);
    let page = contract.get_after(&created, format!("{}/messages", chat_path(&token, 1))).await.expect(200);
    assert_eq!(page.json(), json!({ "status": "success", "messages": [] }));
    assert!(!page.has("link"));
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_lead_from_end_to_end_in_both_directions() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    let mut last_command = contract.message(&token, "1").await;
    for body in 2..=10 {
        last_command = contract.message(&token, &body.to_string()).await;
    }
    let messages = format!("{}/messages", chat_path(&token, 1));

    let older = follow(&contract, &last_command, format!("{messages}?limit=4"), "prev").await;
    assert_eq!(older, [vec![7, 8, 9, 10], vec![3, 4, 5, 6], vec![1, 2]]);
    let newer = follow(&contract, &last_command, format!("{messages}?limit=4&after=0"), "next").await;
    assert_eq!(newer, [vec![1, 2, 3, 4], vec![5, 6, 7, 8], vec![9, 10]]);

    let newest = contract.get_after(&last_command, format!("{messages}?limit=4")).await;
    assert!(!newest.links().contains_key("next"), "the newest page links to a newer one");
    let all = contract.get_after(&last_command, messages).await;
    assert_eq!(message_numbers(&all).len(), 10);
    assert!(!all.has("link"), "the page has all messages, and links to another page");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_page_holds_the_messages_of_its_window() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    let mut last_command = contract.message(&token, "1").await;
    for body in 2..=9 {
        last_command = contract.message(&token, &body.to_string()).await;
    }
    let messages = format!("{}/messages", chat_path(&token, 1));
    let windows: [(&str, &[u64]); 8] = [
        ("limit=3", &[7, 8, 9]),
        ("limit=3&before=5", &[2, 3, 4]),
        ("limit=3&before=1", &[]),
        ("limit=3&before=2", &[1]),
        ("limit=3&after=5", &[6, 7, 8]),
        ("limit=3&after=9", &[]),
        ("limit=3&around=5", &[4, 5, 6]),
        ("limit=100", &[1, 2, 3, 4, 5, 6, 7, 8, 9]),
    ];
    for (query, expected) in windows {
        let page = contract.get_after(&last_command, format!("{messages}?{query}")).await.expect(200);
        assert_eq!(message_numbers(&page), expected, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_skip_deleted_messages() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    for body in 1..=8 {
        contract.message(&token, &body.to_string()).await;
    }
    let mut last_command = None;
    for message in [1, 3, 4, 8] {
        last_command = Some(contract.delete(message_path(&token, 1, message)).await.expect(204));
    }
    let last_command = last_command.expect("a deletion");
    let messages = format!("{}/messages", chat_path(&token, 1));
    let newer = follow(&contract, &last_command, format!("{messages}?limit=2&after=0"), "next").await;
    assert_eq!(newer.concat(), [2, 5, 6, 7]);
    let older = follow(&contract, &last_command, format!("{messages}?limit=2"), "prev").await;
    assert_eq!(older, [vec![6, 7], vec![2, 5]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_page_is_refused() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    let messages = format!("{}/messages", chat_path(&token, 1));
    for query in [
        "limit=0",
        "limit=101",
        "limit=-1",
        "limit=x",
        "limit=",
        "before=x",
        "before=0",
        "after=-1",
        "around=0",
        "before=3&after=1",
        "around=3&after=1",
        "before=3&around=1",
        "limit=1&limit=2",
    ] {
        assert_problem(&contract.get(format!("{messages}?{query}")).await, 400, "malformed_query");
    }
    for list in [format!("{API}/apps"), format!("{}/chats", app_path(&token))] {
        for query in ["limit=0", "limit=101", "limit=x", "cursor=nonsense", "cursor="] {
            assert_problem(&contract.get(format!("{list}?{query}")).await, 400, "malformed_query");
        }
    }
}
