//! Tests that text is returned as it was sent.

use serde_json::json;

use crate::contract::Contract;
use crate::harness::api::{API, chat_path, message_path, number};

#[tokio::test(flavor = "multi_thread")]
async fn bodies_come_back_byte_for_byte() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    let longest = ["\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467} ".repeat(3_449), "x".repeat(5)].concat();
    assert_eq!(longest.len(), 65_536);
    let texts = [
        longest.as_str(),
        "\u{1f98a}",
        "שלום \u{202e}abc\u{202c} عالم",
        "e\u{301} is not \u{e9}",
        "  leading and trailing  ",
        "\u{feff}byte order mark",
        "line\r\nbreaks\tand\u{b}controls\u{1}\u{7f}",
        "\"quotes\" \\ / </script> &amp; %20 '; DROP TABLE messages; --",
        "\u{fffd}\u{ffff}\u{10ffff}",
        "\u{200b}",
        "null",
    ];
    for text in texts {
        let created = contract.message(&token, text).await;
        let message = number(&created.json(), "message_number");
        let read = contract.get_after(&created, message_path(&token, 1, message)).await.expect(200);
        assert_eq!(read.json()["body"], *text);
        let edit = contract.put(message_path(&token, 1, message), &json!({ "body": text })).await.expect(200);
        let history = format!("{}/history", message_path(&token, 1, message));
        let history = contract.get_after(&edit, history).await.expect(200).json();
        assert_eq!(history["versions"][1]["body"], *text);
    }
    let page = contract.get(format!("{}/messages", chat_path(&token, 1))).await.expect(200).json();
    let bodies: Vec<_> =
        page["messages"].as_array().expect("messages").iter().map(|m| m["body"].clone()).collect();
    assert_eq!(bodies, texts);
}

#[tokio::test(flavor = "multi_thread")]
async fn escaped_and_plain_json_are_the_same_text() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    let path = format!("{}/messages", chat_path(&token, 1));
    let escaped = r#"{"body":"\ud83e\udd8a \u0041\/\n"}"#;
    let call = contract.client().request(http::Method::POST, path);
    let created =
        contract.send(call.header("content-type", "application/json").body(escaped)).await.expect(201);
    let read = contract.get_after(&created, message_path(&token, 1, 1)).await.expect(200);
    assert_eq!(read.json()["body"], "\u{1f98a} A/\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_come_back_as_they_were_sent() {
    let contract = Contract::start().await;
    for name in ["\u{1f98a}", " padded ", "שלום", "<b>&amp;</b>", "a/b?c#d"] {
        let created = contract.post(format!("{API}/apps"), &json!({ "name": name })).await.expect(201);
        assert_eq!(created.json()["data"]["name"], name);
        let read = contract.get_after(&created, created.header("location")).await.expect(200);
        assert_eq!(read.json()["name"], name);
    }
}
