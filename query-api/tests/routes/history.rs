//! History query: `GET …/messages/{message_number}/history`.

use chat_domain::Event;
use chat_ports::MAX_PAGE_BYTES;
use serde_json::json;

use crate::fixture::*;

async fn history(fixture: &Fixture, message: u64) -> Vec<(String, Option<String>)> {
    let reply = fixture.get(&path(&format!("/chats/1/messages/{message}/history"))).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    let versions = reply.body["versions"].as_array().unwrap();
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    versions.iter().map(|version| (text(&version["event"]).unwrap(), text(&version["body"]))).collect()
}

#[tokio::test]
async fn reads_a_history_from_the_log_without_a_projection() {
    let fixture = Fixture::without_projector();
    fixture.append_and_project(app(), vec![app_created("first_app"), chat_created(1)]).await;
    fixture
        .append_and_project(
            chat(1),
            vec![created(1, "Hi"), created(2, "other"), edited(1, "Hello"), deleted(1)],
        )
        .await;
    let reply = fixture.get(&path("/chats/1/messages/1/history")).await;
    let body = json!({
        "message_number": 1,
        "versions": [
            { "body": "Hi", "at": "2026-09-21T14:13:20.007Z", "event": "MessageCreated" },
            { "body": "Hello", "at": "2026-09-21T14:13:22.007Z", "event": "MessageEdited" },
            { "at": "2026-09-21T14:13:23.007Z", "event": "MessageDeleted" },
        ],
    });
    assert_eq!((reply.status.as_u16(), &reply.body), (200, &body));
    assert_eq!(reply.header("read-model-lag"), "0");
}

#[tokio::test]
async fn finds_every_message_among_irregular_runs_of_edits() {
    let fixture = Fixture::without_projector();
    fixture.append_and_project(app(), vec![app_created("first_app"), chat_created(1)]).await;
    let mut events: Vec<Event> = Vec::new();
    for number in 1..=60 {
        events.push(created(number, &format!("message {number}")));
        // Runs of edits of irregular lengths.
        for edit in 0..(number * number * 7) % 11 {
            let edited_number = 1 + (number * 13 + edit * 5) % number;
            if (number + edit) % 3 != 0 {
                events.push(edited(edited_number, &format!("edit of {edited_number}")));
            }
        }
    }
    fixture.append_and_project(chat(1), events).await;
    for number in 1..=60 {
        let versions = history(&fixture, number).await;
        assert_eq!(versions[0], ("MessageCreated".to_owned(), Some(format!("message {number}"))));
        for version in &versions[1..] {
            assert_eq!(*version, ("MessageEdited".to_owned(), Some(format!("edit of {number}"))));
        }
    }
}

#[tokio::test]
async fn pages_through_a_long_history() {
    let fixture = Fixture::without_projector();
    fixture.append_and_project(app(), vec![app_created("first_app"), chat_created(1)]).await;
    let mut events = messages(2);
    events.extend((1..=250).flat_map(|edit| [edited(1, &edit.to_string()), edited(2, "noise")]));
    events.push(deleted(1));
    fixture.append_and_project(chat(1), events).await;
    let mut bodies = Vec::new();
    let mut next = Some(path("/chats/1/messages/1/history"));
    while let Some(page_url) = next {
        let reply = fixture.get(&page_url).await;
        let versions = reply.body["versions"].as_array().unwrap().clone();
        assert!(versions.len() <= 100, "{} versions on a page", versions.len());
        if let Some(cursor) = reply.headers.get("next-cursor") {
            let cursor = cursor.to_str().unwrap();
            for other in ["/chats/1/messages/2", "/chats/2/messages/1"] {
                let refused = fixture.get(&path(&format!("{other}/history?cursor={cursor}"))).await;
                assert_eq!(refused.problem(), (400, "malformed_query"), "{other}");
            }
        }
        bodies.extend(versions.iter().map(|version| version["body"].as_str().map(str::to_owned)));
        next = reply.link("next");
    }
    let mut expected = vec![Some("message 1".to_owned())];
    expected.extend((1..=250).map(|edit| Some(edit.to_string())));
    expected.push(None);
    assert_eq!(bodies, expected);
}

#[tokio::test]
async fn a_page_of_large_versions_ends_early_and_links_to_the_next() {
    let fixture = Fixture::without_projector();
    fixture.append_and_project(app(), vec![app_created("first_app"), chat_created(1)]).await;
    let body = |edit: u64| format!("{edit} {}", "x".repeat(65_000));
    let mut events = messages(1);
    events.extend((1..=40).map(|edit| edited(1, &body(edit))));
    fixture.append_and_project(chat(1), events).await;
    let mut versions = Vec::new();
    let mut next = Some(path("/chats/1/messages/1/history"));
    while let Some(page_url) = next {
        let reply = fixture.get(&page_url).await;
        let page = reply.body["versions"].as_array().unwrap();
        let bytes: usize = page.iter().map(|version| version["body"].as_str().unwrap().len()).sum();
        assert!(bytes <= MAX_PAGE_BYTES, "{bytes} bytes on a page");
        versions.extend(page.iter().map(|version| version["body"].as_str().unwrap().to_owned()));
        next = reply.link("next");
    }
    let expected: Vec<_> = std::iter::once("message 1".to_owned()).chain((1..=40).map(body)).collect();
    assert!(versions == expected, "the {} versions read are not the appended ones", versions.len());
}

#[tokio::test]
async fn an_empty_page_has_the_consistency_token_of_the_creation() {
    let fixture = Fixture::without_projector();
    fixture.append_and_project(app(), vec![app_created("first_app"), chat_created(1)]).await;
    fixture.append_and_project(chat(1), vec![created(1, "Hi"), edited(1, "a")]).await;
    let first = fixture.get(&path("/chats/1/messages/1/history?limit=1")).await;
    // A cursor after the last version.
    let cursor = first.header("next-cursor").replace("h1-0-", "h1-ff-");
    let empty = fixture.get(&path(&format!("/chats/1/messages/1/history?cursor={cursor}"))).await;
    assert_eq!(empty.body["versions"], serde_json::json!([]));
    assert_eq!(empty.header("consistency-token"), first.header("consistency-token"));
}

#[tokio::test]
async fn distinguishes_missing_apps_chats_and_messages() {
    let fixture = Fixture::without_projector();
    assert_eq!(fixture.get(&path("/chats/1/messages/1/history")).await.problem(), (404, "app_not_found"));
    fixture.append_and_project(app(), vec![app_created("first_app")]).await;
    assert_eq!(fixture.get(&path("/chats/1/messages/1/history")).await.problem(), (404, "chat_not_found"));
    fixture.append_and_project(app(), vec![chat_created(1)]).await;
    assert_eq!(fixture.get(&path("/chats/1/messages/1/history")).await.problem(), (404, "message_not_found"));
    fixture.append_and_project(chat(1), vec![created(1, "Hi"), edited(1, "a"), edited(1, "b")]).await;
    assert_eq!(fixture.get(&path("/chats/1/messages/2/history")).await.problem(), (404, "message_not_found"));
    assert_eq!(fixture.get(&path("/chats/1/messages/9/history")).await.problem(), (404, "message_not_found"));
    // Missing chats and messages are also distinguished if the creation of the newest chat can't be decoded.
    fixture.append_payloads(app(), vec![("{}".to_owned(), chat_created(2))]).await;
    assert_eq!(fixture.get(&path("/chats/1/messages/9/history")).await.problem(), (404, "message_not_found"));
    assert_eq!(fixture.get(&path("/chats/9/messages/1/history")).await.problem(), (404, "chat_not_found"));
}

#[tokio::test]
async fn rejects_malformed_cursors_and_those_of_another_message() {
    let fixture = Fixture::without_projector();
    for cursor in ["h2-1", "h1", "h1-ffffffffffffffff"] {
        let reply = fixture.get(&path(&format!("/chats/1/messages/1/history?cursor={cursor}"))).await;
        assert_eq!(reply.problem(), (400, "malformed_query"), "{cursor}");
    }
}
