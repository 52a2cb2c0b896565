//! Commits: edits, deletions, checkpoints, dead letters, digests.

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

use crate::fixture::{Fixture, LOG, app, key, message, no_changes, request};

fn letter(position: u64, stream: &str) -> DeadLetter {
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
    let mut fixture = Fixture::of(&["first draft", "other"]);
    let edited = Document { version: Version::new(2), ..message(1, "second thoughts") };
    fixture.put(vec![edited.clone()]);
    assert!(fixture.find("draft").is_empty());
    assert_eq!(fixture.find("thoughts"), ["second thoughts"]);
    let expected = HashMap::from([(key(1), edited), (key(2), message(2, "other"))]);
    assert_eq!(fixture.writer.documents(&[key(1), key(2), key(3)]).unwrap(), expected);
}

#[test]
fn a_deleted_message_is_found_no_more() {
    let mut fixture = Fixture::of(&["keep this", "drop this"]);
    let changes = IndexChanges { delete: vec![key(2), key(9)], ..fixture.next_changes() };
    fixture.writer.commit(changes).unwrap();
    assert_eq!(fixture.find("this"), ["keep this"]);
    assert!(fixture.writer.documents(&[key(2)]).unwrap().is_empty());
}

#[test]
fn a_reader_of_the_process_sees_a_commit_at_once() {
    let mut fixture = Fixture::new();
    for number in 1..=20 {
        fixture.put(vec![message(number, "tick")]);
        assert_eq!(fixture.index.search(&request("tick")).unwrap().total, number);
        assert_eq!(fixture.index.position(), Position::new(number));
    }
}

#[test]
fn a_new_index_takes_any_log_from_its_start_and_then_that_log_alone() {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.writer.checkpoint(), ProjectionCheckpoint::default());
    assert!(matches!(fixture.writer.commit(no_changes(1, 2)), Err(SearchError::CheckpointMoved)));
    fixture.writer.commit(no_changes(0, 7)).unwrap();
    assert_eq!(
        fixture.writer.checkpoint(),
        ProjectionCheckpoint { log: Some(LOG), position: Position::new(7) }
    );
    let other = IndexChanges { log: LogId(Uuid::from_u128(2)), ..no_changes(7, 8) };
    assert!(matches!(fixture.writer.commit(other), Err(SearchError::CheckpointMoved)));
}

#[test]
fn changes_that_do_not_start_at_the_checkpoint_leave_no_trace() {
    let mut fixture = Fixture::of(&["one"]);
    for from in [0, 2] {
        let changes = IndexChanges { upsert: vec![message(2, "two")], ..no_changes(from, 3) };
        assert!(matches!(fixture.writer.commit(changes), Err(SearchError::CheckpointMoved)));
    }
    fixture.put(vec![message(3, "three")]);
    assert!(fixture.find("two").is_empty());
    assert_eq!(fixture.find("three"), ["three"]);
}

/// Two threads index, and each makes a segment of its own of what it gets.
#[test]
fn a_small_commit_makes_one_segment_whatever_is_in_it() {
    let mut fixture = Fixture::of(&["first draft"]);
    let segments = |fixture: &Fixture| {
        let entries = std::fs::read_dir(fixture.dir()).unwrap();
        entries
            .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|end| end == "store"))
            .count()
    };
    // None of them empties an earlier one, so that all stay.
    for commit in 1..5 {
        let (add, put) = (vec![message(10 * commit, "new")], vec![message(10 * commit + 1, "also new")]);
        let park = vec![letter(100 * commit, "chat-x-1")];
        let changes = IndexChanges { add, upsert: put, new_dead_letters: park, ..fixture.next_changes() };
        fixture.writer.commit(changes).unwrap();
    }
    assert_eq!(segments(&fixture), 5);
}

#[test]
fn dead_letters_are_kept_and_never_found() {
    let mut fixture = Fixture::of(&["a message"]);
    let letters = [letter(9, "chat-x-1"), letter(4, "chat-y-1"), letter(7, "chat-x-1")];
    let changes = IndexChanges { new_dead_letters: letters.to_vec(), ..fixture.next_changes() };
    fixture.writer.commit(changes).unwrap();
    let (first, count) = fixture.index.dead_letters(2).unwrap();
    assert_eq!((first, count), (vec![letters[1].clone(), letters[2].clone()], 3));
    let mut streams = fixture.writer.blocked_streams().unwrap();
    streams.sort_unstable();
    assert_eq!(streams, ["chat-x-1", "chat-y-1"]);
    for query in ["all", "parked", "letter", "chat", "MessageCreated", "payload", "json", "x"] {
        let page =
            fixture.index.search(&SearchRequest { scope: Scope::App(app()), ..request(query) }).unwrap();
        assert_eq!(page.total, 0, "{query}");
    }
}

#[test]
fn letters_are_taken_away_marked_and_listed() {
    let mut fixture = Fixture::new();
    let waiting = DeadLetter { reason: BEHIND_DEAD_LETTER.to_owned(), ..letter(6, "chat-x-1") };
    let parked = [letter(4, "chat-x-1"), letter(5, "chat-y-1"), waiting.clone()];
    let changes = IndexChanges { new_dead_letters: parked.to_vec(), ..fixture.next_changes() };
    fixture.writer.commit(changes).unwrap();
    let index = fixture.writer.reader();
    assert_eq!(index.dead_letters_of_stream("chat-x-1", 10).unwrap(), [parked[0].clone(), waiting.clone()]);
    assert_eq!(index.letter(Position::new(5)).unwrap().as_ref(), Some(&parked[1]));
    assert_eq!(index.letter(Position::new(7)).unwrap(), None);
    let list = |which| DeadLetterQuery { after: Position::START, limit: 10, filter: which, stream: None };
    let standing = index.letters(&list(DeadLetterFilter::NeedsAttention)).unwrap();
    let seen: Vec<_> =
        standing.letters.iter().map(|listed| (listed.letter.position.get(), listed.waiting_behind)).collect();
    assert_eq!(seen, [(4, 1), (5, 0)]);

    let digest = fixture.writer.digest().unwrap().1;
    let discarded = DiscardRecord {
        by: Position::new(9),
        at: Timestamp::from_millis(6),
        reason: "broken".to_owned(),
        acknowledged: None,
    };
    let given_up = DeadLetter { discarded: Some(discarded), ..parked[0].clone() };
    let changes = IndexChanges {
        mark: vec![given_up.clone()],
        resolved_dead_letters: vec![Position::new(5)],
        ..fixture.next_changes()
    };
    fixture.writer.commit(changes).unwrap();
    assert_eq!(index.letter(Position::new(4)).unwrap(), Some(given_up));
    assert_eq!(
        index.dead_letter_counts().unwrap(),
        DeadLetterCounts { pending: 1, unacknowledged_discards: 1 }
    );
    assert_eq!(fixture.writer.blocked_streams().unwrap(), ["chat-x-1"]);
    assert_eq!(index.dead_letters(10).unwrap(), (vec![waiting], 1));
    assert_ne!(fixture.writer.digest().unwrap().1, digest);
    let of_x = DeadLetterQuery {
        stream: Some("chat-x-1".to_owned()),
        after: Position::new(4),
        ..list(DeadLetterFilter::All)
    };
    assert_eq!(index.letters(&of_x).unwrap().letters.len(), 1);
}

#[test]
fn the_digest_is_of_the_content_and_not_of_how_it_came_about() {
    let mut direct = Fixture::of(&["one", "two"]);
    let mut detour = Fixture::new();
    detour.put(vec![message(2, "draft"), message(3, "gone")]);
    detour.put(vec![message(2, "two"), message(1, "one")]);
    let changes = IndexChanges { delete: vec![key(3)], ..detour.next_changes() };
    detour.writer.commit(changes).unwrap();
    assert_eq!(direct.writer.digest().unwrap().1, detour.writer.digest().unwrap().1);
    assert_eq!(detour.writer.digest().unwrap().0, Position::new(3));

    let park = |fixture: &mut Fixture, parked_at| {
        let parked =
            DeadLetter { dead_lettered_at: Timestamp::from_millis(parked_at), ..letter(8, "chat-x-1") };
        let changes = IndexChanges { new_dead_letters: vec![parked], ..fixture.next_changes() };
        fixture.writer.commit(changes).unwrap();
    };
    park(&mut direct, 1);
    assert_ne!(direct.writer.digest().unwrap().1, detour.writer.digest().unwrap().1);
    park(&mut detour, 2);
    assert_eq!(direct.writer.digest().unwrap().1, detour.writer.digest().unwrap().1);
    direct.put(vec![Document { version: Version::new(2), ..message(1, "one") }]);
    assert_ne!(direct.writer.digest().unwrap().1, detour.writer.digest().unwrap().1);
}

#[test]
fn another_handle_sees_a_commit_when_it_refreshes() {
    let mut fixture = Fixture::of(&["one"]);
    let other = TantivyIndex::open(&fixture.dir()).unwrap();
    assert!(!other.refresh().unwrap());
    fixture.put(vec![message(2, "two")]);
    assert_eq!(other.search(&request("two")).unwrap().total, 0);
    assert!(other.clone().refresh().unwrap());
    let page = other.search(&request("two")).unwrap();
    assert_eq!((page.total, page.position), (1, Position::new(2)));
    assert!(!other.refresh().unwrap());
    fixture.writer.commit(fixture.next_changes()).unwrap();
    assert!(other.refresh().unwrap());
    assert_eq!((other.position(), other.log_id()), (Position::new(3), Some(LOG)));
}
