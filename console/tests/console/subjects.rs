//! The pages of apps, chats and messages.

use chat_domain::event::{AppRenamed, ChatCreated, MessageCreated, MessageDeleted, MessageEdited};
use chat_domain::operator_action::DeadLetterDiscarded;
use chat_domain::projection::ProjectionName;
use chat_domain::{
    AppName, ChatNumber, DataChange, MessageBody, MessageNumber, Position, Sender, SenderId, SenderName,
    StreamId,
};
use http::StatusCode;

use crate::fixture::{Fixture, app_created, app_stream, chat_stream, message_created, token};

pub fn edited(number: u64, body: &str) -> MessageEdited {
    MessageEdited {
        message_number: MessageNumber::try_from(number).unwrap(),
        body: MessageBody::parse(body.to_owned()).unwrap(),
        data: DataChange::Keep,
    }
}

pub fn deleted(number: u64) -> MessageDeleted {
    MessageDeleted { message_number: MessageNumber::try_from(number).unwrap() }
}

/// The creation of a message with a sender and data.
fn sent(number: u64, body: &str, sender: &str) -> MessageCreated {
    MessageCreated {
        message_number: MessageNumber::try_from(number).unwrap(),
        body: MessageBody::parse(body.to_owned()).unwrap(),
        sender: Some(Sender {
            id: SenderId::parse(sender.to_owned()).unwrap(),
            name: Some(SenderName::parse(format!("Name of {sender}")).unwrap()),
        }),
        data: Some(r#"{"client":"ios"}"#.parse().unwrap()),
    }
}

/// An app "Helpdesk" at position 1 with a chat that has one deleted and one edited message.
pub async fn helpdesk() -> Fixture {
    let fixture = Fixture::new().await;
    fixture.append(app_stream(), app_created("Helpdesk")).await;
    fixture.append(app_stream(), ChatCreated { chat_number: ChatNumber::FIRST }).await;
    fixture.append(chat_stream(), sent(1, "Is the mouse on?", "u-17")).await;
    fixture.append(chat_stream(), message_created(2, "Check the plug")).await;
    fixture.append(chat_stream(), edited(2, "Check the cable")).await;
    let last = fixture.append(chat_stream(), deleted(1)).await;
    fixture.wait_until_projected(last).await;
    fixture
}

#[tokio::test]
async fn lists_apps_without_their_tokens() {
    let fixture = Fixture::new().await;
    let reader = fixture.reader().await;
    fixture.get(&reader, "/console/apps").await.assert_shows(&["No apps yet"]);
    let position = fixture.append(app_stream(), app_created("Helpdesk")).await;
    fixture.wait_until_projected(position).await;
    let page = fixture.get(&reader, "/console/apps").await;
    page.assert_shows(&["Helpdesk", "kkkk…"]);
    assert!(page.body.contains(&format!("href=\"/console/apps/{position}\"")), "{}", page.body);
    assert!(!page.body.contains(token().expose()));
    fixture.get(&reader, "/console/apps?after=99").await.assert_shows(&["No later apps"]);
    let refused = fixture.get(&reader, "/console/apps?after=x").await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn finds_an_app_by_name_token_or_position_and_lists_several() {
    let fixture = helpdesk().await;
    let reader = fixture.reader().await;
    for text in ["Helpdesk", "helpdesk", "lpde", "kkkk", "kkkk…", token().expose(), "1"] {
        let reply = fixture.post(&reader, "/console/apps", &[("q", text)]).await;
        assert_eq!((reply.status, reply.location()), (StatusCode::SEE_OTHER, "/console/apps/1"), "{text}");
    }
    let other = StreamId::App(chat_domain::AppToken::parse(&"m".repeat(36)).unwrap());
    let last = fixture.append(other, app_created("Helpdesk")).await;
    fixture.wait_until_projected(last).await;
    let several = fixture.post(&reader, "/console/apps", &[("q", "Helpdesk")]).await;
    several.assert_shows(&["2 apps fit", "kkkk…", "mmmm…"]);
    let none = fixture.post(&reader, "/console/apps", &[("q", "nothing")]).await;
    none.assert_shows(&["No app fits"]);
}

#[tokio::test]
async fn shows_an_app_with_its_chats_and_earlier_names() {
    let fixture = helpdesk().await;
    let renamed = AppRenamed { name: AppName::parse("Support".to_owned()).unwrap() };
    let renamed = fixture.append(app_stream(), renamed).await;
    fixture.wait_until_projected(renamed).await;
    let reader = fixture.reader().await;
    let page = fixture.get(&reader, "/console/apps/1").await;
    page.assert_shows(&["Support", "Chat 1", "Helpdesk until position 7", "agree up to position 7"]);
    assert!(!page.body.contains(token().expose()));
    let redirect = fixture.get(&reader, "/console/apps/1?chat=1").await;
    assert_eq!(redirect.location(), "/console/apps/1/chats/1");
    for missing in ["/console/apps/2", "/console/apps/x", "/console/apps/99", "/console/apps/1/chats/2"] {
        assert_eq!(fixture.get(&reader, missing).await.status, StatusCode::NOT_FOUND, "{missing}");
    }
}

#[tokio::test]
async fn hands_out_a_token_only_to_a_form() {
    let fixture = helpdesk().await;
    let reader = fixture.reader().await;
    let page = fixture.post(&reader, "/console/apps/1/token", &[]).await;
    page.assert_shows(&[token().expose()]);
    assert_eq!(page.headers["cache-control"], "no-store");
    let text = fixture.post_accepting(&reader, "/console/apps/1/token", &[], "text/plain").await;
    assert_eq!(
        (text.body.as_str(), &text.headers["content-type"]),
        (token().expose(), &"text/plain; charset=utf-8".parse().unwrap())
    );
    let read = fixture.get(&reader, "/console/apps/1/token").await;
    assert_eq!((read.status, read.location()), (StatusCode::SEE_OTHER, "/console/apps/1"));
}

#[tokio::test]
async fn shows_messages_and_where_the_missing_ones_were_deleted() {
    let fixture = helpdesk().await;
    let reader = fixture.reader().await;
    let page = fixture.get(&reader, "/console/apps/1/chats/1").await;
    page.assert_shows(&["Check the cable", "edited, 2 versions", "Deleted at position 6", "1 (2 created)"]);
    let of_sender = fixture.get(&reader, "/console/apps/1/chats/1?sender=u-17").await;
    of_sender.assert_shows(&["No message of this sender here"]);
    let before = fixture.get(&reader, "/console/apps/1/chats/1?before=2").await;
    before.assert_shows(&["Deleted at position 6"]);
    assert!(!before.text().contains("Check the cable"));
    for (query, expected) in [
        ("?before=x", StatusCode::BAD_REQUEST),
        ("?before=1&after=1", StatusCode::BAD_REQUEST),
        ("?sender=", StatusCode::OK),
    ] {
        let reply = fixture.get(&reader, &format!("/console/apps/1/chats/1{query}")).await;
        assert_eq!(reply.status, expected, "{query}");
    }
}

#[tokio::test]
async fn a_long_run_of_deletions_is_one_item() {
    let fixture = Fixture::new().await;
    fixture.append(app_stream(), app_created("Helpdesk")).await;
    fixture.append(app_stream(), ChatCreated { chat_number: ChatNumber::FIRST }).await;
    for number in 1..=21 {
        fixture.append(chat_stream(), message_created(number, "x")).await;
        fixture.append(chat_stream(), deleted(number)).await;
    }
    let last = fixture.append(chat_stream(), message_created(22, "x")).await;
    fixture.wait_until_projected(last).await;
    let page = fixture.get(&fixture.reader().await, "/console/apps/1/chats/1").await;
    page.assert_shows(&["Messages 1 to 21 were deleted"]);
}

#[tokio::test]
async fn says_that_a_chat_has_no_messages_yet() {
    let fixture = Fixture::new().await;
    fixture.append(app_stream(), app_created("Helpdesk")).await;
    let last = fixture.append(app_stream(), ChatCreated { chat_number: ChatNumber::FIRST }).await;
    fixture.wait_until_projected(last).await;
    let page = fixture.get(&fixture.reader().await, "/console/apps/1/chats/1").await;
    page.assert_shows(&["No messages yet", "position 2"]);
}

#[tokio::test]
async fn shows_the_versions_of_a_message_with_their_differences() {
    let fixture = helpdesk().await;
    let reader = fixture.reader().await;
    let difference = "Check the <del>plug</del><ins>cable</ins>";
    let page = fixture.get_until(&reader, "/console/apps/1/chats/1/messages/2", difference).await;
    page.assert_shows(&["MessageEdited position 5", "MessageCreated position 4", "agree"]);
    let gone = fixture.get(&reader, "/console/apps/1/chats/1/messages/1").await;
    gone.assert_shows(&[
        "deleted",
        "MessageDeleted position 6",
        "Name of u-17",
        r"{&#34;client&#34;:&#34;ios&#34;}",
    ]);
    assert!(gone.body.contains("<del>Is the mouse on?</del>"), "{}", gone.body);
    let missing = fixture.get(&reader, "/console/apps/1/chats/1/messages/3").await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn pages_through_the_versions_of_a_message() {
    let fixture = Fixture::new().await;
    fixture.append(app_stream(), app_created("Helpdesk")).await;
    fixture.append(app_stream(), ChatCreated { chat_number: ChatNumber::FIRST }).await;
    fixture.append(chat_stream(), message_created(1, "version 0")).await;
    for version in 1..=50 {
        fixture.append(chat_stream(), edited(1, &format!("version {version}"))).await;
    }
    fixture.wait_until_projected(Position::new(53)).await;
    let reader = fixture.reader().await;
    let path = "/console/apps/1/chats/1/messages/1";
    let newest = fixture.get_until(&reader, path, "version <del>0</del><ins>1</ins>").await;
    assert!(!newest.text().contains("MessageCreated"));
    let older = format!("{path}?before=4");
    assert!(newest.body.contains(&format!("href=\"{older}\"")), "{}", newest.body);
    let first = fixture.get(&reader, &older).await;
    first.assert_shows(&["MessageCreated position 3", "version 0"]);
}

#[tokio::test]
async fn says_that_the_read_model_lacks_a_message() {
    let fixture = helpdesk().await;
    let reader = fixture.reader().await;
    // The read model does not have events that a dead letter blocks.
    fixture.append_unknown(chat_stream()).await;
    let last = fixture.append(chat_stream(), message_created(3, "behind the dead letter")).await;
    fixture.wait_until_projected(last).await;
    let page = fixture.get(&reader, "/console/apps/1/chats/1").await;
    page.assert_shows(&["The read model does not have this message", "blocked"]);
    let message = fixture.get(&reader, "/console/apps/1/chats/1/messages/3").await;
    message.assert_shows(&["The read model does not have this message", "behind the dead letter"]);
}

#[tokio::test]
async fn says_what_happened_to_a_message_and_a_chat_that_were_discarded() {
    let fixture = helpdesk().await;
    let message_event =
        fixture.append_of_later_version(chat_stream(), "MessageCreated", r#"{"message_number":3}"#).await;
    let chat_event =
        fixture.append_of_later_version(app_stream(), "ChatCreated", r#"{"chat_number":2}"#).await;
    fixture.wait_until_projected(chat_event).await;
    let reader = fixture.reader().await;
    let waiting = fixture.get(&reader, "/console/apps/1/chats/1/messages/3").await;
    waiting.assert_shows(&["Message 3 not applied", "Resolve the dead letter"]);
    for position in [message_event, chat_event] {
        let discard = DeadLetterDiscarded {
            projection: ProjectionName::ReadModel,
            position,
            reason: "a broken import".to_owned(),
        };
        let discarded = fixture.act(discard).await;
        fixture.wait_until_projected(discarded).await;
    }
    let discarded_message = fixture.get(&reader, "/console/apps/1/chats/1/messages/3").await;
    assert_eq!(discarded_message.status, StatusCode::OK);
    discarded_message.assert_shows(&[
        "Message 3 discarded",
        "a broken import",
        "MessageCreated dead letter at 7",
    ]);
    assert!(
        discarded_message.body.contains(&format!("href=\"/console/events/{message_event}\"")),
        "{}",
        discarded_message.body
    );
    let chat_page = fixture.get(&reader, "/console/apps/1/chats/2").await;
    chat_page.assert_shows(&["Chat 2 discarded", "a broken import", "ChatCreated dead letter at 8"]);
    let missing = fixture.get(&reader, "/console/apps/1/chats/3").await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);

    // With a later message in the chat, the discarded one is a gap between two messages.
    let later = fixture.append(chat_stream(), message_created(4, "after it")).await;
    fixture.wait_until_projected(later).await;
    let chat_page = fixture.get(&reader, "/console/apps/1/chats/1").await;
    chat_page.assert_shows(&[
        "4 created, 1 of them discarded",
        "agree, but for discarded events",
        "Discarded at position 9",
    ]);
}

#[tokio::test]
async fn a_discarded_message_is_found_behind_a_hundred_dead_letters_of_its_chat() {
    let fixture = helpdesk().await;
    let mut positions = Vec::new();
    for _ in 0..100 {
        positions.push(fixture.append_unknown(chat_stream()).await);
    }
    let message =
        fixture.append_of_later_version(chat_stream(), "MessageCreated", r#"{"message_number":3}"#).await;
    positions.push(message);
    fixture.wait_until_projected(message).await;
    // Only the first pending dead letter of a stream can be discarded.
    let mut discarded = message;
    for position in positions {
        let discard = DeadLetterDiscarded {
            projection: ProjectionName::ReadModel,
            position,
            reason: "a broken import".to_owned(),
        };
        discarded = fixture.act(discard).await;
    }
    fixture.wait_until_projected(discarded).await;
    let reader = fixture.reader().await;
    let discarded_message = fixture.get(&reader, "/console/apps/1/chats/1/messages/3").await;
    discarded_message.assert_shows(&["Message 3 discarded", "a broken import"]);
    let chat_page = fixture.get(&reader, "/console/apps/1/chats/1").await;
    chat_page.assert_shows(&["3 created, 1 of them discarded"]);
}

#[tokio::test]
async fn shows_deletions_after_a_message_whose_creation_cannot_be_decoded() {
    let fixture = helpdesk().await;
    let unknown =
        fixture.append_of_later_version(chat_stream(), "MessageCreated", r#"{"message_number":3}"#).await;
    fixture.append(chat_stream(), message_created(4, "to be deleted")).await;
    fixture.append(chat_stream(), deleted(4)).await;
    let last = fixture.append(chat_stream(), message_created(5, "the last one")).await;
    fixture.wait_until_projected(last).await;
    let discard = DeadLetterDiscarded {
        projection: ProjectionName::ReadModel,
        position: unknown,
        reason: "a broken import".to_owned(),
    };
    let discarded = fixture.act(discard).await;
    fixture.wait_until_projected(discarded).await;
    let page = fixture.get(&fixture.reader().await, "/console/apps/1/chats/1?after=2").await;
    page.assert_shows(&["a broken import", "Deleted at position 9", "the last one"]);
}

#[tokio::test]
async fn a_newest_message_that_cannot_be_decoded_is_counted_and_listed() {
    let fixture = helpdesk().await;
    fixture.append(chat_stream(), deleted(2)).await;
    let unknown = fixture.append_of_later_version(chat_stream(), "MessageCreated", "{}").await;
    fixture.wait_until_projected(unknown).await;
    let page = fixture.get(&fixture.reader().await, "/console/apps/1/chats/1").await;
    page.assert_shows(&["0 (3 created)", "Deleted at position 6", "Deleted at position 7"]);
    page.assert_shows(&["The read model does not have this message"]);
}
