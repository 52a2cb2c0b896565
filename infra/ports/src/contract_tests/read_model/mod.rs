//! The contract suite of the read model port. An adapter runs it with `read_model_contract!(open)`, where `open(folder)`
//! opens the write side and the query side of the read model of that folder, and creates it if it does not exist.

pub mod rows;

use crate::MAX_PAGE_BYTES;
use crate::dead_letter::{
    BEHIND_DEAD_LETTER, DeadLetter, DeadLetterCounts, DeadLetterFilter, DeadLetterPage, DeadLetterQuery,
};
use crate::event_store::LogId;
use crate::projection_checkpoint::ProjectionCheckpoint;
use crate::read_model::{
    ChatKey, EditedMessage, MessageRow, MessageState, MessageWindow, Missing, NewMessage, ReadModelChanges,
    ReadModelError, ReadModelWriter, StoredChat,
};
use chat_domain::{AppName, ChatNumber, Position, Version};
use uuid::Uuid;

use rows::{
    LOG, Sides, app, at, changes, chat, chat_number, dead_letter, delete, discarded, message, message_number,
    page, token, tombstone, with_messages,
};

/// Runs the contract suite on one adapter.
#[macro_export]
macro_rules! read_model_contract {
    ($open:path: $($case:ident)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let folder = tempfile::tempdir().unwrap();
                $crate::contract_tests::read_model::$case(|| $open(folder.path())).await;
            }
        )+
    };
    ($open:path) => {
        $crate::read_model_contract! { $open:
            a_new_read_model_is_empty_and_at_the_start
            rows_are_read_back_as_they_were_written
            changed_rows_replace_the_old_ones
            a_missing_app_chat_or_message_is_named
            a_deleted_message_is_absent_from_pages_and_reported_as_deleted
            a_message_created_and_deleted_at_once_leaves_a_tombstone
            apps_are_listed_in_the_order_of_their_creation
            chats_are_listed_by_number
            pages_report_whether_older_and_newer_messages_exist
            a_page_around_a_message_fills_up_from_the_other_side
            pages_step_over_deleted_messages
            an_empty_page_reports_the_messages_beyond_its_window
            a_page_of_large_messages_ends_early_and_reports_the_others
            changes_that_do_not_start_at_the_checkpoint_are_refused_and_change_nothing
            many_messages_at_once_are_stored_together_or_not_at_all
            changes_of_another_log_are_refused
            a_new_incarnation_of_the_log_is_adopted_at_the_same_position
            an_empty_commit_moves_the_checkpoint
            committed_rows_outlive_the_writer
            loads_omit_missing_rows
            pending_dead_letters_are_listed_by_position
            dead_letters_are_resolved_and_discarded
            dead_letters_are_listed_with_the_count_of_waiting_ones
            the_digest_differs_for_different_content
            a_query_sees_one_position
            the_largest_body_and_odd_text_are_kept
        }
    };
}

pub async fn a_new_read_model_is_empty_and_at_the_start(open: impl Fn() -> Sides) {
    let sides = open();
    assert_eq!(sides.writer.checkpoint().await.unwrap(), ProjectionCheckpoint::default());
    assert_eq!(sides.reader.position().await.unwrap(), Position::START);
    let apps = sides.reader.apps(Position::START, 10).await.unwrap();
    assert_eq!((apps.position, apps.value), (Position::START, Vec::new()));
    assert_eq!(sides.reader.dead_letters(10).await.unwrap(), (Vec::new(), 0));
    assert_eq!(sides.reader.digest().await.unwrap().value.entity_count(), 0);
}

pub async fn rows_are_read_back_as_they_were_written(open: impl Fn() -> Sides) {
    let sides = open();
    let (app, chat, messages) = with_messages(&sides, 2).await;
    let reader = &sides.reader;
    let position = Position::new(1_000);
    assert_eq!(sides.writer.checkpoint().await.unwrap(), ProjectionCheckpoint { log: Some(LOG), position });

    let found = reader.app(app.token).await.unwrap();
    assert_eq!((found.position, found.value), (position, Ok(app.clone())));
    assert_eq!(reader.chat(app.token, chat.row.number).await.unwrap().value, Ok(chat.row.clone()));
    let row = MessageRow {
        number: message_number(2),
        body: "message 2".to_owned(),
        version: Version::new(1),
        created_at: at(5),
        updated_at: at(6),
    };
    let found = reader.message(app.token, chat.row.number, message_number(2)).await.unwrap();
    assert_eq!(found.value, Ok(row));

    assert_eq!(sides.writer.apps(vec![app.token]).await.unwrap(), [app]);
    assert_eq!(sides.writer.chats(vec![chat.key()]).await.unwrap(), std::slice::from_ref(&chat));
    let loaded = sides.writer.messages(vec![(chat.id, message_number(1))]).await.unwrap();
    let state = MessageState::Present { id: messages[0].id, version: Version::new(1), created_at: at(5) };
    assert_eq!((loaded.len(), loaded[0].state), (1, state));
}

pub async fn changed_rows_replace_the_old_ones(open: impl Fn() -> Sides) {
    let sides = open();
    let (mut app, mut chat, messages) = with_messages(&sides, 2).await;
    app.name = AppName::parse("renamed".to_owned()).unwrap();
    (app.chat_count, app.version, app.updated_at) = (7, Version::new(8), at(20));
    chat.last_message = Some(message_number(9));
    (chat.row.message_count, chat.row.version, chat.row.updated_at) = (5, Version::new(6), at(21));
    let edit = EditedMessage {
        id: messages[1].id,
        body: "edited".to_owned(),
        version: Version::new(2),
        updated_at: at(22),
    };
    let all = ReadModelChanges {
        changed_apps: vec![app.clone()],
        changed_chats: vec![chat.clone()],
        edited_messages: vec![edit],
        ..changes(1_000, 1_010)
    };
    sides.writer.commit(all).await.unwrap();

    assert_eq!(sides.writer.chats(vec![chat.key()]).await.unwrap(), std::slice::from_ref(&chat));
    let reader = &sides.reader;
    assert_eq!(reader.chat(app.token, chat.row.number).await.unwrap().value, Ok(chat.row));
    assert_eq!(reader.app(app.token).await.unwrap().value, Ok(app.clone()));
    let found = reader.message(app.token, chat_number(1), message_number(2)).await.unwrap().value.unwrap();
    assert_eq!((found.body.as_str(), found.version.get()), ("edited", 2));
    assert_eq!((found.created_at, found.updated_at), (at(5), at(22)));
    let other = reader.message(app.token, chat_number(1), message_number(1)).await.unwrap().value.unwrap();
    assert_eq!(other.body, "message 1");
}

pub async fn a_missing_app_chat_or_message_is_named(open: impl Fn() -> Sides) {
    let sides = open();
    with_messages(&sides, 1).await;
    let reader = &sides.reader;
    let (a, b) = (token('a'), token('b'));
    let (one, two) = (chat_number(1), chat_number(2));
    let first = message_number(1);
    assert_eq!(reader.app(b).await.unwrap().value, Err(Missing::App));
    assert_eq!(reader.chat(b, one).await.unwrap().value, Err(Missing::App));
    assert_eq!(reader.chat(a, two).await.unwrap().value, Err(Missing::Chat));
    assert_eq!(reader.chats(b, None, 10).await.unwrap().value, Err(Missing::App));
    assert_eq!(reader.message(b, one, first).await.unwrap().value, Err(Missing::App));
    assert_eq!(reader.message(a, two, first).await.unwrap().value, Err(Missing::Chat));
    assert_eq!(reader.message(a, one, message_number(2)).await.unwrap().value, Err(Missing::Message));
    assert_eq!(reader.messages(b, one, MessageWindow::Newest, 10).await.unwrap().value, Err(Missing::App));
    assert_eq!(reader.messages(a, two, MessageWindow::Newest, 10).await.unwrap().value, Err(Missing::Chat));
    let largest = ChatNumber::try_from(i64::MAX as u64).unwrap();
    assert_eq!(reader.chat(a, largest).await.unwrap().value, Err(Missing::Chat));
}

pub async fn a_deleted_message_is_absent_from_pages_and_reported_as_deleted(open: impl Fn() -> Sides) {
    let sides = open();
    let (app, chat, messages) = with_messages(&sides, 3).await;
    delete(&sides, &messages, [2]).await;
    let found = sides.reader.message(app.token, chat_number(1), message_number(2)).await.unwrap();
    assert_eq!(found.value, Err(Missing::Deleted));
    assert_eq!(page(&sides, MessageWindow::Newest, 10).await, (vec![1, 3], false, false));
    let loaded = sides.writer.messages(vec![(chat.id, message_number(2))]).await.unwrap();
    assert_eq!(loaded[0].state, MessageState::Deleted);
}

pub async fn a_message_created_and_deleted_at_once_leaves_a_tombstone(open: impl Fn() -> Sides) {
    let sides = open();
    let (app, chat, _) = with_messages(&sides, 1).await;
    let gone = tombstone(&message(1_001, &chat, 2), false);
    let all = ReadModelChanges { deleted_messages: vec![gone], ..changes(1_000, 1_002) };
    sides.writer.commit(all).await.unwrap();
    let found = sides.reader.message(app.token, chat_number(1), message_number(2)).await.unwrap();
    assert_eq!(found.value, Err(Missing::Deleted));
}

pub async fn apps_are_listed_in_the_order_of_their_creation(open: impl Fn() -> Sides) {
    let sides = open();
    let rows = [app(10, 'c'), app(20, 'a'), app(30, 'b')];
    sides.writer.commit(ReadModelChanges { new_apps: rows.to_vec(), ..changes(0, 30) }).await.unwrap();
    let list = |after, limit| sides.reader.apps(Position::new(after), limit);
    assert_eq!(list(0, 10).await.unwrap().value, rows);
    assert_eq!(list(0, 2).await.unwrap().value, rows[..2]);
    assert_eq!(list(20, 2).await.unwrap().value, rows[2..]);
    assert_eq!(list(30, 2).await.unwrap().value, []);
}

pub async fn chats_are_listed_by_number(open: impl Fn() -> Sides) {
    let sides = open();
    let (first, second) = (app(1, 'a'), app(2, 'b'));
    let chats: Vec<_> = (1..=3).map(|n| chat(10 + n, &first, n)).collect();
    let other = chat(20, &second, 1);
    let new_chats = chats.iter().cloned().chain([other.clone()]).collect();
    let new_apps = vec![first, second];
    sides.writer.commit(ReadModelChanges { new_apps, new_chats, ..changes(0, 30) }).await.unwrap();
    let rows: Vec<_> = chats.into_iter().map(|chat| chat.row).collect();
    let list = |app, after, limit| sides.reader.chats(token(app), after, limit);
    assert_eq!(list('a', None, 10).await.unwrap().value.unwrap(), rows);
    assert_eq!(list('a', None, 2).await.unwrap().value.unwrap(), rows[..2]);
    assert_eq!(list('a', Some(chat_number(2)), 2).await.unwrap().value.unwrap(), rows[2..]);
    assert_eq!(list('b', None, 2).await.unwrap().value.unwrap(), [other.row]);
}

pub async fn pages_report_whether_older_and_newer_messages_exist(open: impl Fn() -> Sides) {
    let sides = open();
    with_messages(&sides, 5).await;
    let (before, after) =
        (|n| MessageWindow::Before(message_number(n)), |n| MessageWindow::After(message_number(n)));
    for (window, limit, expected) in [
        (MessageWindow::Newest, 10, (vec![1, 2, 3, 4, 5], false, false)),
        (MessageWindow::Newest, 5, (vec![1, 2, 3, 4, 5], false, false)),
        (MessageWindow::Newest, 2, (vec![4, 5], true, false)),
        (before(4), 2, (vec![2, 3], true, true)),
        (before(3), 2, (vec![1, 2], false, true)),
        (before(99), 2, (vec![4, 5], true, false)),
        (after(1), 2, (vec![2, 3], true, true)),
        (after(3), 2, (vec![4, 5], true, false)),
        (after(3), 1, (vec![4], true, true)),
    ] {
        assert_eq!(page(&sides, window, limit).await, expected, "{window:?}, {limit}");
    }
}

pub async fn a_page_around_a_message_fills_up_from_the_other_side(open: impl Fn() -> Sides) {
    let sides = open();
    with_messages(&sides, 9).await;
    for (number, limit, expected) in [
        (5, 4, (vec![3, 4, 5, 6], true, true)),
        (5, 1, (vec![5], true, true)),
        (1, 4, (vec![1, 2, 3, 4], false, true)),
        (9, 4, (vec![6, 7, 8, 9], true, false)),
        (99, 4, (vec![6, 7, 8, 9], true, false)),
        (5, 100, (vec![1, 2, 3, 4, 5, 6, 7, 8, 9], false, false)),
    ] {
        let window = MessageWindow::Around(message_number(number));
        assert_eq!(page(&sides, window, limit).await, expected, "{number}, {limit}");
    }
}

pub async fn pages_step_over_deleted_messages(open: impl Fn() -> Sides) {
    let sides = open();
    let (_, _, messages) = with_messages(&sides, 100).await;
    delete(&sides, &messages, 3..99).await;
    assert_eq!(page(&sides, MessageWindow::Newest, 2).await, (vec![99, 100], true, false));
    assert_eq!(page(&sides, MessageWindow::After(message_number(2)), 1).await, (vec![99], true, true));
    assert_eq!(page(&sides, MessageWindow::Before(message_number(99)), 1).await, (vec![2], true, true));
    assert_eq!(page(&sides, MessageWindow::Around(message_number(50)), 2).await, (vec![2, 99], true, true));
}

pub async fn an_empty_page_reports_the_messages_beyond_its_window(open: impl Fn() -> Sides) {
    let sides = open();
    let (_, _, messages) = with_messages(&sides, 2).await;
    assert_eq!(page(&sides, MessageWindow::Before(message_number(1)), 5).await, (vec![], false, true));
    assert_eq!(page(&sides, MessageWindow::After(message_number(2)), 5).await, (vec![], true, false));
    delete(&sides, &messages, [1, 2]).await;
    assert_eq!(page(&sides, MessageWindow::Newest, 5).await, (vec![], false, false));
    assert_eq!(page(&sides, MessageWindow::Around(message_number(1)), 5).await, (vec![], false, false));
}

pub async fn a_page_of_large_messages_ends_early_and_reports_the_others(open: impl Fn() -> Sides) {
    let sides = open();
    let (_, chat, mut messages) = with_messages(&sides, 0).await;
    // Four fit on a page.
    messages.extend((1..=10).map(|number| NewMessage {
        body: "x".repeat(MAX_PAGE_BYTES / 4),
        ..message(10 + number, &chat, number)
    }));
    messages.push(NewMessage { body: "x".repeat(MAX_PAGE_BYTES + 1), ..message(21, &chat, 11) });
    sides.writer.commit(ReadModelChanges { new_messages: messages, ..changes(1_000, 1_001) }).await.unwrap();
    for (window, expected) in [
        (MessageWindow::Newest, (vec![11], true, false)),
        (MessageWindow::Before(message_number(11)), (vec![7, 8, 9, 10], true, true)),
        (MessageWindow::Before(message_number(4)), (vec![1, 2, 3], false, true)),
        (MessageWindow::Oldest, (vec![1, 2, 3, 4], false, true)),
        (MessageWindow::After(message_number(8)), (vec![9, 10], true, true)),
        (MessageWindow::Around(message_number(5)), (vec![3, 4, 5, 6], true, true)),
        (MessageWindow::Around(message_number(1)), (vec![1, 2, 3, 4], false, true)),
        (MessageWindow::Around(message_number(11)), (vec![11], true, false)),
    ] {
        assert_eq!(page(&sides, window, 100).await, expected, "{window:?}");
    }
}

pub async fn changes_that_do_not_start_at_the_checkpoint_are_refused_and_change_nothing(
    open: impl Fn() -> Sides,
) {
    let sides = open();
    with_messages(&sides, 1).await;
    let digest = sides.reader.digest().await.unwrap();
    for from in [0, 999, 1_001] {
        let all = ReadModelChanges { new_apps: vec![app(2_000, 'b')], ..changes(from, 2_000) };
        let refused = sides.writer.commit(all).await;
        assert!(matches!(refused, Err(ReadModelError::CheckpointMoved)), "{refused:?}");
    }
    assert_eq!(sides.reader.digest().await.unwrap(), digest);
}

pub async fn many_messages_at_once_are_stored_together_or_not_at_all(open: impl Fn() -> Sides) {
    let sides = open();
    let (_, chat, messages) = with_messages(&sides, 75).await;
    assert_eq!(page(&sides, MessageWindow::Newest, 100).await, ((1..=75).collect(), false, false));
    let digest = sides.reader.digest().await.unwrap();
    let mut new_messages: Vec<_> = (76..=150).map(|n| message(1_000 + n, &chat, n)).collect();
    new_messages[40].number = messages[0].number;
    let refused = sides.writer.commit(ReadModelChanges { new_messages, ..changes(1_000, 1_200) }).await;
    assert!(refused.is_err());
    assert_eq!(sides.reader.digest().await.unwrap(), digest);
}

pub async fn changes_of_another_log_are_refused(open: impl Fn() -> Sides) {
    let sides = open();
    with_messages(&sides, 1).await;
    let other = ReadModelChanges { log: LogId(Uuid::from_u128(2)), ..changes(1_000, 1_001) };
    let refused = sides.writer.commit(other).await;
    assert!(matches!(refused, Err(ReadModelError::CheckpointMoved)), "{refused:?}");
}

pub async fn a_new_incarnation_of_the_log_is_adopted_at_the_same_position(open: impl Fn() -> Sides) {
    let sides = open();
    with_messages(&sides, 1).await;
    let before = sides.writer.checkpoint().await.unwrap();
    let log = LogId(Uuid::from_u128(2));
    let moved = ProjectionCheckpoint { position: Position::new(before.position.get() + 1), ..before };
    let refused = sides.writer.adopt_log(moved, log).await;
    assert!(matches!(refused, Err(ReadModelError::CheckpointMoved)), "{refused:?}");

    sides.writer.adopt_log(before, log).await.unwrap();
    assert_eq!(sides.writer.checkpoint().await.unwrap(), ProjectionCheckpoint { log: Some(log), ..before });
    let next = before.position.get();
    sides.writer.commit(ReadModelChanges { log, ..changes(next, next + 1) }).await.unwrap();
}

pub async fn an_empty_commit_moves_the_checkpoint(open: impl Fn() -> Sides) {
    let sides = open();
    sides.writer.commit(changes(0, 5)).await.unwrap();
    sides.writer.commit(changes(5, 9)).await.unwrap();
    assert_eq!(sides.reader.position().await.unwrap(), Position::new(9));
}

pub async fn committed_rows_outlive_the_writer(open: impl Fn() -> Sides) {
    let sides = open();
    with_messages(&sides, 3).await;
    let digest = sides.reader.digest().await.unwrap();
    drop(sides);
    let sides = open();
    assert_eq!(sides.reader.digest().await.unwrap(), digest);
    let checkpoint = ProjectionCheckpoint { log: Some(LOG), position: Position::new(1_000) };
    assert_eq!(sides.writer.checkpoint().await.unwrap(), checkpoint);
}

pub async fn loads_omit_missing_rows(open: impl Fn() -> Sides) {
    let sides = open();
    let (app, chat, _) = with_messages(&sides, 1).await;
    let apps = sides.writer.apps(vec![token('b'), app.token]).await.unwrap();
    assert_eq!(apps.len(), 1);
    let keys = [(token('a'), 1), (token('a'), 2), (token('b'), 1)];
    let keys = keys.map(|(app, number)| ChatKey { app, number: chat_number(number) });
    assert_eq!(sides.writer.chats(keys.to_vec()).await.unwrap().len(), 1);
    let keys = vec![(chat.id, message_number(1)), (chat.id, message_number(2))];
    assert_eq!(sides.writer.messages(keys).await.unwrap().len(), 1);
    assert_eq!(sides.writer.apps(Vec::new()).await.unwrap(), []);
}

pub async fn pending_dead_letters_are_listed_by_position(open: impl Fn() -> Sides) {
    let sides = open();
    let (one, two, three) = (dead_letter(3, "x"), dead_letter(5, "y"), dead_letter(9, "x"));
    let dead_letters = vec![one.clone(), two.clone(), three];
    sides.writer.commit(ReadModelChanges { new_dead_letters: dead_letters, ..changes(0, 9) }).await.unwrap();
    assert_eq!(sides.reader.dead_letters(2).await.unwrap(), (vec![one, two], 3));
    assert_eq!(sides.reader.dead_letters(0).await.unwrap(), (vec![], 3));
    assert_eq!(
        sides.writer.dead_letter_counts().await.unwrap(),
        DeadLetterCounts { pending: 3, unacknowledged_discards: 0 }
    );
    let mut streams = sides.writer.blocked_streams().await.unwrap();
    streams.sort();
    assert_eq!(streams, ["x", "y"]);
}

/// Checks that the changes of a dry run are visible to the dry run only.
pub async fn a_dry_run_leaves_nothing<W: ReadModelWriter>(sides: &Sides, dry_run: W) {
    let before = sides.reader.digest().await.unwrap();
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
    assert_eq!(sides.reader.digest().await.unwrap(), before, "changes of a dry run are visible to others");
    drop(dry_run);
    sides.writer.commit(changes(from, from + 1)).await.unwrap();
    assert_eq!(sides.reader.digest().await.unwrap().value, before.value);
}

fn list(filter: DeadLetterFilter) -> DeadLetterQuery {
    DeadLetterQuery { after: Position::START, limit: 10, filter, stream: None }
}

/// The positions on a page.
fn positions(page: &DeadLetterPage) -> Vec<u64> {
    page.dead_letters.iter().map(|listed| listed.dead_letter.position.get()).collect()
}

pub async fn dead_letters_are_resolved_and_discarded(open: impl Fn() -> Sides) {
    let Sides { writer, reader } = open();
    let (one, two, three) = (dead_letter(3, "x"), dead_letter(5, "x"), dead_letter(9, "y"));
    let dead_letters = vec![one.clone(), two.clone(), three.clone()];
    writer.commit(ReadModelChanges { new_dead_letters: dead_letters, ..changes(0, 9) }).await.unwrap();
    assert_eq!(writer.dead_letter(Position::new(5)).await.unwrap().as_ref(), Some(&two));
    assert_eq!(writer.dead_letter(Position::new(4)).await.unwrap(), None);
    assert_eq!(writer.dead_letters_of_stream("x".to_owned(), 10).await.unwrap(), [one, two.clone()]);
    assert_eq!(writer.dead_letters_of_stream("x".to_owned(), 1).await.unwrap().len(), 1);

    let discarded_dead_letter = DeadLetter { discarded: Some(discarded(12)), ..two.clone() };
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

    let mut seen = discarded_dead_letter;
    seen.discarded.as_mut().unwrap().acknowledged = Some(Position::new(13));
    writer
        .commit(ReadModelChanges { changed_dead_letters: vec![seen.clone()], ..changes(12, 13) })
        .await
        .unwrap();
    assert_eq!(writer.dead_letter(Position::new(5)).await.unwrap(), Some(seen));
    assert_eq!(
        writer.dead_letter_counts().await.unwrap(),
        DeadLetterCounts { pending: 1, unacknowledged_discards: 0 }
    );
    let gone = writer
        .commit(ReadModelChanges { resolved_dead_letters: vec![Position::new(3)], ..changes(13, 14) })
        .await;
    assert!(matches!(gone, Err(ReadModelError::Damaged(_))), "{gone:?}");
}

pub async fn dead_letters_are_listed_with_the_count_of_waiting_ones(open: impl Fn() -> Sides) {
    let Sides { writer, reader } = open();
    let waiting = |position, stream| DeadLetter {
        reason: BEHIND_DEAD_LETTER.to_owned(),
        ..dead_letter(position, stream)
    };
    let mut acknowledged = DeadLetter { discarded: Some(discarded(20)), ..dead_letter(1, "x") };
    acknowledged.discarded.as_mut().unwrap().acknowledged = Some(Position::new(21));
    let dead_letters = vec![
        acknowledged,
        DeadLetter { discarded: Some(discarded(20)), ..dead_letter(2, "x") },
        dead_letter(3, "x"),
        dead_letter(4, "y"),
        waiting(5, "x"),
        waiting(6, "x"),
    ];
    writer.commit(ReadModelChanges { new_dead_letters: dead_letters, ..changes(0, 9) }).await.unwrap();

    let needing_attention = reader.dead_letter_page(list(DeadLetterFilter::NeedsAttention)).await.unwrap();
    assert_eq!(
        (positions(&needing_attention), needing_attention.position),
        (vec![2, 3, 4], Position::new(9))
    );
    let behind: Vec<_> = needing_attention.dead_letters.iter().map(|listed| listed.waiting_behind).collect();
    assert_eq!(behind, [0, 2, 0]);
    assert_eq!(needing_attention.counts, DeadLetterCounts { pending: 4, unacknowledged_discards: 1 });

    let all = reader.dead_letter_page(list(DeadLetterFilter::All)).await.unwrap();
    assert_eq!(positions(&all), [1, 2, 3, 4, 5, 6]);
    assert_eq!(all.dead_letters[4].waiting_behind, 0);
    let of_x = DeadLetterQuery { stream: Some("x".to_owned()), ..list(DeadLetterFilter::All) };
    assert_eq!(positions(&reader.dead_letter_page(of_x.clone()).await.unwrap()), [1, 2, 3, 5, 6]);
    let page = DeadLetterQuery { after: Position::new(2), limit: 2, ..of_x };
    assert_eq!(positions(&reader.dead_letter_page(page).await.unwrap()), [3, 5]);
}

pub async fn the_digest_differs_for_different_content(open: impl Fn() -> Sides) {
    let sides = open();
    let (_, chat, messages) = with_messages(&sides, 3).await;
    let mut digests = vec![sides.reader.digest().await.unwrap()];
    assert_eq!((digests[0].position, digests[0].value.entity_count()), (Position::new(1_000), 5));
    let edit = EditedMessage {
        id: messages[0].id,
        body: "message 1!".to_owned(),
        version: Version::new(1),
        updated_at: at(6),
    };
    let renumbered = StoredChat { last_message: Some(message_number(8)), ..chat };
    let steps = [
        ReadModelChanges { edited_messages: vec![edit], ..changes(1_000, 1_001) },
        ReadModelChanges { deleted_messages: vec![tombstone(&messages[1], true)], ..changes(1_001, 1_002) },
        ReadModelChanges { changed_chats: vec![renumbered], ..changes(1_002, 1_003) },
        ReadModelChanges { new_dead_letters: vec![dead_letter(1_004, "x")], ..changes(1_003, 1_004) },
        ReadModelChanges {
            changed_dead_letters: vec![DeadLetter {
                discarded: Some(discarded(1_005)),
                ..dead_letter(1_004, "x")
            }],
            ..changes(1_004, 1_005)
        },
    ];
    for step in steps {
        sides.writer.commit(step).await.unwrap();
        let digest = sides.reader.digest().await.unwrap();
        assert!(digests.iter().all(|other| other.value != digest.value), "{digest:?}");
        digests.push(digest);
    }
}

/// Reads pages while messages are written, one a commit: the newest message always matches the position.
pub async fn a_query_sees_one_position(open: impl Fn() -> Sides) {
    let Sides { writer, reader } = open();
    let app = app(1, 'a');
    let chat = chat(2, &app, 1);
    let (token, number) = (app.token, chat.row.number);
    let first = ReadModelChanges { new_apps: vec![app], new_chats: vec![chat.clone()], ..changes(0, 10) };
    writer.commit(first).await.unwrap();
    let writing = tokio::spawn(async move {
        for n in 1..=300 {
            let new_messages = vec![message(10 + n, &chat, n)];
            writer.commit(ReadModelChanges { new_messages, ..changes(9 + n, 10 + n) }).await.unwrap();
        }
    });
    loop {
        let page = reader.messages(token, number, MessageWindow::Newest, 1).await.unwrap();
        let newest = page.value.unwrap().messages.first().map_or(0, |message| message.number.get());
        assert_eq!(newest, page.position.get() - 10);
        if newest == 300 {
            break;
        }
    }
    writing.await.unwrap();
}

pub async fn the_largest_body_and_odd_text_are_kept(open: impl Fn() -> Sides) {
    let sides = open();
    let (app, chat, _) = with_messages(&sides, 0).await;
    let bodies =
        ["x".repeat(65_536), " \u{202e}e\u{301}\u{1F468}\u{200D}\u{1F469}\u{feff}'\"\\%_\n".to_owned()];
    let new_messages = bodies
        .iter()
        .zip(1..)
        .map(|(body, n)| NewMessage { body: body.clone(), ..message(1_000 + n, &chat, n) })
        .collect();
    sides.writer.commit(ReadModelChanges { new_messages, ..changes(1_000, 1_002) }).await.unwrap();
    for (body, n) in bodies.iter().zip(1..) {
        let found = sides.reader.message(app.token, chat_number(1), message_number(n)).await.unwrap();
        assert_eq!(&found.value.unwrap().body, body);
    }
}
