//! The search page and the find field.

use chat_domain::metadata::EventId;
use chat_domain::{ExpectedRevision, Metadata, Revision, Timestamp};
use chat_ports::event_store::{NewEvent, StreamAppend};
use http::StatusCode;
use uuid::Uuid;

use crate::fixture::{Fixture, app_created, chat_stream, message_created, token};
use crate::subjects::helpdesk;

#[tokio::test]
async fn each_hit_says_how_it_matched_and_where() {
    let fixture = helpdesk().await;
    let reader = fixture.reader().await;
    let page = fixture.get(&reader, "/console/search?query=cab&app=1").await;
    page.assert_shows(&[
        "1 hit",
        "prefix",
        "Check the cab le",
        "message 2",
        // The first match is at character 11.
        "11",
        "search index at position 6",
    ]);
    assert!(page.body.contains("Check the <mark>cab</mark>le"), "{}", page.body);
    let page =
        fixture.get(&reader, "/console/search?query=cabel&app=1&fuzzy=true&chat=1&sort=newest&limit=5").await;
    page.assert_shows(&["1 hit", "fuzzy"]);
    let page = fixture.get(&reader, "/console/search?query=mouse&app=1").await;
    page.assert_shows(&["0 hits", "No message matches"]);
}

#[tokio::test]
async fn a_search_without_an_app_asks_for_one() {
    let fixture = helpdesk().await;
    let reader = fixture.reader().await;
    fixture.get(&reader, "/console/search").await.assert_shows(&["Type a query"]);
    let page = fixture.get(&reader, "/console/search?query=cable").await;
    page.assert_shows(&["In which app?", "Helpdesk"]);
    assert!(page.body.contains("/console/search?query=cable&#38;app=1"), "{}", page.body);
    let token = token();
    let fields = [("query", "cable"), ("app", token.expose()), ("fuzzy", "true")];
    let reply = fixture.post(&reader, "/console/search", &fields).await;
    assert_eq!(reply.status, StatusCode::SEE_OTHER);
    assert_eq!(reply.location(), "/console/search?query=cable&fuzzy=true&app=1");
}

#[tokio::test]
async fn a_search_that_cant_be_read_says_why() {
    let fixture = helpdesk().await;
    let reader = fixture.reader().await;
    for (parameter, problem) in [
        ("chat=x", "chat-problem"),
        ("sort=best", "sort-problem"),
        ("limit=101", "limit-problem"),
        ("from=soon", "from-problem"),
        ("cursor=x", "query-problem"),
    ] {
        let page = fixture.get(&reader, &format!("/console/search?query=cable&app=1&{parameter}")).await;
        assert!(page.body.contains(&format!("id=\"{problem}\"")), "{parameter}: {}", page.text());
    }
    let long = "x".repeat(2_000);
    let page = fixture.get(&reader, &format!("/console/search?query={long}&app=1")).await;
    page.assert_shows(&["longer than the search index reads"]);
    let missing = fixture.get(&reader, "/console/search?query=x&app=2").await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_next_page_of_hits_follows_the_cursor() {
    let fixture = helpdesk().await;
    let last = fixture.append(chat_stream(), message_created(3, "Another cable")).await;
    fixture.wait_until_projected(last).await;
    let reader = fixture.reader().await;
    let first = fixture.get(&reader, "/console/search?query=cable&app=1&limit=1").await;
    first.assert_shows(&["2 hits", "message 3"]);
    let (_, next) = first.body.split_once("rel=\"next\" href=\"").unwrap();
    let next = next.split('"').next().unwrap().replace("&#38;", "&");
    let second = fixture.get(&reader, &next).await;
    second.assert_shows(&["2 hits", "message 2"]);
}

async fn find(fixture: &Fixture, text: &str) -> String {
    let reply = fixture.post(&fixture.reader().await, "/console/find", &[("q", text)]).await;
    assert_eq!(reply.status, StatusCode::SEE_OTHER, "{text}: {}", reply.text());
    reply.location().to_owned()
}

#[tokio::test]
async fn the_find_field_leads_to_the_page_of_its_text() {
    let fixture = helpdesk().await;
    assert_eq!(find(&fixture, "5").await, "/console/events/5");
    let event = fixture.log.event_at(chat_domain::Position::new(4)).await.unwrap().unwrap();
    assert_eq!(find(&fixture, &event.id.uuid().to_string()).await, "/console/events/4");
    assert_eq!(find(&fixture, "helpdesk").await, "/console/apps/1");
    assert_eq!(find(&fixture, token().expose()).await, "/console/apps/1");
    assert_eq!(find(&fixture, "kkkkkkkk").await, "/console/apps/1");
    assert_eq!(find(&fixture, "the cable").await, "/console/search?query=the+cable");
}

#[tokio::test]
async fn the_find_field_leads_to_the_events_of_a_trace() {
    let fixture = helpdesk().await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let metadata = Metadata { correlation_id: trace.to_owned(), ..Metadata::default() };
    let event = message_created(3, "A third message");
    let append = StreamAppend {
        stream: chat_stream().to_string().into(),
        expected_revision: ExpectedRevision::from_last_revision(Some(Revision::new(3))),
        events: vec![NewEvent {
            id: EventId::new(Uuid::new_v4()),
            event_type: event.event_type(),
            schema_version: event.schema_version(),
            recorded_at: Timestamp::from_millis(1_790_000_000_007),
            data: event.payload(),
            metadata: serde_json::to_string(&metadata).unwrap().into(),
        }],
    };
    fixture.log.append(vec![append]).await.remove(0).unwrap();
    assert_eq!(find(&fixture, trace).await, format!("/console/events?correlation={trace}"));
}

#[tokio::test]
async fn the_find_field_lists_several_pages_and_keeps_tokens_out_of_addresses() {
    let fixture = helpdesk().await;
    // The number 1 leads to two pages: of the event at position 1, and of the app that this event created.
    let reader = fixture.reader().await;
    let page = fixture.post(&reader, "/console/find", &[("q", "1")]).await;
    page.assert_shows(&["AppCreated at position 1", "Helpdesk"]);
    let unknown = "Zz9".repeat(12);
    let page = fixture.post(&reader, "/console/find", &[("q", &unknown)]).await;
    assert_eq!(page.status, StatusCode::OK);
    page.assert_shows(&["No app or event found for", "Messages were not searched"]);
    let other_app = chat_domain::StreamId::App(chat_domain::AppToken::parse(&"m".repeat(36)).unwrap());
    let last = fixture.append(other_app, app_created("Helpdesk 2")).await;
    fixture.wait_until_projected(last).await;
    let page = fixture.post(&reader, "/console/find", &[("q", "Helpd")]).await;
    page.assert_shows(&["Helpdesk", "Helpdesk 2"]);
}
