//! The pages of an earlier state of an app, a chat or a message, and of the changes between two states.

use http::StatusCode;

use crate::fixture::token;
use crate::subjects::helpdesk;

const CHAT: &str = "/console/apps/1/chats/1";

#[tokio::test]
async fn shows_the_state_at_a_position() {
    let fixture = helpdesk().await;
    let reader = fixture.reader().await;
    let page = fixture.get(&reader, &format!("{CHAT}/messages/1?at=5")).await;
    page.assert_shows(&[
        "As of position 5",
        "present",
        "Is the mouse on?",
        "MessageCreated 3",
        "Change at 6",
    ]);
    let page = fixture.get(&reader, &format!("{CHAT}/messages/1?at=6")).await;
    page.assert_shows(&["deleted", "Change at 3", "No later change"]);
    let page = fixture.get(&reader, &format!("{CHAT}/messages/2?at=3")).await;
    page.assert_shows(&["Not created yet", "position 4", "Change at 4"]);
    let page = fixture.get(&reader, &format!("{CHAT}?at=5")).await;
    page.assert_shows(&["message_count", "2 MessageCreated 4"]);
    page.assert_shows(&["Is the mouse on?", "Check the cable", "edited, 2 versions"]);
    let page = fixture.get(&reader, &format!("{CHAT}?at=4")).await;
    page.assert_shows(&["Is the mouse on?", "Check the plug"]);
    assert!(page.body.contains(&format!("href=\"{CHAT}/messages/2?at=4\"")), "{}", page.body);
    let page = fixture.get(&reader, &format!("{CHAT}?at=6")).await;
    page.assert_shows(&["Deleted at position 6", "Check the cable"]);
    let page = fixture.get(&reader, "/console/apps/1?at=1").await;
    page.assert_shows(&["chat_count", "Helpdesk", "kkkk…"]);
    assert!(!page.body.contains(token().expose()));
}

#[tokio::test]
async fn a_point_is_a_position_or_a_time_and_is_limited_to_the_log() {
    let fixture = helpdesk().await;
    let reader = fixture.reader().await;
    let page = fixture.get(&reader, "/console/apps/1?at=99").await;
    page.assert_shows(&["As of position 6", "beyond the head of the log"]);
    let page = fixture.get(&reader, "/console/apps/1?at=2020-01-01T00:00:00Z").await;
    page.assert_shows(&["As of position 0", "Not created yet"]);
    for path in
        ["/console/apps/1?at=soon", "/console/apps/1/diff?from=soon", "/console/apps/1/diff?from=3&to=2"]
    {
        let refused = fixture.get(&reader, path).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{path}");
        assert!(refused.body.contains("-problem\" role=\"alert\""), "{path}");
    }
    for path in [format!("{CHAT}/messages/3?at=1"), "/console/apps/1/chats/2/diff".to_owned()] {
        assert_eq!(fixture.get(&reader, &path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test]
async fn shows_what_changed_between_two_positions() {
    let fixture = helpdesk().await;
    let reader = fixture.reader().await;
    let page = fixture.get(&reader, &format!("{CHAT}/messages/2/diff?from=4&to=5")).await;
    assert!(page.body.contains("Check the <del>plug</del><ins>cable</ins>"), "{}", page.body);
    page.assert_shows(&["version", "MessageEdited 5"]);
    let page = fixture.get(&reader, &format!("{CHAT}/messages/2/diff?from=5")).await;
    page.assert_shows(&["No field changed"]);
    let page = fixture.get(&reader, &format!("{CHAT}/diff")).await;
    page.assert_shows(&["message_count", "MessageDeleted 6", "Events in between"]);
}
