//! The pages of dead letters.

use chat_domain::operator_action::DeadLetterDiscarded;
use chat_domain::projection::ProjectionName;
use http::StatusCode;

use crate::fixture::{Fixture, token};

#[tokio::test]
async fn says_that_there_are_no_dead_letters() {
    let fixture = Fixture::new().await;
    let page = fixture.get(&fixture.reader().await, "/console/dead-letters").await;
    page.assert_shows(&["No dead letters"]);
    let missing = fixture.get(&fixture.reader().await, "/console/dead-letters/7").await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    let missing = fixture.get(&fixture.reader().await, "/console/dead-letters/x").await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn groups_dead_letters_and_says_which_commands_are_refused() {
    let fixture = Fixture::new().await;
    let position = fixture.with_dead_letter().await;
    let reader = fixture.reader().await;
    let page = fixture.get(&reader, "/console/dead-letters").await;
    let group = "MessagePinned : unknown event type 1 event in 1 stream.";
    page.assert_shows(&[group, "Helpdesk", "blocks its stream", "edits and deletions are refused"]);
    assert!(page.body.contains(&format!("/console/dead-letters/{position}")));
    assert!(!page.body.contains(token().expose()));
    let all = fixture.get(&reader, "/console/dead-letters?projection=read_model&all=true").await;
    all.assert_shows(&["waits behind another"]);
    let rest = fixture.get(&reader, &format!("/console/dead-letters?after={position}")).await;
    rest.assert_shows(&["No more dead letters"]);
    let refused = fixture.get(&reader, "/console/dead-letters?projection=x").await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn shows_a_dead_letter_with_its_event_and_what_a_retry_would_do() {
    let fixture = Fixture::new().await;
    let position = fixture.with_dead_letter().await;
    let page = fixture.get(&fixture.reader().await, &format!("/console/dead-letters/{position}")).await;
    page.assert_shows(&["Read model blocks its stream", "Search index", "blocked again", "message_number"]);
    assert!(!page.body.contains(token().expose()));
}

#[tokio::test]
async fn shows_who_discarded_a_dead_letter_and_why() {
    let fixture = Fixture::new().await;
    let position = fixture.with_dead_letter().await;
    let projection = ProjectionName::ReadModel;
    let discard = DeadLetterDiscarded { projection, position, reason: "of a test".to_owned() };
    let discarded = fixture.act(discard).await;
    fixture.wait_until_projected(discarded).await;
    let page = fixture.get(&fixture.reader().await, &format!("/console/dead-letters/{position}")).await;
    page.assert_shows(&["discarded, not acknowledged", "by nadia", "of a test", "not yet"]);
}
