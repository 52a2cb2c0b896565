//! Contract cases of dead letters and dry runs.

use chat_domain::Position;

use super::rows::{WriterAndReader, changes, dead_letter, discard_record};
use crate::dead_letter::{
    BEHIND_DEAD_LETTER, DeadLetter, DeadLetterCounts, DeadLetterFilter, DeadLetterPage, DeadLetterQuery,
};
use crate::read_model::{ReadModelChanges, ReadModelError, ReadModelWriter};

pub async fn pending_dead_letters_are_listed_by_position(open: impl Fn() -> WriterAndReader) {
    let read_model = open();
    let (one, two, three) = (dead_letter(3, "x"), dead_letter(5, "y"), dead_letter(9, "x"));
    let dead_letters = vec![one.clone(), two.clone(), three];
    read_model
        .writer
        .commit(ReadModelChanges { new_dead_letters: dead_letters, ..changes(0, 9) })
        .await
        .unwrap();
    assert_eq!(read_model.reader.dead_letters(2).await.unwrap(), (vec![one, two], 3));
    assert_eq!(read_model.reader.dead_letters(0).await.unwrap(), (vec![], 3));
    assert_eq!(
        read_model.writer.dead_letter_counts().await.unwrap(),
        DeadLetterCounts { pending: 3, unacknowledged_discards: 0 }
    );
    let mut streams = read_model.writer.blocked_streams().await.unwrap();
    streams.sort();
    assert_eq!(streams, ["x", "y"]);
}

/// Checks that the changes of a dry run are visible to the dry run only, and are gone when it is dropped.
pub async fn a_dry_run_leaves_nothing<W: ReadModelWriter>(read_model: &WriterAndReader, dry_run: W) {
    let before = read_model.reader.digest().await.unwrap();
    let from = before.position.get();
    let (one, two) = (dead_letter(from + 1, "x"), dead_letter(from + 2, "x"));
    let dead_letters = vec![one.clone(), two.clone()];
    dry_run
        .commit(ReadModelChanges { new_dead_letters: dead_letters, ..changes(from, from + 5) })
        .await
        .unwrap();
    let resolved = vec![one.position];
    dry_run
        .commit(ReadModelChanges { resolved_dead_letters: resolved, ..changes(from + 5, from + 5) })
        .await
        .unwrap();
    assert_eq!(dry_run.dead_letters_of_stream("x".to_owned(), 10).await.unwrap(), [two]);
    assert_eq!(dry_run.checkpoint().await.unwrap().position, Position::new(from + 5));
    assert_eq!(
        read_model.reader.digest().await.unwrap(),
        before,
        "changes of a dry run are visible to others"
    );
    drop(dry_run);
    read_model.writer.commit(changes(from, from + 1)).await.unwrap();
    let after = read_model.reader.digest().await.unwrap();
    assert_eq!(after.value, before.value, "changes of a dropped dry run are stored");
}

fn list_query(filter: DeadLetterFilter) -> DeadLetterQuery {
    DeadLetterQuery { after: Position::START, limit: 10, filter, stream: None }
}

/// The positions on a page.
fn positions(page: &DeadLetterPage) -> Vec<u64> {
    page.dead_letters.iter().map(|listed| listed.dead_letter.position.get()).collect()
}

pub async fn dead_letters_are_resolved_and_discarded(open: impl Fn() -> WriterAndReader) {
    let WriterAndReader { writer, reader } = open();
    let (one, two, three) = (dead_letter(3, "x"), dead_letter(5, "x"), dead_letter(9, "y"));
    let dead_letters = vec![one.clone(), two.clone(), three.clone()];
    writer.commit(ReadModelChanges { new_dead_letters: dead_letters, ..changes(0, 9) }).await.unwrap();
    assert_eq!(writer.dead_letter(Position::new(5)).await.unwrap().as_ref(), Some(&two));
    assert_eq!(writer.dead_letter(Position::new(4)).await.unwrap(), None);
    assert_eq!(writer.dead_letters_of_stream("x".to_owned(), 10).await.unwrap(), [one, two.clone()]);
    assert_eq!(writer.dead_letters_of_stream("x".to_owned(), 1).await.unwrap().len(), 1);

    let discarded_dead_letter = DeadLetter { discarded: Some(discard_record(12)), ..two.clone() };
    let reworded = DeadLetter { reason: "another".to_owned(), ..three };
    let changed = vec![discarded_dead_letter.clone(), reworded.clone()];
    let resolved = vec![Position::new(3)];
    writer
        .commit(ReadModelChanges {
            resolved_dead_letters: resolved,
            changed_dead_letters: changed,
            ..changes(9, 12)
        })
        .await
        .unwrap();
    assert_eq!(writer.dead_letter(Position::new(5)).await.unwrap(), Some(discarded_dead_letter.clone()));
    assert_eq!(writer.dead_letters_of_stream("x".to_owned(), 10).await.unwrap(), []);
    assert_eq!(writer.blocked_streams().await.unwrap(), ["y"]);
    assert_eq!(
        writer.dead_letter_counts().await.unwrap(),
        DeadLetterCounts { pending: 1, unacknowledged_discards: 1 }
    );
    assert_eq!(reader.dead_letters(10).await.unwrap(), (vec![reworded], 1));

    let mut acknowledged = discarded_dead_letter;
    acknowledged.discarded.as_mut().unwrap().acknowledged = Some(Position::new(13));
    writer
        .commit(ReadModelChanges { changed_dead_letters: vec![acknowledged.clone()], ..changes(12, 13) })
        .await
        .unwrap();
    assert_eq!(writer.dead_letter(Position::new(5)).await.unwrap(), Some(acknowledged));
    assert_eq!(
        writer.dead_letter_counts().await.unwrap(),
        DeadLetterCounts { pending: 1, unacknowledged_discards: 0 }
    );
    let resolved_again = writer
        .commit(ReadModelChanges { resolved_dead_letters: vec![Position::new(3)], ..changes(13, 14) })
        .await;
    assert!(matches!(resolved_again, Err(ReadModelError::Damaged(_))), "{resolved_again:?}");
}

pub async fn dead_letters_are_listed_with_the_count_of_waiting_ones(open: impl Fn() -> WriterAndReader) {
    let WriterAndReader { writer, reader } = open();
    let waiting = |position, stream| DeadLetter {
        reason: BEHIND_DEAD_LETTER.to_owned(),
        ..dead_letter(position, stream)
    };
    let mut acknowledged = DeadLetter { discarded: Some(discard_record(20)), ..dead_letter(1, "x") };
    acknowledged.discarded.as_mut().unwrap().acknowledged = Some(Position::new(21));
    let dead_letters = vec![
        acknowledged,
        DeadLetter { discarded: Some(discard_record(20)), ..dead_letter(2, "x") },
        dead_letter(3, "x"),
        dead_letter(4, "y"),
        waiting(5, "x"),
        waiting(6, "x"),
    ];
    writer.commit(ReadModelChanges { new_dead_letters: dead_letters, ..changes(0, 9) }).await.unwrap();

    let needs_attention =
        reader.dead_letter_page(list_query(DeadLetterFilter::NeedsAttention)).await.unwrap();
    assert_eq!((positions(&needs_attention), needs_attention.position), (vec![2, 3, 4], Position::new(9)));
    let behind: Vec<_> = needs_attention.dead_letters.iter().map(|listed| listed.waiting_behind).collect();
    assert_eq!(behind, [0, 2, 0]);
    assert_eq!(needs_attention.counts, DeadLetterCounts { pending: 4, unacknowledged_discards: 1 });

    let page = reader.dead_letter_page(list_query(DeadLetterFilter::All)).await.unwrap();
    assert_eq!(positions(&page), [1, 2, 3, 4, 5, 6]);
    assert_eq!(page.dead_letters[4].waiting_behind, 0);
    let of_stream = DeadLetterQuery { stream: Some("x".to_owned()), ..list_query(DeadLetterFilter::All) };
    assert_eq!(positions(&reader.dead_letter_page(of_stream.clone()).await.unwrap()), [1, 2, 3, 5, 6]);
    let second_page = DeadLetterQuery { after: Position::new(2), limit: 2, ..of_stream };
    assert_eq!(positions(&reader.dead_letter_page(second_page).await.unwrap()), [3, 5]);
}
