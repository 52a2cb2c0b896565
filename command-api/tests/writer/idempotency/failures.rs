//! Owners that die or lose answers at each point of the way, and stores that are away.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chat_command_api::command::{Command, CommandError, ExecutionKind};
use chat_command_api::service::FingerprintedKey;
use chat_domain::{AppToken, Metadata};
use chat_ports::idempotency::IdempotencyTerms;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::faults::{AppendFault, CallFault};
use super::{Engines, Process, Scene, TERMS, insist, number, on_both_line_ups};

on_both_line_ups! {
    a_lost_answer_is_told_when_the_command_is_sent_again
    who_died_after_the_append_is_answered_for_at_once
    who_died_before_the_append_blocks_nobody_longer_than_its_lease
    an_app_whose_creator_died_before_the_append_gets_the_token_that_was_drawn_first
    an_append_that_arrives_after_the_key_was_taken_over_counts_once
    an_append_that_arrives_late_is_answered_once_it_is_there
    who_lost_its_lease_while_it_was_held_up_does_not_append_a_second_time
    who_lost_its_lease_while_it_read_the_stream_does_not_append_a_second_time
    a_command_in_flight_is_told_to_be_and_its_lease_is_renewed
    a_refused_append_gives_the_key_back
    a_client_that_goes_away_leaves_no_key_reserved
    without_the_store_nothing_with_a_key_is_carried_out_and_all_else_is
    an_answer_of_the_store_that_was_lost_blocks_a_key_no_longer_than_a_lease
    a_store_that_forgets_while_a_command_is_in_flight_does_not_double_it
}

/// Sends a message from a process that never answers.
async fn die_sending(process: &Process, app: AppToken, key: &'static str, fault: AppendFault) {
    process.log.always(fault);
    process.spawn_message(app, key);
    process.log.until_held_up().await;
    // A process that died renews nothing.
    process.keys.always(CallFault::Away);
}

async fn a_lost_answer_is_told_when_the_command_is_sent_again(engines: Engines) {
    let scene = Scene::new(engines);
    let process = scene.process().await;
    let app = process.app_with_chat().await;
    process.log.once(AppendFault::AnswerLost);
    let unknown = process.create_message(app, "a").await;
    assert!(matches!(unknown, Err(CommandError::OutcomeUnknown(_))), "{unknown:?}");
    let again = process.create_message(app, "a").await.unwrap();
    assert_eq!((number(&again), again.execution), (1, ExecutionKind::Replayed));
    assert_eq!(scene.bodies().await, ["a"]);
}

async fn who_died_after_the_append_is_answered_for_at_once(engines: Engines) {
    let scene = Scene::new(engines);
    let (dying, other) = (scene.process().await, scene.process().await);
    let app = other.app_with_chat().await;
    die_sending(&dying, app, "a", AppendFault::Stored).await;
    // Not even told to be in flight.
    let again = other.create_message(app, "a").await.unwrap();
    assert_eq!((number(&again), again.execution), (1, ExecutionKind::Replayed));
    assert_eq!(scene.bodies().await, ["a"]);
}

async fn who_died_before_the_append_blocks_nobody_longer_than_its_lease(engines: Engines) {
    let scene = Scene::new(engines);
    let (dying, other) = (scene.process().await, scene.process().await);
    let app = other.app_with_chat().await;
    die_sending(&dying, app, "a", AppendFault::NeverSent).await;
    let died = Instant::now();
    let again = other.insist(app, "a").await.unwrap();
    assert_eq!((number(&again), again.execution), (1, ExecutionKind::New));
    let limit = TERMS.lease + Duration::from_secs(1);
    assert!(died.elapsed() < limit, "blocked for {:?} by a dead process", died.elapsed());
    assert_eq!(scene.bodies().await, ["a"]);
}

async fn an_app_whose_creator_died_before_the_append_gets_the_token_that_was_drawn_first(engines: Engines) {
    let scene = Scene::new(engines);
    let (dying, other) = (scene.process().await, scene.process().await);
    let held = Arc::new(Notify::new());
    dying.log.always(AppendFault::HeldUntil(Arc::clone(&held)));
    let first = {
        let dying = dying.clone();
        tokio::spawn(async move { dying.create_app("a").await })
    };
    dying.log.until_held_up().await;
    dying.keys.always(CallFault::Away);
    let taken_over = insist(|| other.create_app("a")).await.unwrap();
    assert_eq!(taken_over.execution, ExecutionKind::New);
    // It was not dead after all.
    held.notify_one();
    let late = first.await.unwrap().unwrap();
    assert_eq!(late.app, taken_over.app);
    assert_eq!(scene.events().await.len(), 1);
}

async fn an_append_that_arrives_after_the_key_was_taken_over_counts_once(engines: Engines) {
    let scene = Scene::new(engines);
    let (slow, other) = (scene.process().await, scene.process().await);
    let app = other.app_with_chat().await;
    let signal = Arc::new(Notify::new());
    slow.log.once(AppendFault::Late(Arc::clone(&signal)));
    let unknown = slow.create_message(app, "a").await;
    assert!(matches!(unknown, Err(CommandError::OutcomeUnknown(_))), "{unknown:?}");
    let taken_over = other.insist(app, "a").await.unwrap();
    assert_eq!((number(&taken_over), taken_over.execution), (1, ExecutionKind::New));
    signal.notify_one();
    for key in ["b", "c"] {
        other.insist(app, key).await.unwrap();
    }
    assert_eq!(scene.bodies().await, ["a", "b", "c"]);
}

async fn an_append_that_arrives_late_is_answered_once_it_is_there(engines: Engines) {
    let scene = Scene::new(engines);
    let (slow, other) = (scene.process().await, scene.process().await);
    let app = other.app_with_chat().await;
    let signal = Arc::new(Notify::new());
    slow.log.once(AppendFault::Late(Arc::clone(&signal)));
    slow.create_message(app, "a").await.unwrap_err();
    let in_flight = other.create_message(app, "a").await;
    assert!(matches!(in_flight, Err(CommandError::KeyInFlight)), "{in_flight:?}");
    signal.notify_one();
    let again = other.insist(app, "a").await.unwrap();
    assert_eq!(number(&again), 1);
    assert_eq!(scene.bodies().await, ["a"]);
}

async fn who_lost_its_lease_while_it_was_held_up_does_not_append_a_second_time(engines: Engines) {
    let scene = Scene::new(engines);
    let (slow, other) = (scene.process().await, scene.process().await);
    let app = other.app_with_chat().await;
    // The slow one's writer is busy with another command while the key is taken over; then it comes to this one.
    let held = Arc::new(Notify::new());
    slow.log.once(AppendFault::HeldUntil(Arc::clone(&held)));
    let before = slow.spawn_message(app, "before");
    slow.log.until_held_up().await;
    let late = slow.spawn_message(app, "a");
    slow.keys.until_reserved(2).await;
    slow.keys.always(CallFault::Away);
    let taken_over = other.insist(app, "a").await.unwrap();
    assert_eq!((number(&taken_over), taken_over.execution), (1, ExecutionKind::New));
    held.notify_one();
    let late = late.await.unwrap().unwrap();
    assert_eq!((number(&late), late.execution), (1, ExecutionKind::Replayed));
    before.await.unwrap().unwrap();
    assert_eq!(scene.bodies().await, ["a", "before"]);
}

async fn who_lost_its_lease_while_it_read_the_stream_does_not_append_a_second_time(engines: Engines) {
    let scene = Scene::new(engines);
    let (slow, other) = (scene.process().await, scene.process().await);
    let app = other.app_with_chat().await;
    let held = Arc::new(Notify::new());
    slow.log.hold_next_read(Arc::clone(&held));
    let late = slow.spawn_message(app, "a");
    slow.log.until_held_up().await;
    slow.keys.always(CallFault::Away);
    let taken_over = other.insist(app, "a").await.unwrap();
    assert_eq!((number(&taken_over), taken_over.execution), (1, ExecutionKind::New));
    // What it reads now ends after the other's message.
    held.notify_one();
    let late = late.await.unwrap().unwrap();
    assert_eq!((number(&late), late.execution), (1, ExecutionKind::Replayed));
    assert_eq!(scene.bodies().await, ["a"]);
}

async fn a_command_in_flight_is_told_to_be_and_its_lease_is_renewed(engines: Engines) {
    // Long enough for a busy machine to renew in time.
    let terms = IdempotencyTerms { lease: Duration::from_secs(2), ..TERMS };
    let scene = Scene::on_terms(engines, terms);
    let (busy, other) = (scene.process().await, scene.process().await);
    let app = other.app_with_chat().await;
    let held = Arc::new(Notify::new());
    busy.log.once(AppendFault::HeldUntil(Arc::clone(&held)));
    let first = busy.spawn_message(app, "a");
    busy.log.until_held_up().await;
    let started = Instant::now();
    while started.elapsed() < terms.lease * 3 / 2 {
        let told = other.create_message(app, "a").await;
        assert!(matches!(told, Err(CommandError::KeyInFlight)), "{told:?}");
        sleep(Duration::from_millis(20)).await;
    }
    held.notify_one();
    assert_eq!(number(&first.await.unwrap().unwrap()), 1);
    assert_eq!(scene.bodies().await, ["a"]);
}

async fn a_refused_append_gives_the_key_back(engines: Engines) {
    let scene = Scene::new(engines);
    let process = scene.process().await;
    let app = process.app_with_chat().await;
    process.log.once(AppendFault::Refused);
    let refused = process.create_message(app, "a").await;
    assert!(matches!(refused, Err(CommandError::EventStoreUnavailable(_))), "{refused:?}");
    // At once, and with another payload if need be.
    let again = process.create_message_of(app, "a", "other").await.unwrap();
    assert_eq!((number(&again), again.execution), (1, ExecutionKind::New));
}

async fn a_client_that_goes_away_leaves_no_key_reserved(engines: Engines) {
    let scene = Scene::new(engines);
    let process = scene.process().await;
    let app = process.app_with_chat().await;
    let held = Arc::new(Notify::new());
    process.log.once(AppendFault::HeldUntil(Arc::clone(&held)));
    tokio::select! {
        _ = process.create_message(app, "a") => panic!("it was answered"),
        () = process.log.until_held_up() => {}
    }
    held.notify_one();
    let again = process.insist(app, "a").await.unwrap();
    assert_eq!((number(&again), again.execution), (1, ExecutionKind::Replayed));
}

async fn without_the_store_nothing_with_a_key_is_carried_out_and_all_else_is(engines: Engines) {
    let scene = Scene::new(engines);
    let process = scene.process().await;
    let app = process.app_with_chat().await;
    process.keys.always(CallFault::Away);
    let refused = process.create_message(app, "a").await;
    assert!(matches!(refused, Err(CommandError::IdempotencyStoreUnavailable(_))), "{refused:?}");
    let command = Command::CreateChat { app };
    process.commands.execute(command, Metadata::default(), None::<FingerprintedKey>).await.unwrap();
    assert!(scene.bodies().await.is_empty());
}

async fn an_answer_of_the_store_that_was_lost_blocks_a_key_no_longer_than_a_lease(engines: Engines) {
    let scene = Scene::new(engines);
    let process = scene.process().await;
    let app = process.app_with_chat().await;
    process.keys.always(CallFault::AnswerLost);
    let refused = process.create_message(app, "a").await;
    assert!(matches!(refused, Err(CommandError::IdempotencyStoreUnavailable(_))), "{refused:?}");
    process.keys.always(CallFault::None);
    assert_eq!(process.insist(app, "a").await.unwrap().execution, ExecutionKind::New);
}

async fn a_store_that_forgets_while_a_command_is_in_flight_does_not_double_it(engines: Engines) {
    let scene = Scene::new(engines);
    let (slow, other) = (scene.process().await, scene.process().await);
    let app = other.app_with_chat().await;
    let held = Arc::new(Notify::new());
    // Decided, as the first of its key, and on its way.
    slow.log.once(AppendFault::HeldUntil(Arc::clone(&held)));
    let first = slow.spawn_message(app, "a");
    slow.log.until_held_up().await;
    scene.wipe();
    let second = other.insist(app, "a").await.unwrap();
    held.notify_one();
    let first = first.await.unwrap().unwrap();
    assert_eq!((number(&first), number(&second)), (1, 1));
    assert_eq!(scene.bodies().await, ["a"]);
}
