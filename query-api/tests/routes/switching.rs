//! The projections that queries are answered from are replaced while they are.

use std::sync::Arc;

use chat_domain::Position;
use chat_ports::search_index::SearchPage;
use chat_web::consistency::ConsistencyToken;

use crate::stage::*;

fn set(index: &Index, position: u64) {
    let page = SearchPage { position: Position::new(position), hits: Vec::new(), total: 0, next: None };
    *index.page.lock().unwrap() = Some(page);
}

fn token(position: u64) -> String {
    ConsistencyToken(Position::new(position)).to_string()
}

const NOW: [(&str, &str); 1] = [("prefer", "wait=0")];

async fn stage() -> Stage {
    let stage = Stage::live();
    let mut events = vec![app_created("first_app"), chat_created(1)];
    events.extend((0..10).map(|_| app_renamed("renamed")));
    assert_eq!(stage.tell(app(), events).await, Position::new(12));
    stage
}

#[tokio::test]
async fn what_was_shown_before_the_switch_is_the_least_that_is_shown_after_it() {
    let stage = stage().await;
    let path = path("/chats/1/messages/search?query=fox");
    set(&stage.index, 10);
    assert_eq!(stage.get(&path).await.header("consistency-token"), token(10));
    let next = Arc::new(Index::default());
    set(&next, 9);
    stage.switch(&next, Position::new(9));
    // Nobody asked for it, and yet the answer waits until it is no step back.
    let (answer, ()) = tokio::join!(stage.get_with(&path, &NOW), async {
        tokio::task::yield_now().await;
        set(&next, 10);
    });
    assert_eq!((answer.status.as_u16(), answer.header("consistency-token")), (200, token(10).as_str()));
}

#[tokio::test]
async fn a_request_that_ends_on_the_old_projections_raises_what_is_shown_after_it() {
    let stage = stage().await;
    let path = path("/chats/1/messages/search?query=fox");
    set(&stage.index, 10);
    let asked = token(12);
    let headers = [("consistency-token", asked.as_str()), ("prefer", "wait=10")];
    let next = Arc::new(Index::default());
    set(&next, 11);
    let (begun_before, begun_after) = tokio::join!(stage.get_with(&path, &headers), async {
        // The other request has begun, and waits for the old index.
        while stage.index.asked.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        stage.switch(&next, Position::new(11));
        let answer = stage.get_with(&path, &NOW).await;
        set(&stage.index, 12);
        answer
    });
    assert_eq!(begun_after.header("consistency-token"), token(11));
    assert_eq!(begun_before.header("consistency-token"), token(12));
    // Position 12 was shown: the new index is asked for it, until it is there.
    let (answer, ()) = tokio::join!(stage.get_with(&path, &NOW), async {
        tokio::task::yield_now().await;
        set(&next, 12);
    });
    assert_eq!(answer.header("consistency-token"), token(12));
}

#[tokio::test]
async fn once_the_switch_is_over_nothing_is_asked_of_answers_but_what_clients_ask() {
    let stage = stage().await;
    let path = path("/chats/1/messages/search?query=fox");
    set(&stage.index, 10);
    stage.get(&path).await;
    let next = Arc::new(Index::default());
    set(&next, 10);
    stage.switch(&next, Position::new(10));
    assert_eq!(stage.get(&path).await.header("consistency-token"), token(10));
    // It was lost, and is folded anew: that is shown as before.
    set(&next, 3);
    assert_eq!(stage.get(&path).await.header("consistency-token"), token(3));
}
