//! Message queries: `GET …/messages`, `GET …/messages/{message_number}`.

use serde_json::json;

use crate::fixture::*;

async fn fixture_with_messages(last: u64) -> Fixture {
    let fixture = Fixture::with_projector();
    fixture.append_and_project(app(), vec![app_created("first_app"), chat_created(1)]).await;
    if last > 0 {
        fixture.append_and_project(chat(1), messages(last)).await;
    }
    fixture
}

fn numbers(reply: &Reply) -> Vec<u64> {
    assert_eq!(reply.status, 200, "{}", reply.body);
    let messages = reply.body["messages"].as_array().unwrap();
    messages.iter().map(|message| message["message_number"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn lists_messages_as_last_edited_and_without_deleted_ones() {
    let fixture = fixture_with_messages(0).await;
    fixture
        .append_and_project(
            chat(1),
            vec![created(1, "Hi"), created(2, "gone"), edited(1, "Hello"), deleted(2)],
        )
        .await;
    let reply = fixture.get(&path("/chats/1/messages")).await;
    let body = json!({
        "status": "success",
        "messages": [{
            "message_number": 1,
            "body": "Hello",
            "created_at": "2026-09-21T14:13:20.007Z",
            "updated_at": "2026-09-21T14:13:22.007Z",
        }],
    });
    assert_eq!(reply.body, body);
    assert!(!reply.headers.contains_key("link"), "the only page has links: {:?}", reply.headers);
}

#[tokio::test]
async fn the_default_page_is_the_newest_and_links_lead_to_all_other_pages() {
    let fixture = fixture_with_messages(120).await;
    let newest = fixture.get(&path("/chats/1/messages")).await;
    assert_eq!(numbers(&newest), (71..=120).collect::<Vec<_>>());
    assert_eq!(newest.link("next"), None);

    let mut page = fixture.get(&path("/chats/1/messages?limit=50")).await;
    let mut backwards = numbers(&page);
    while let Some(older) = page.link("prev") {
        assert!(older.starts_with(&path("/chats/1/messages?limit=50&before=")), "{older}");
        page = fixture.get(&older).await;
        backwards.splice(0..0, numbers(&page));
    }
    assert_eq!(backwards, (1..=120).collect::<Vec<_>>());

    let mut forwards = numbers(&page);
    while let Some(newer) = page.link("next") {
        page = fixture.get(&newer).await;
        forwards.extend(numbers(&page));
    }
    assert_eq!(forwards, (1..=120).collect::<Vec<_>>());
}

#[tokio::test]
async fn cursors_lead_to_the_pages_of_the_links() {
    let fixture = fixture_with_messages(5).await;
    for query in ["limit=2", "limit=2&around=3", "after=7", "before=1"] {
        let page = fixture.get(&path(&format!("/chats/1/messages?{query}"))).await;
        for (relation, header) in [("next", "next-cursor"), ("prev", "prev-cursor")] {
            let Some(link) = page.link(relation) else {
                assert!(!page.headers.contains_key(header), "{query} {header}");
                continue;
            };
            let cursor_path = format!("/chats/1/messages?limit=2&cursor={}", page.header(header));
            let by_cursor = numbers(&fixture.get(&path(&cursor_path)).await);
            let limit = if link.contains("limit=") { "" } else { "&limit=2" };
            assert_eq!(
                by_cursor,
                numbers(&fixture.get(&format!("{link}{limit}")).await),
                "{query} {relation}"
            );
        }
    }
    // Cursors of version 0.1 don't name their list.
    assert_eq!(numbers(&fixture.get(&path("/chats/1/messages?cursor=n3")).await), [4, 5]);
    let page = fixture.get(&path("/chats/1/messages?limit=2")).await;
    let other_list = format!("/chats/2/messages?cursor={}", page.header("prev-cursor"));
    let refused = fixture.get(&path(&other_list)).await;
    assert_eq!(refused.problem(), (400, "malformed_query"));
    let detail = refused.body["detail"].as_str().unwrap();
    assert!(detail.starts_with("`cursor` belongs to another list"), "{detail}");
    for wrong in ["", "n", "n0", "a1", "n1-2", "%C3%A91"] {
        let reply = fixture.get(&path(&format!("/chats/1/messages?cursor={wrong}"))).await;
        assert_eq!(reply.problem(), (400, "malformed_query"), "{wrong}");
    }
}

#[tokio::test]
async fn a_page_around_a_message_links_in_both_directions() {
    let fixture = fixture_with_messages(20).await;
    let reply = fixture.get(&path("/chats/1/messages?around=10&limit=4")).await;
    assert!(numbers(&reply).contains(&10), "message 10 is not on its page: {:?}", numbers(&reply));
    assert_eq!(numbers(&reply).len(), 4);
    assert!(
        reply.link("prev").is_some() && reply.link("next").is_some(),
        "a link is missing: {:?}",
        reply.headers
    );
}

#[tokio::test]
async fn an_empty_page_links_back() {
    let fixture = fixture_with_messages(3).await;
    let beyond = fixture.get(&path("/chats/1/messages?after=7")).await;
    assert_eq!(numbers(&beyond), [0; 0]);
    assert_eq!(beyond.link("next"), None);
    assert_eq!(numbers(&fixture.get(&beyond.link("prev").unwrap()).await), [1, 2, 3]);
    let before = fixture.get(&path("/chats/1/messages?before=1")).await;
    assert_eq!(numbers(&before), [0; 0]);
    assert_eq!(numbers(&fixture.get(&before.link("next").unwrap()).await), [1, 2, 3]);
}

#[tokio::test]
async fn problems_name_the_malformed_parameter() {
    let fixture = fixture_with_messages(1).await;
    for (query, named) in [
        ("limit=0", "`limit`"),
        ("limit=101", "`limit`"),
        ("limit=", "`limit`"),
        ("before=0", "`before`"),
        ("after=x", "`after`"),
        ("around=-1", "`around`"),
        ("before=-1", "`before` must be the number of a message, from 1 up"),
        ("after=-1", "`after` must be the number of a message, from 0 up"),
        ("before=1&after=2", "`before`, `after`, `around` and `cursor`"),
        ("limit=1&limit=2", "`limit`"),
    ] {
        let reply = fixture.get(&path(&format!("/chats/1/messages?{query}"))).await;
        assert_eq!(reply.problem(), (400, "malformed_query"), "{query}");
        let detail = reply.body["detail"].as_str().unwrap();
        assert!(detail.contains(named), "{query}: {detail}");
    }
}

#[tokio::test]
async fn shows_a_message_with_its_version() {
    let fixture = fixture_with_messages(2).await;
    fixture.append_and_project(chat(1), vec![edited(2, "changed")]).await;
    let reply = fixture.get(&path("/chats/1/messages/2")).await;
    assert_eq!(reply.body["body"], "changed");
    assert_eq!(reply.header("etag"), "\"2\"");
    let same = fixture.get_with(&path("/chats/1/messages/2"), &[("if-none-match", "*")]).await;
    assert_eq!(same.status, 304);
}

#[tokio::test]
async fn distinguishes_deleted_from_missing_messages() {
    let fixture = fixture_with_messages(2).await;
    fixture.append_and_project(chat(1), vec![deleted(1)]).await;
    let reply = fixture.get(&path("/chats/1/messages/1")).await;
    assert_eq!(reply.problem(), (410, "message_deleted"));
    for number in ["3", "0", "x", "1.0"] {
        let reply = fixture.get(&path(&format!("/chats/1/messages/{number}"))).await;
        assert_eq!(reply.problem(), (404, "message_not_found"), "{number}");
    }
    assert_eq!(fixture.get(&path("/chats/2/messages/1")).await.problem(), (404, "chat_not_found"));
}
