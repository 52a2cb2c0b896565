//! Tests of the tail of a search index: searches find what the index has not committed yet.

use std::sync::Arc;
use std::time::Duration;

use chat_domain::operator_action::{self, DeadLetterDiscarded, OperatorAction};
use chat_domain::projection::ProjectionName;
use chat_domain::{AppToken, Position};
use chat_ports::event_store::EventStore;
use chat_ports::search_index::{Scope, SearchIndex, SearchPage, SearchRequest};
use chat_projector::dead_letters::advance_projection;
use chat_projector::search::{SearchIndexStore, TailLimits, spawn_tail};
use chat_search::SearchIndexReader;
use chat_sqlite::SqliteEventStore;
use tempfile::TempDir;
use tokio::sync::watch;

use crate::deadline::within;
use crate::log_builder::*;
use crate::retries::{open_when_free, recreate_when_free};

/// A log, an index that the test commits, and a tail.
struct Fixture {
    folder: TempDir,
    log: Arc<dyn EventStore>,
    reader: Arc<SearchIndexReader>,
    /// The position up to which searches find the events of the log.
    answered: watch::Receiver<Position>,
}

impl Fixture {
    /// Creates a log of one chat with messages, none of them committed to the index.
    async fn with_messages(messages: u64, limits: TailLimits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log: Arc<dyn EventStore> =
            Arc::new(SqliteEventStore::open(&folder.path().join("events.db")).unwrap());
        append_chat(&log, 1, messages).await;
        let store = SearchIndexStore { dir: folder.path().join("search") };
        drop(open_when_free(&store).await);
        let reader = Arc::new(SearchIndexReader::new(store.dir));
        let answered = spawn_tail(&reader, Arc::clone(&log), limits);
        Self { folder, log, reader, answered }
    }

    /// Folds the log up to a position into the index and commits it, as a projector does.
    async fn commit(&self, up_to: Position) {
        let store = SearchIndexStore { dir: self.folder.path().join("search") };
        let mut projection = open_when_free(&store).await;
        let after = projection.checkpoint().position;
        let mut events = self.log.read_all(after, 10_000).await.unwrap();
        events.retain(|event| event.position <= up_to);
        let log_id = self.log.log_id().await.unwrap();
        advance_projection(&mut *projection, &*self.log, log_id, events, up_to).await.unwrap();
    }

    /// Waits until searches find all events up to this position.
    async fn wait_for(&self, position: Position) {
        let mut answered = self.answered.clone();
        within("the tail", answered.wait_for(|reached| *reached >= position)).await.unwrap();
    }

    fn search(&self, query: &str) -> SearchPage {
        self.reader.search(&request(token(1), query)).unwrap()
    }

    /// Returns the bodies of the messages that a search finds.
    fn find(&self, query: &str) -> Vec<String> {
        self.search(query).hits.into_iter().map(|hit| hit.document.body).collect()
    }

    fn committed_position(&self) -> Position {
        self.reader.newest().unwrap().position()
    }
}

fn request(app: AppToken, query: &str) -> SearchRequest {
    SearchRequest::new(Scope::App(app), query)
}

#[tokio::test(flavor = "multi_thread")]
async fn finds_messages_that_are_not_committed() {
    let fixture = Fixture::with_messages(3, TailLimits::default()).await;
    let head = fixture.log.head().await.unwrap();
    fixture.wait_for(head).await;
    assert_eq!(fixture.committed_position(), Position::START);
    let page = fixture.search("message");
    assert_eq!((page.position, page.total.count()), (head, 3));

    fixture.commit(head).await;
    let next = append(&fixture.log, chat(1, 1), 3, &created(4, "message 4")).await;
    fixture.wait_for(next).await;
    assert_eq!(fixture.committed_position(), head);
    assert_eq!(fixture.find("message"), ["message 4", "message 3", "message 2", "message 1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn finds_uncommitted_edits_and_deletions_of_committed_messages() {
    let fixture = Fixture::with_messages(3, TailLimits::default()).await;
    fixture.commit(fixture.log.head().await.unwrap()).await;
    append(&fixture.log, chat(1, 1), 3, &edited(1, "another text")).await;
    append(&fixture.log, chat(1, 1), 4, &edited(1, "another message")).await;
    let head = append(&fixture.log, chat(1, 1), 5, &deleted(2)).await;
    fixture.wait_for(head).await;
    assert_eq!(fixture.find("message"), ["message 3", "another message"]);
    assert_eq!(fixture.search("another").hits[0].document.version.get(), 3);

    // The index commits the edits of message 1, but not the deletion of message 2. Then message 1 is edited again.
    fixture.commit(Position::new(head.get() - 1)).await;
    let head = append(&fixture.log, chat(1, 1), 6, &edited(1, "a third message")).await;
    fixture.wait_for(head).await;
    assert_eq!(fixture.find("message"), ["message 3", "a third message"]);
    assert_eq!(fixture.search("third").hits[0].document.version.get(), 4);
    let with_tail = fixture.search("message");
    fixture.commit(head).await;
    assert_eq!(fixture.search("message"), with_tail);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_blocks_its_stream_until_the_index_has_committed_its_discard() {
    let fixture = Fixture::with_messages(1, TailLimits::default()).await;
    let dead_letter = append(&fixture.log, chat(1, 1), 1, &edited(9, "no such message")).await;
    append(&fixture.log, chat(1, 1), 2, &created(2, "message 2")).await;
    let head = append_chat(&fixture.log, 2, 1).await;
    fixture.wait_for(head).await;
    assert_eq!(fixture.find("message"), ["message 1"], "the search found a message of the blocked stream");
    let other = fixture.reader.search(&request(token(2), "message")).unwrap();
    assert_eq!(other.total.count(), 1, "the streams of another app are blocked too");

    let (projection, reason) = (ProjectionName::SearchIndex, "unreadable".to_owned());
    let action: OperatorAction = DeadLetterDiscarded { projection, position: dead_letter, reason }.into();
    append_raw(&fixture.log, operator_action::STREAM, 0, action.event_type(), action.payload()).await;
    let last = append(&fixture.log, chat(1, 1), 3, &created(3, "message 3")).await;
    // The tail needs less time than this to fold the events.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let page = fixture.search("message");
    assert_eq!(
        (page.position, page.total.count()),
        (head, 1),
        "the tail did not stop before the operator action"
    );

    fixture.commit(Position::new(last.get() - 1)).await;
    fixture.wait_for(last).await;
    assert_eq!(fixture.find("message"), ["message 3", "message 2", "message 1"]);
    let with_tail = fixture.search("message");
    fixture.commit(last).await;
    assert_eq!(fixture.search("message"), with_tail);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_cannot_be_decoded_holds_up_the_tail_until_the_index_has_committed_it() {
    let fixture = Fixture::with_messages(1, TailLimits::default()).await;
    let readable = fixture.log.head().await.unwrap();
    let stream = chat(1, 1).to_string();
    let unreadable = append_raw(&fixture.log, &stream, 1, "MessageEdited", "{}".to_owned()).await;
    let head = append_chat(&fixture.log, 2, 1).await;
    fixture.wait_for(readable).await;
    // The tail needs less time than this to fold the events.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(fixture.search("message").position, readable);

    fixture.commit(unreadable).await;
    fixture.wait_for(head).await;
    let other = fixture.reader.search(&request(token(2), "message")).unwrap();
    assert_eq!((other.position, other.total.count()), (head, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_was_blocked_before_the_tail_began_is_blocked_in_the_tail() {
    let fixture = Fixture::with_messages(1, TailLimits::default()).await;
    let stream = chat(1, 1).to_string();
    let dead_letter = append_raw(&fixture.log, &stream, 1, "MessageEdited", "{}".to_owned()).await;
    fixture.commit(dead_letter).await;
    let reader = Arc::new(SearchIndexReader::new(fixture.folder.path().join("search")));
    let mut answered = spawn_tail(&reader, Arc::clone(&fixture.log), TailLimits::default());
    let head = append(&fixture.log, chat(1, 1), 2, &created(2, "message 2")).await;
    within("the tail", answered.wait_for(|reached| *reached >= head)).await.unwrap();
    assert_eq!(reader.search(&request(token(1), "message")).unwrap().total.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_tail_goes_on_after_a_commit() {
    let fixture = Fixture::with_messages(1, TailLimits { changes: 4, ..TailLimits::default() }).await;
    fixture.wait_for(fixture.log.head().await.unwrap()).await;
    // The position of the event with which the tail is full.
    let mut full_at = Position::START;
    for number in 2..=4 {
        full_at = append(&fixture.log, chat(1, 1), number - 1, &created(number, "a message")).await;
    }
    fixture.wait_for(full_at).await;
    let mut head = full_at;
    for number in 5..=9 {
        head = append(&fixture.log, chat(1, 1), number - 1, &created(number, "a message")).await;
    }
    // The tail needs less time than this to fold the events.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let page = fixture.search("message");
    assert_eq!((page.position, page.total.count()), (full_at, 4));
    fixture.commit(Position::new(head.get() - 1)).await;
    fixture.wait_for(head).await;
    assert_eq!(fixture.search("message").total.count(), 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_begins_again_when_the_index_was_created_anew() {
    let fixture = Fixture::with_messages(3, TailLimits::default()).await;
    let head = fixture.log.head().await.unwrap();
    fixture.commit(head).await;
    let head = append(&fixture.log, chat(1, 1), 3, &created(4, "message 4")).await;
    fixture.wait_for(head).await;
    let store = SearchIndexStore { dir: fixture.folder.path().join("search") };
    drop(recreate_when_free(&store).await);
    let page_at_head = async {
        loop {
            let page = fixture.search("message");
            if page.position >= head {
                return page;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let page = within("a new tail", page_at_head).await;
    assert_eq!((page.position, page.total.count()), (head, 4));
    assert_eq!(fixture.committed_position(), Position::START);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_ends_with_its_reader() {
    let Fixture { reader, mut answered, .. } = Fixture::with_messages(1, TailLimits::default()).await;
    drop(reader);
    within("the end of the tail", async { while answered.changed().await.is_ok() {} }).await;
}
