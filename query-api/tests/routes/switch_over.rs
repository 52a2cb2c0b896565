//! Monotonic reads across a switch-over. The minimum position is the newest position of any response so far: until the
//! switch-over has ended, no response of the new generation may have an older one.

use std::sync::Arc;

use chat_domain::Position;
use chat_ports::search_index::SearchPage;

use crate::fixture::*;

fn set_position(index: &StubIndex, position: u64) {
    let page = SearchPage::empty(Position::new(position));
    *index.page.lock().unwrap() = Some(page);
}

fn token_at(position: u64) -> String {
    consistency_token(Position::new(position))
}

const WITHOUT_WAIT: [(&str, &str); 1] = [("prefer", "wait=0")];

async fn fixture() -> Fixture {
    let fixture = Fixture::with_projector();
    let mut events = vec![app_created("first_app"), chat_created(1)];
    events.extend((0..10).map(|_| app_renamed("renamed")));
    assert_eq!(fixture.append_and_project(app(), events).await, Position::new(12));
    fixture
}

#[tokio::test]
async fn no_response_after_a_switch_over_is_older_than_one_before_it() {
    let fixture = fixture().await;
    let path = path("/chats/1/messages/search?query=fox");
    set_position(&fixture.index, 10);
    assert_eq!(fixture.get(&path).await.header("consistency-token"), token_at(10));
    let next = Arc::new(StubIndex::default());
    set_position(&next, 9);
    fixture.switch_over(&next, Position::new(9));
    // The client sent no token and does not want to wait. But the query waits, because its response would be older than
    // the one before.
    let (reply, ()) = tokio::join!(fixture.get_with(&path, &WITHOUT_WAIT), async {
        tokio::task::yield_now().await;
        set_position(&next, 10);
    });
    assert_eq!((reply.status.as_u16(), reply.header("consistency-token")), (200, token_at(10).as_str()));
}

#[tokio::test]
async fn a_response_from_the_previous_generation_raises_the_minimum_position() {
    let fixture = fixture().await;
    let path = path("/chats/1/messages/search?query=fox");
    set_position(&fixture.index, 10);
    let requested = token_at(12);
    let headers = [("consistency-token", requested.as_str()), ("prefer", "wait=10")];
    let next = Arc::new(StubIndex::default());
    set_position(&next, 11);
    let (begun_before, begun_after) = tokio::join!(fixture.get_with(&path, &headers), async {
        // Waits until the other request has searched the previous index.
        while fixture.index.requests.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        fixture.switch_over(&next, Position::new(11));
        let reply = fixture.get_with(&path, &WITHOUT_WAIT).await;
        set_position(&fixture.index, 12);
        reply
    });
    assert_eq!(begun_after.header("consistency-token"), token_at(11));
    assert_eq!(begun_before.header("consistency-token"), token_at(12));
    // The response of the previous index had position 12, so the query waits until the new index has reached that.
    let (reply, ()) = tokio::join!(fixture.get_with(&path, &WITHOUT_WAIT), async {
        tokio::task::yield_now().await;
        set_position(&next, 12);
    });
    assert_eq!(reply.header("consistency-token"), token_at(12));
}

#[tokio::test]
async fn the_minimum_position_ends_with_the_switch_over() {
    let fixture = fixture().await;
    let path = path("/chats/1/messages/search?query=fox");
    set_position(&fixture.index, 10);
    fixture.get(&path).await;
    let next = Arc::new(StubIndex::default());
    set_position(&next, 10);
    fixture.switch_over(&next, Position::new(10));
    assert_eq!(fixture.get(&path).await.header("consistency-token"), token_at(10));
    // The switch-over has ended. While a lost index is rebuilt, responses may be older than those before the loss.
    set_position(&next, 3);
    assert_eq!(fixture.get(&path).await.header("consistency-token"), token_at(3));
}
