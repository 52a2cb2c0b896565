//! Commits: edits, deletions, checkpoints, dead letters and digests.

use std::collections::HashMap;

use chat_domain::{Position, Revision, Timestamp, Version};
use chat_ports::dead_letter::{
    BEHIND_DEAD_LETTER, DeadLetter, DeadLetterCounts, DeadLetterFilter, DeadLetterQuery, DiscardRecord,
};
use chat_ports::event_store::LogId;
use chat_ports::projection_checkpoint::ProjectionCheckpoint;
use chat_ports::search_index::{Document, IndexChanges, Scope, SearchError, SearchRequest};
use chat_search::TantivyIndex;
use uuid::Uuid;

use crate::fixture::{Fixture, LOG, app, empty_changes, key, message, request};

fn dead_letter(position: u64, stream: &str) -> DeadLetter {
    DeadLetter {
        position: Position::new(position),
        stream: stream.to_owned(),
        event_type: "MessageCreated".to_owned(),
        reason: "the payload is not JSON".to_owned(),
        dead_lettered_at: Timestamp::from_millis(5),
        revision: Revision::new(position),
        discarded: None,
    }
}

#[test]
fn an_edit_replaces_the_text() {
    let mut fixture = Fixture::with_texts(&["first draft", "other"]);
    let edited = Document { version: Version::new(2), ..message(1, "second thoughts") };
    fixture.upsert(vec![edited.clone()]);
    assert!(fixture.find("draft").is_empty());
    assert_eq!(fixture.find("thoughts"), ["second thoughts"]);
    let expected = HashMap::from([(key(1), edited), (key(2), message(2, "other"))]);
    assert_eq!(fixture.writer.documents(&[key(1), key(2), key(3)]).unwrap(), expected);
}

#[test]
fn a_deleted_message_is_not_found() {
    let mut fixture = Fixture::with_texts(&["keep this", "drop this"]);
    let changes = IndexChanges { delete: vec![key(2), key(9)], ..fixture.next_changes() };
    fixture.writer.commit(changes).unwrap();
    assert_eq!(fixture.find("this"), ["keep this"]);
    assert!(fixture.writer.documents(&[key(2)]).unwrap().is_empty());
}

#[test]
fn a_reader_from_the_writer_sees_each_commit_at_once() {
    let mut fixture = Fixture::new();
    for number in 1..=20 {
        fixture.upsert(vec![message(number, "tick")]);
        assert_eq!(fixture.index.search(&request("tick")).unwrap().total.count(), number);
        assert_eq!(fixture.index.position(), Position::new(number));
    }
}

#[test]
fn the_first_commit_binds_the_index_to_a_log() {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.writer.checkpoint(), ProjectionCheckpoint::default());
    assert!(matches!(fixture.writer.commit(empty_changes(1, 2)), Err(SearchError::CheckpointMoved)));
    fixture.writer.commit(empty_changes(0, 7)).unwrap();
    assert_eq!(
        fixture.writer.checkpoint(),
        ProjectionCheckpoint { log: Some(LOG), position: Position::new(7) }
    );
    let other = IndexChanges { log: LogId(Uuid::from_u128(2)), ..empty_changes(7, 8) };
    assert!(matches!(fixture.writer.commit(other), Err(SearchError::CheckpointMoved)));
}

#[test]
fn a_new_incarnation_of_the_log_is_adopted_at_the_same_position() {
    let mut fixture = Fixture::with_texts(&["one"]);
    let before = fixture.writer.checkpoint();
    let log = LogId(Uuid::from_u128(2));
    fixture.writer.adopt_log(log).unwrap();
    assert_eq!(fixture.writer.checkpoint(), ProjectionCheckpoint { log: Some(log), ..before });
    let next = IndexChanges { log, upsert: vec![message(2, "two")], ..fixture.next_changes() };
    fixture.writer.commit(next).unwrap();
    assert_eq!((fixture.find("one").len(), fixture.find("two").len()), (1, 1));
}

#[test]
fn rejected_changes_are_not_stored() {
    let mut fixture = Fixture::with_texts(&["one"]);
    for from in [0, 2] {
        let changes = IndexChanges { upsert: vec![message(2, "two")], ..empty_changes(from, 3) };
        assert!(matches!(fixture.writer.commit(changes), Err(SearchError::CheckpointMoved)));
    }
    fixture.upsert(vec![message(3, "three")]);
    assert!(fixture.find("two").is_empty());
    assert_eq!(fixture.find("three"), ["three"]);
}

/// If both indexing threads took documents of the commit, each would write a segment.
#[test]
fn a_small_commit_makes_one_segment() {
    let mut fixture = Fixture::with_texts(&["first draft"]);
    let segments = |fixture: &Fixture| {
        let entries = std::fs::read_dir(fixture.dir()).unwrap();
        entries
            .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|end| end == "store"))
            .count()
    };
    // No commit deletes from an earlier segment, so all segments stay.
    for commit in 1..5 {
        let changes = IndexChanges {
            add: vec![message(10 * commit, "new")],
            upsert: vec![message(10 * commit + 1, "also new")],
            new_dead_letters: vec![dead_letter(100 * commit, "chat-x-1")],
            ..fixture.next_changes()
        };
        fixture.writer.commit(changes).unwrap();
    }
    assert_eq!(segments(&fixture), 5);
}

#[test]
fn dead_letters_are_stored_and_not_found_by_searches() {
    let mut fixture = Fixture::with_texts(&["a message"]);
    let dead_letters = [dead_letter(9, "chat-x-1"), dead_letter(4, "chat-y-1"), dead_letter(7, "chat-x-1")];
    let changes = IndexChanges { new_dead_letters: dead_letters.to_vec(), ..fixture.next_changes() };
    fixture.writer.commit(changes).unwrap();
    let (first, count) = fixture.index.dead_letters(2).unwrap();
    assert_eq!((first, count), (vec![dead_letters[1].clone(), dead_letters[2].clone()], 3));
    let mut streams = fixture.writer.blocked_streams().unwrap();
    streams.sort_unstable();
    assert_eq!(streams, ["chat-x-1", "chat-y-1"]);
    for query in ["all", "parked", "letter", "chat", "MessageCreated", "payload", "json", "x"] {
        let page =
            fixture.index.search(&SearchRequest { scope: Scope::App(app()), ..request(query) }).unwrap();
        assert_eq!(page.total.count(), 0, "{query}");
    }
}

#[test]
fn dead_letters_are_resolved_discarded_and_listed() {
    let mut fixture = Fixture::new();
    let waiting = DeadLetter { reason: BEHIND_DEAD_LETTER.to_owned(), ..dead_letter(6, "chat-x-1") };
    let pending = [dead_letter(4, "chat-x-1"), dead_letter(5, "chat-y-1"), waiting.clone()];
    let changes = IndexChanges { new_dead_letters: pending.to_vec(), ..fixture.next_changes() };
    fixture.writer.commit(changes).unwrap();
    let index = fixture.writer.reader();
    assert_eq!(index.dead_letters_of_stream("chat-x-1", 10).unwrap(), [pending[0].clone(), waiting.clone()]);
    assert_eq!(index.dead_letter(Position::new(5)).unwrap().as_ref(), Some(&pending[1]));
    assert_eq!(index.dead_letter(Position::new(7)).unwrap(), None);
    let query = |filter| DeadLetterQuery { after: Position::START, limit: 10, filter, stream: None };
    let needs_attention = index.dead_letter_page(&query(DeadLetterFilter::NeedsAttention)).unwrap();
    let listed: Vec<_> = needs_attention
        .dead_letters
        .iter()
        .map(|listed| (listed.dead_letter.position.get(), listed.waiting_behind))
        .collect();
    assert_eq!(listed, [(4, 1), (5, 0)]);

    let digest = fixture.writer.digest().unwrap().1;
    let discard_record = DiscardRecord {
        by: Position::new(9),
        at: Timestamp::from_millis(6),
        reason: "broken".to_owned(),
        acknowledged: None,
    };
    let discarded = DeadLetter { discarded: Some(discard_record), ..pending[0].clone() };
    let changes = IndexChanges {
        changed_dead_letters: vec![discarded.clone()],
        resolved_dead_letters: vec![Position::new(5)],
        ..fixture.next_changes()
    };
    fixture.writer.commit(changes).unwrap();
    assert_eq!(index.dead_letter(Position::new(4)).unwrap(), Some(discarded));
    assert_eq!(
        index.dead_letter_counts().unwrap(),
        DeadLetterCounts { pending: 1, unacknowledged_discards: 1 }
    );
    assert_eq!(fixture.writer.blocked_streams().unwrap(), ["chat-x-1"]);
    assert_eq!(index.dead_letters(10).unwrap(), (vec![waiting], 1));
    assert_ne!(fixture.writer.digest().unwrap().1, digest);
    let rest_of_chat_x = DeadLetterQuery {
        stream: Some("chat-x-1".to_owned()),
        after: Position::new(4),
        ..query(DeadLetterFilter::All)
    };
    assert_eq!(index.dead_letter_page(&rest_of_chat_x).unwrap().dead_letters.len(), 1);
}

#[test]
fn the_digest_depends_only_on_the_content() {
    let mut direct = Fixture::with_texts(&["one", "two"]);
    let mut detour = Fixture::new();
    detour.upsert(vec![message(2, "draft"), message(3, "gone")]);
    detour.upsert(vec![message(2, "two"), message(1, "one")]);
    let changes = IndexChanges { delete: vec![key(3)], ..detour.next_changes() };
    detour.writer.commit(changes).unwrap();
    assert_eq!(direct.writer.digest().unwrap().1, detour.writer.digest().unwrap().1);
    assert_eq!(detour.writer.digest().unwrap().0, Position::new(3));

    let add_dead_letter = |fixture: &mut Fixture, millis| {
        let added =
            DeadLetter { dead_lettered_at: Timestamp::from_millis(millis), ..dead_letter(8, "chat-x-1") };
        let changes = IndexChanges { new_dead_letters: vec![added], ..fixture.next_changes() };
        fixture.writer.commit(changes).unwrap();
    };
    add_dead_letter(&mut direct, 1);
    assert_ne!(direct.writer.digest().unwrap().1, detour.writer.digest().unwrap().1);
    add_dead_letter(&mut detour, 2);
    assert_eq!(direct.writer.digest().unwrap().1, detour.writer.digest().unwrap().1);
    direct.upsert(vec![Document { version: Version::new(2), ..message(1, "one") }]);
    assert_ne!(direct.writer.digest().unwrap().1, detour.writer.digest().unwrap().1);
}

#[test]
fn another_index_handle_sees_a_commit_after_a_refresh() {
    let mut fixture = Fixture::with_texts(&["one"]);
    let other = TantivyIndex::open(&fixture.dir()).unwrap();
    assert!(!other.refresh().unwrap());
    fixture.upsert(vec![message(2, "two")]);
    assert_eq!(other.search(&request("two")).unwrap().total.count(), 0);
    assert!(other.clone().refresh().unwrap());
    let page = other.search(&request("two")).unwrap();
    assert_eq!((page.total.count(), page.position), (1, Position::new(2)));
    assert!(!other.refresh().unwrap());
    fixture.writer.commit(fixture.next_changes()).unwrap();
    assert!(other.refresh().unwrap());
    assert_eq!((other.position(), other.log_id()), (Position::new(3), Some(LOG)));
}
