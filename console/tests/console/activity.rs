//! Tests of the page of operator actions.

use chat_domain::Position;
use chat_domain::operator_action::{DeadLettersRetried, ProjectionsPromoted, SigningKeyUsed};
use chat_domain::projection::{Generation, ProjectionGeneration, ProjectionName};
use http::StatusCode;

use crate::fixture::{Fixture, app_created, app_stream, chat_stream, token};

#[tokio::test]
async fn says_that_no_operator_has_acted_yet() {
    let fixture = Fixture::new().await;
    let page = fixture.get(&fixture.reader().await, "/console/activity").await;
    assert_eq!(page.status, StatusCode::OK);
    page.assert_shows(&["No operator has acted yet"]);
}

#[tokio::test]
async fn shows_who_did_what_and_why_without_tokens() {
    let fixture = Fixture::new().await;
    let app_position = fixture.append(app_stream(), app_created("Helpdesk")).await;
    let generation =
        ProjectionGeneration { projection: ProjectionName::ReadModel, generation: Generation(2) };
    fixture
        .act(ProjectionsPromoted { generations: vec![generation], reason: "<b>better</b>".to_owned() })
        .await;
    let retried = DeadLettersRetried {
        projection: ProjectionName::SearchIndex,
        stream: chat_stream().to_string(),
        reason: "a new version".to_owned(),
    };
    let retried_position = fixture.act(retried).await;
    let page = fixture.get(&fixture.reader().await, "/console/activity").await;
    page.assert_shows(&["nadia", "chat-api/9", "a new version", "Read model 2", "Search index", "better"]);
    assert!(page.body.contains(&format!("href=\"/console/apps/{app_position}/chats/1\"")), "{}", page.body);
    assert!(page.body.contains(&format!("href=\"/console/events/{retried_position}\"")));
    assert!(!page.body.contains("<b>better") && !page.body.contains(token().expose()));
    let newest = page.body.find("DeadLettersRetried</span>").unwrap();
    assert!(newest < page.body.find("ProjectionsPromoted</span>").unwrap());
}

#[tokio::test]
async fn actions_are_paged_by_position_and_filtered_by_operator_and_type() {
    let fixture = Fixture::new().await;
    let mut positions = Vec::new();
    for number in 0..51 {
        let action = SigningKeyUsed {
            key: "example+1".to_owned(),
            position: Position::new(number),
            events: number,
            root: "0".repeat(64),
            reason: format!("checkpoint {number}."),
        };
        positions.push(fixture.act(action).await);
    }
    let reader = fixture.reader().await;
    let first = fixture.get(&reader, "/console/activity").await;
    first.assert_shows(&["checkpoint 50.", "checkpoint 1."]);
    let older = format!("/console/activity?before={}", positions[1]);
    assert!(first.body.contains(&older) && !first.text().contains("checkpoint 0."));
    let last = fixture.get(&reader, &older).await;
    last.assert_shows(&["checkpoint 0."]);
    assert!(last.body.contains(&format!("/console/activity?after={}", positions[0])));
    for filter in ["?operator=nobody", "?type=RebuildStarted"] {
        let page = fixture.get(&reader, &format!("/console/activity{filter}")).await;
        page.assert_shows(&["No action matches"]);
    }
    let refused = fixture.get(&reader, "/console/activity?before=x").await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
}
