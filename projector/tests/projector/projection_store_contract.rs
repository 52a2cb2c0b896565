//! The contract suite of [`ProjectionStore`], which each implementation runs.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use chat_domain::{Position, Timestamp};
use chat_ports::content_digest::ContentDigest;
use chat_ports::dead_letter::{DeadLetterFilter, DeadLetterQuery};
use chat_ports::event_store::{LogId, RecordedEvent};
use chat_ports::heartbeat::{Heartbeat, ProjectorRole};
use chat_ports::projection_checkpoint::{ProjectionCheckpoint, StorageOrigin};
use chat_ports::projection_contents::EntityKind;
use chat_projector::projection::{Projection, ProjectionError, ProjectionStore};
use uuid::Uuid;

use crate::log_builder::*;
use crate::retries::{open_when_free, open_with_origin_when_free, recreate_when_free, when_free};
use crate::store_fixture::Stores;

/// Runs the contract suite on each of these kinds of store.
macro_rules! projection_store_contract {
    ($($kind:ident)+) => {
        $(projection_store_contract! { $kind:
            an_opened_store_is_empty_and_is_found_again
            reads_of_an_empty_location_fail_and_create_nothing
            folded_events_are_read_back_with_their_position_and_outlive_the_writer
            batches_do_not_change_the_content
            one_writer_has_a_projection_open_at_a_time
            one_of_many_concurrent_creators_succeeds
            each_read_beside_the_writer_returns_one_commit
            a_dry_run_beside_the_writer_stores_nothing
            a_batch_of_another_log_is_refused
            recreating_keeps_one_quarantined_copy_and_starts_empty
            a_projection_of_another_log_is_quarantined_for_good
            damage_is_found_and_recreating_repairs_it
            removing_leaves_no_data
            generations_do_not_affect_each_other
            heartbeats_are_kept_for_each_role_until_they_are_removed
            a_dropped_fold_leaves_the_content_of_its_checkpoint
            a_dropped_recreate_leaves_the_old_projection_or_an_empty_one
            a_crash_in_recreate_leaves_the_old_projection_or_an_empty_one
            a_crash_in_remove_is_completed_by_the_next_remove
            the_text_of_a_store_contains_no_secret
        })+
    };
    ($kind:ident: $($case:ident)+) => {
        mod $kind {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let stores = crate::store_fixture::Stores::$kind();
                    crate::deadline::within("the case", super::$case(&stores)).await;
                }
            )+
        }
    };
}

projection_store_contract! { sqlite_read_model postgres_read_model search_index }

/// The position of the dead letter in [`log`].
const DEAD_LETTER: u64 = 50;

/// Returns a log with one edited message, one deleted message, one unchanged message, and one dead letter.
fn log() -> LogBuilder {
    let mut log = LogBuilder::with_chat();
    log.append(app(1), chat_created(2))
        .append(chat(1, 1), created(1, "one"))
        .append_raw(&chat(1, 2).to_string(), "MessageCreated", "not json")
        .append(chat(1, 1), created(2, "two"))
        .append(chat(1, 1), edited(1, "one, edited"))
        .append(chat(1, 1), deleted(2))
        .append(chat(1, 1), created(3, "three"));
    log
}

fn log_with_messages(messages: u64) -> LogBuilder {
    let mut log = LogBuilder::with_chat();
    for number in 1..=messages {
        log.append(chat(1, 1), created(number, &format!("message {number}")));
    }
    log
}

async fn remove_when_free(store: &dyn ProjectionStore) {
    when_free(|| store.remove()).await.unwrap();
}

/// Folds the events that follow the checkpoint, up to the head of the log.
async fn fold_rest(projection: &mut dyn Projection, log: &LogBuilder) {
    fold_up_to(projection, log, log.head()).await;
}

async fn fold_up_to(projection: &mut dyn Projection, log: &LogBuilder, up_to: Position) {
    let from = projection.checkpoint().position;
    let is_next = |event: &&RecordedEvent| event.position > from && event.position <= up_to;
    let events = log.events.iter().filter(is_next).cloned().collect();
    projection.fold(LOG, events, up_to).await.unwrap();
}

async fn fold_into(store: &dyn ProjectionStore, log: &LogBuilder) {
    let mut projection = open_when_free(store).await;
    fold_rest(&mut *projection, log).await;
}

/// Returns the content up to a position, folded in one batch into another generation.
async fn expected_content(stores: &Stores, log: &LogBuilder, up_to: Position) -> (Position, ContentDigest) {
    let scratch = stores.generation(99);
    let mut projection = recreate_when_free(&*scratch).await;
    if up_to > Position::START {
        fold_up_to(&mut *projection, log, up_to).await;
    }
    content(&*scratch).await
}

async fn content(store: &dyn ProjectionStore) -> (Position, ContentDigest) {
    let (position, contents) = store.contents().await.unwrap();
    (position, contents.digest)
}

fn page_query() -> DeadLetterQuery {
    DeadLetterQuery {
        after: Position::START,
        limit: 10,
        filter: DeadLetterFilter::NeedsAttention,
        stream: None,
    }
}

fn heartbeat(at: i64) -> Heartbeat {
    Heartbeat {
        at: Timestamp::from_millis(at),
        state: "live".to_owned(),
        position: Position::new(7),
        events_per_second: 3,
        last_error: None,
    }
}

/// Polls a future at most `polls` times, and drops it if it is not complete then.
async fn poll_times<F: Future>(future: F, polls: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut polls_left = polls;
    poll_fn(|context| {
        if polls_left == 0 {
            return Poll::Ready(None);
        }
        polls_left -= 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}

macro_rules! assert_fails {
    ($result:expr, $error:pat) => {
        let result = $result.map(|_| ());
        assert!(matches!(result, Err($error)), "{}: {result:?}", stringify!($result));
    };
}

async fn an_opened_store_is_empty_and_is_found_again(stores: &Stores) {
    let store = stores.first();
    for expected in [StorageOrigin::Created, StorageOrigin::Existing] {
        let (projection, origin) = open_with_origin_when_free(&*store).await;
        assert_eq!(origin, expected);
        assert_eq!(projection.checkpoint(), ProjectionCheckpoint::default());
        assert_eq!((projection.dead_letter_count(), projection.discarded_count()), (0, 0));
    }
    assert_eq!(store.position().await.unwrap(), Position::START);
    let (position, contents) = store.contents().await.unwrap();
    assert_eq!((position, contents.digest.entity_count()), (Position::START, 0));
    assert!(store.size_in_bytes().await.unwrap() > 0);
}

async fn reads_of_an_empty_location_fail_and_create_nothing(stores: &Stores) {
    let store = stores.first();
    assert_fails!(store.position().await, ProjectionError::Unavailable(_));
    assert_fails!(store.dead_letter_count().await, ProjectionError::Unavailable(_));
    assert_fails!(store.dead_letter_page(page_query()).await, ProjectionError::Unavailable(_));
    assert_fails!(store.contents().await, ProjectionError::Unavailable(_));
    assert_fails!(store.open_dry_run().await, ProjectionError::Unavailable(_));
    assert_eq!(store.size_in_bytes().await, None);
    assert_eq!(store.heartbeat(ProjectorRole::Active).await, None);
    store.remove().await.unwrap();
    assert_eq!(open_with_origin_when_free(&*store).await.1, StorageOrigin::Created);
}

async fn folded_events_are_read_back_with_their_position_and_outlive_the_writer(stores: &Stores) {
    let (store, log) = (stores.first(), log());
    let mut projection = open_when_free(&*store).await;
    fold_rest(&mut *projection, &log).await;
    let checkpoint = ProjectionCheckpoint { log: Some(LOG), position: log.head() };
    for _ in 0..2 {
        assert_eq!((projection.checkpoint(), projection.dead_letter_count()), (checkpoint, 1));
        assert_eq!(store.position().await.unwrap(), log.head());
        let (position, contents) = store.contents().await.unwrap();
        assert_eq!((position, contents.count(EntityKind::DeadLetter)), (log.head(), 1));
        assert_eq!(contents.count(EntityKind::Message), 2);
        assert_eq!(store.dead_letter_count().await.unwrap(), 1);
        let page = store.dead_letter_page(page_query()).await.unwrap();
        assert_eq!((page.position, page.counts.pending), (log.head(), 1));
        assert_eq!(page.dead_letters[0].dead_letter.position, Position::new(DEAD_LETTER));
        drop(projection);
        let origin;
        (projection, origin) = open_with_origin_when_free(&*store).await;
        assert_eq!(origin, StorageOrigin::Existing);
    }
}

async fn batches_do_not_change_the_content(stores: &Stores) {
    let log = log();
    let mut projection = open_when_free(&*stores.first()).await;
    for event in &log.events {
        fold_up_to(&mut *projection, &log, event.position).await;
    }
    assert_eq!(content(&*stores.first()).await, expected_content(stores, &log, log.head()).await);
}

async fn one_writer_has_a_projection_open_at_a_time(stores: &Stores) {
    let (store, log) = (stores.first(), log());
    let mut projection = open_when_free(&*store).await;
    // A second handle of the same generation, like that of another process.
    let other = stores.first();
    assert_fails!(other.open().await, ProjectionError::InUse);
    assert_fails!(other.recreate().await, ProjectionError::InUse);
    assert_fails!(other.remove().await, ProjectionError::InUse);
    fold_rest(&mut *projection, &log).await;
    assert_eq!(content(&*other).await, expected_content(stores, &log, log.head()).await);
    drop(projection);
    let projection = open_when_free(&*other).await;
    assert_eq!(projection.checkpoint().position, log.head());
}

async fn one_of_many_concurrent_creators_succeeds(stores: &Stores) {
    let mut winner_count = 0;
    for round in 1..=30 {
        let opening: Vec<_> = (0..8)
            .map(|_| {
                let store = stores.generation(round);
                tokio::spawn(async move { store.open().await })
            })
            .collect();
        let mut winners = Vec::new();
        for opened in opening {
            match opened.await.unwrap() {
                Ok(winner) => winners.push(winner),
                Err(ProjectionError::InUse) => {}
                Err(error) => panic!("round {round}: {error:?}"),
            }
        }
        assert!(winners.len() <= 1, "round {round}: {} winners", winners.len());
        winner_count += winners.len();
        // There may be no winner: a child process that another test is starting may hold the lock meanwhile.
        let mut projection = match winners.pop() {
            Some((winner, _)) => winner,
            None => open_when_free(&*stores.generation(round)).await,
        };
        fold_rest(&mut *projection, &log()).await;
        if winner_count == 10 {
            return;
        }
    }
    panic!("a creator succeeded in only {winner_count} of 30 rounds, 10 were expected");
}

async fn each_read_beside_the_writer_returns_one_commit(stores: &Stores) {
    let (store, log) = (stores.first(), log());
    let mut projection = open_when_free(&*store).await;
    let reader = stores.first();
    let head = log.head();
    let reading = tokio::spawn(async move {
        let mut reads = vec![content(&*reader).await];
        while reads.last().is_some_and(|(position, _)| *position < head) {
            reads.push(content(&*reader).await);
        }
        reads
    });
    let mut commits = vec![content(&*store).await];
    for event in &log.events {
        fold_up_to(&mut *projection, &log, event.position).await;
        commits.push(content(&*store).await);
        assert_eq!(commits.last().unwrap().0, event.position, "a commit is not visible at once");
    }
    let reads = reading.await.unwrap();
    assert!(reads.is_sorted_by_key(|(position, _)| *position), "{reads:?}");
    assert!(reads.iter().all(|read| commits.contains(read)), "read {reads:?}, committed {commits:?}");
}

async fn a_dry_run_beside_the_writer_stores_nothing(stores: &Stores) {
    let (store, mut log) = (stores.first(), log());
    let mut projection = open_when_free(&*store).await;
    fold_rest(&mut *projection, &log).await;
    let before = content(&*store).await;
    log.append(chat(1, 1), created(4, "four"));

    let mut dry_run = stores.first().open_dry_run().await.unwrap();
    assert_eq!(dry_run.checkpoint(), projection.checkpoint());
    let dead_letter = dry_run.dead_letter_queue().dead_letter(Position::new(DEAD_LETTER)).await.unwrap();
    assert!(dead_letter.is_some());
    fold_rest(&mut *dry_run, &log).await;
    assert_eq!(content(&*store).await, before);
    drop(dry_run);

    fold_rest(&mut *projection, &log).await;
    assert_eq!(content(&*store).await, expected_content(stores, &log, log.head()).await);
}

async fn a_batch_of_another_log_is_refused(stores: &Stores) {
    let (store, log) = (stores.first(), log());
    let mut projection = open_when_free(&*store).await;
    fold_rest(&mut *projection, &log).await;
    let before = content(&*store).await;
    let other = LogId(Uuid::from_u128(8));
    let next = Position::new(log.head().get() + 10);
    assert_fails!(projection.fold(other, Vec::new(), next).await, ProjectionError::CheckpointMoved);
    drop(projection);
    let projection = open_when_free(&*store).await;
    assert_eq!(projection.checkpoint(), ProjectionCheckpoint { log: Some(LOG), position: log.head() });
    assert_eq!(content(&*store).await, before);
}

async fn recreating_keeps_one_quarantined_copy_and_starts_empty(stores: &Stores) {
    let (store, log) = (stores.first(), log());
    drop(recreate_when_free(&*store).await);
    assert_eq!(stores.quarantined_as_damaged().await, 0, "a copy is quarantined, but nothing was stored");
    for _ in 0..2 {
        fold_into(&*store, &log).await;
        let mut projection = recreate_when_free(&*store).await;
        assert_eq!(projection.checkpoint(), ProjectionCheckpoint::default());
        assert_eq!(projection.dead_letter_count(), 0);
        assert_eq!(store.position().await.unwrap(), Position::START);
        assert_eq!(stores.quarantined_as_damaged().await, 1);
        fold_rest(&mut *projection, &log).await;
        assert_eq!(content(&*store).await, expected_content(stores, &log, log.head()).await);
    }
}

async fn a_projection_of_another_log_is_quarantined_for_good(stores: &Stores) {
    let (store, log) = (stores.first(), log());
    fold_into(&*store, &log).await;
    let folded = store.checkpoint().await.unwrap();
    assert!(folded.log.is_some());
    assert_eq!(folded.position, log.head());
    let projection = when_free(|| store.recreate_for_other_log()).await.unwrap();
    assert_eq!(projection.checkpoint(), ProjectionCheckpoint::default());
    drop(projection);
    // Neither a later `recreate` nor `remove` deletes the quarantined projection.
    drop(recreate_when_free(&*store).await);
    remove_when_free(&*store).await;
    assert_eq!((stores.quarantined_as_damaged().await, stores.quarantined_as_of_other_log().await), (0, 1));
}

async fn damage_is_found_and_recreating_repairs_it(stores: &Stores) {
    let (store, log) = (stores.first(), log_with_messages(1_000));
    fold_into(&*store, &log).await;
    let before = content(&*store).await;
    drop(open_when_free(&*store).await);
    store.verify().await.unwrap();
    stores.damage().await;
    let result = match when_free(|| store.open()).await {
        Ok(_open) => store.verify().await,
        Err(error) => Err(error),
    };
    assert_fails!(result, ProjectionError::Damaged(_));

    let mut projection = recreate_when_free(&*store).await;
    fold_rest(&mut *projection, &log).await;
    store.verify().await.unwrap();
    assert_eq!(content(&*store).await, before);
}

async fn removing_leaves_no_data(stores: &Stores) {
    let (store, log) = (stores.first(), log());
    fold_into(&*store, &log).await;
    drop(recreate_when_free(&*store).await);
    fold_into(&*store, &log).await;
    store.heartbeats().publish(ProjectorRole::Active, heartbeat(1)).await;
    for _ in 0..2 {
        remove_when_free(&*store).await;
        assert_fails!(store.position().await, ProjectionError::Unavailable(_));
        assert_eq!(store.heartbeat(ProjectorRole::Active).await, None);
        assert_eq!((store.size_in_bytes().await, stores.quarantined_as_damaged().await), (None, 0));
    }
    let (projection, origin) = open_with_origin_when_free(&*store).await;
    assert_eq!((projection.checkpoint(), origin), (ProjectionCheckpoint::default(), StorageOrigin::Created));
}

async fn generations_do_not_affect_each_other(stores: &Stores) {
    let log = log();
    let generations: Vec<Arc<dyn ProjectionStore>> =
        [1, 2, 12].map(|number| stores.generation(number)).into();
    let mut open = Vec::new();
    for store in &generations {
        open.push(open_when_free(&**store).await);
        assert_eq!(generations.iter().filter(|other| other.to_string() == store.to_string()).count(), 1);
    }
    fold_rest(&mut *open[0], &log).await;
    fold_up_to(&mut *open[2], &log, Position::new(40)).await;
    assert_eq!(generations[1].position().await.unwrap(), Position::START);
    generations[0].heartbeats().publish(ProjectorRole::Active, heartbeat(1)).await;
    assert_eq!(generations[2].heartbeat(ProjectorRole::Active).await, None);
    drop(open);

    let before = content(&*generations[0]).await;
    drop(recreate_when_free(&*generations[1]).await);
    remove_when_free(&*generations[1]).await;
    remove_when_free(&*generations[2]).await;
    assert_eq!(content(&*generations[0]).await, before);
    assert_eq!(generations[0].heartbeat(ProjectorRole::Active).await, Some(heartbeat(1)));
}

async fn heartbeats_are_kept_for_each_role_until_they_are_removed(stores: &Stores) {
    let store = stores.first();
    let _projection = open_when_free(&*store).await;
    let (mut one, mut other) = (store.heartbeats(), stores.first().heartbeats());
    one.publish(ProjectorRole::Active, heartbeat(1)).await;
    one.publish(ProjectorRole::Active, heartbeat(2)).await;
    other.publish(ProjectorRole::Standby, heartbeat(3)).await;
    assert_eq!(other.read(ProjectorRole::Active).await, Some(heartbeat(2)));
    assert_eq!(store.heartbeat(ProjectorRole::Standby).await, Some(heartbeat(3)));
    other.remove(ProjectorRole::Active).await;
    other.remove(ProjectorRole::Active).await;
    assert_eq!(store.heartbeat(ProjectorRole::Active).await, None);
    assert_eq!(one.read(ProjectorRole::Standby).await, Some(heartbeat(3)));
}

async fn a_dropped_fold_leaves_the_content_of_its_checkpoint(stores: &Stores) {
    let (store, log) = (stores.first(), log_with_messages(2_500));
    for polls in [1, 8] {
        let mut projection = recreate_when_free(&*store).await;
        poll_times(fold_rest(&mut *projection, &log), polls).await;
        drop(projection);
        let projection = open_when_free(&*store).await;
        let position = projection.checkpoint().position;
        assert_eq!(content(&*store).await, expected_content(stores, &log, position).await);
    }
}

async fn a_dropped_recreate_leaves_the_old_projection_or_an_empty_one(stores: &Stores) {
    let (store, log) = (stores.first(), log());
    let full = expected_content(stores, &log, log.head()).await;
    for polls in 1..=10 {
        fold_into(&*store, &log).await;
        let recreating = || async { poll_times(store.recreate(), polls).await.transpose() };
        drop(when_free(recreating).await.unwrap());
        let projection = open_when_free(&*store).await;
        let position = projection.checkpoint().position;
        assert!(
            position == Position::START || content(&*store).await == full,
            "the content at position {position:?} is not that of the old projection"
        );
    }
}

async fn a_crash_in_recreate_leaves_the_old_projection_or_an_empty_one(stores: &Stores) {
    let (store, log) = (stores.first(), log());
    let full = expected_content(stores, &log, log.head()).await;
    fold_into(&*store, &log).await;
    drop(open_when_free(&*store).await);
    stores.crash_in_recreate().await;
    let (mut projection, origin) = open_with_origin_when_free(&*store).await;
    let expected = if projection.checkpoint().position == Position::START {
        StorageOrigin::Created
    } else {
        StorageOrigin::Existing
    };
    assert_eq!(origin, expected);
    if origin == StorageOrigin::Created {
        fold_rest(&mut *projection, &log).await;
    }
    assert_eq!(content(&*store).await, full);
}

async fn a_crash_in_remove_is_completed_by_the_next_remove(stores: &Stores) {
    let store = stores.first();
    fold_into(&*store, &log()).await;
    drop(open_when_free(&*store).await);
    stores.crash_in_remove().await;
    remove_when_free(&*store).await;
    assert_eq!(store.size_in_bytes().await, None);
    let (projection, origin) = open_with_origin_when_free(&*store).await;
    assert_eq!((projection.checkpoint(), origin), (ProjectionCheckpoint::default(), StorageOrigin::Created));
}

async fn the_text_of_a_store_contains_no_secret(stores: &Stores) {
    let store = stores.first();
    let text = format!("{store} {store:?}");
    if let Some(password) = stores.password() {
        assert!(!text.contains(password), "{text}");
    }
}
