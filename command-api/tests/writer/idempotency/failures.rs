//! Processes that own a key and die, are slow or lose a response; and stores that are unavailable or lose their data.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chat_command_api::command::{Command, CommandError, ExecutionKind};
use chat_domain::{AppToken, Metadata};
use chat_ports::idempotency::IdempotencyTerms;
use tokio::sync::Notify;

use super::{
    Cluster, Engines, Process, TERMS, created_number, on_all_engines, repeat_if_overloaded, retry_in_flight,
};
use crate::faults::{AppendFault, CallFault};

on_all_engines! {
    a_repetition_gets_the_outcome_after_a_lost_response
    a_repetition_gets_the_outcome_at_once_after_the_owner_died_after_its_append
    a_key_is_blocked_no_longer_than_its_lease_if_its_owner_died_before_its_append
    an_app_keeps_the_first_generated_token_after_a_takeover_of_its_key
    an_append_that_arrives_after_a_takeover_of_the_key_adds_no_second_event
    a_late_append_is_answered_once_it_is_stored
    an_owner_that_lost_its_lease_in_the_queue_appends_no_second_event
    an_owner_that_lost_its_lease_during_a_read_appends_no_second_event
    reports_a_command_in_flight_and_renews_its_lease
    a_refused_append_releases_the_key
    a_client_that_disconnects_leaves_no_key_reserved
    executes_only_commands_without_a_key_while_the_store_is_unavailable
    a_key_can_be_used_again_after_a_lost_response_of_the_store
    a_store_that_loses_its_data_during_a_command_causes_no_second_event
}

/// Sends a message from a process that dies during the append.
async fn send_from_dying_process(process: &Process, app: AppToken, key: &'static str, fault: AppendFault) {
    process.log.inject_always(fault);
    process.spawn_message(app, key);
    process.log.until_held().await;
    // A dead process does not renew its lease.
    process.idempotency_store.inject_always(CallFault::Unavailable);
}

async fn a_repetition_gets_the_outcome_after_a_lost_response(engines: Engines) {
    let cluster = Cluster::new(engines);
    let process = cluster.start_process().await;
    let app = process.create_app_with_chat().await;
    process.log.inject_once(AppendFault::ResponseLost);
    let unknown = process.create_message(app, "a").await;
    assert!(matches!(unknown, Err(CommandError::OutcomeUnknown(_))), "{unknown:?}");
    let repeated = process.create_message(app, "a").await.unwrap();
    assert_eq!((created_number(&repeated), repeated.execution), (1, ExecutionKind::Replayed));
    assert_eq!(cluster.bodies().await, ["a"]);
}

async fn a_repetition_gets_the_outcome_at_once_after_the_owner_died_after_its_append(engines: Engines) {
    let cluster = Cluster::new(engines);
    let (dying, other) = (cluster.start_process().await, cluster.start_process().await);
    let app = other.create_app_with_chat().await;
    send_from_dying_process(&dying, app, "a", AppendFault::HangsAfterStoring).await;
    // The outcome comes at once, without an error that the key is in flight.
    let repeated = other.create_message(app, "a").await.unwrap();
    assert_eq!((created_number(&repeated), repeated.execution), (1, ExecutionKind::Replayed));
    assert_eq!(cluster.bodies().await, ["a"]);
}

async fn a_key_is_blocked_no_longer_than_its_lease_if_its_owner_died_before_its_append(engines: Engines) {
    let cluster = Cluster::new(engines);
    let (dying, other) = (cluster.start_process().await, cluster.start_process().await);
    let app = other.create_app_with_chat().await;
    send_from_dying_process(&dying, app, "a", AppendFault::HangsBeforeStoring).await;
    let died = Instant::now();
    let repeated = other.create_message_with_retries(app, "a").await.unwrap();
    assert_eq!((created_number(&repeated), repeated.execution), (1, ExecutionKind::New));
    let limit = TERMS.lease + Duration::from_secs(10);
    assert!(died.elapsed() < limit, "a dead process blocked the key for {:?}", died.elapsed());
    assert_eq!(cluster.bodies().await, ["a"]);
}

async fn an_app_keeps_the_first_generated_token_after_a_takeover_of_its_key(engines: Engines) {
    let cluster = Cluster::new(engines);
    let (slow, other) = (cluster.start_process().await, cluster.start_process().await);
    let release = Arc::new(Notify::new());
    slow.log.inject_always(AppendFault::HeldUntil(Arc::clone(&release)));
    let first = {
        let slow = slow.clone();
        tokio::spawn(async move { slow.create_app("a").await })
    };
    slow.log.until_held().await;
    slow.idempotency_store.inject_always(CallFault::Unavailable);
    let taken_over = retry_in_flight(|| other.create_app("a")).await.unwrap();
    assert_eq!(taken_over.execution, ExecutionKind::New);
    // The append of the first owner arrives after the takeover.
    release.notify_one();
    let late = repeat_if_overloaded(first.await.unwrap(), || other.create_app("a")).await.unwrap();
    assert_eq!(late.app, taken_over.app);
    assert_eq!(cluster.events().await.len(), 1);
}

async fn an_append_that_arrives_after_a_takeover_of_the_key_adds_no_second_event(engines: Engines) {
    let cluster = Cluster::new(engines);
    let (slow, other) = (cluster.start_process().await, cluster.start_process().await);
    let app = other.create_app_with_chat().await;
    let signal = Arc::new(Notify::new());
    slow.log.inject_once(AppendFault::Late(Arc::clone(&signal)));
    let unknown = slow.create_message(app, "a").await;
    assert!(matches!(unknown, Err(CommandError::OutcomeUnknown(_))), "{unknown:?}");
    let taken_over = other.create_message_with_retries(app, "a").await.unwrap();
    assert_eq!((created_number(&taken_over), taken_over.execution), (1, ExecutionKind::New));
    signal.notify_one();
    for key in ["b", "c"] {
        other.create_message_with_retries(app, key).await.unwrap();
    }
    assert_eq!(cluster.bodies().await, ["a", "b", "c"]);
}

async fn a_late_append_is_answered_once_it_is_stored(engines: Engines) {
    // The lease does not expire, so the answer comes from the log.
    let terms = IdempotencyTerms { lease: Duration::from_mins(1), ..TERMS };
    let cluster = Cluster::with_terms(engines, terms);
    let (slow, other) = (cluster.start_process().await, cluster.start_process().await);
    let app = other.create_app_with_chat().await;
    let signal = Arc::new(Notify::new());
    slow.log.inject_once(AppendFault::Late(Arc::clone(&signal)));
    slow.create_message(app, "a").await.unwrap_err();
    let in_flight = other.create_message(app, "a").await;
    assert!(matches!(in_flight, Err(CommandError::KeyInFlight)), "{in_flight:?}");
    signal.notify_one();
    let repeated = other.create_message_with_retries(app, "a").await.unwrap();
    assert_eq!(created_number(&repeated), 1);
    assert_eq!(cluster.bodies().await, ["a"]);
}

async fn an_owner_that_lost_its_lease_in_the_queue_appends_no_second_event(engines: Engines) {
    let cluster = Cluster::new(engines);
    let (slow, other) = (cluster.start_process().await, cluster.start_process().await);
    let app = other.create_app_with_chat().await;
    // The append of `before` keeps the slow writer busy. So `a` waits in that writer's queue while another process
    // takes over the key.
    let release = Arc::new(Notify::new());
    slow.log.inject_once(AppendFault::HeldUntil(Arc::clone(&release)));
    let before = slow.spawn_message(app, "before");
    slow.log.until_held().await;
    let late = slow.spawn_message(app, "a");
    slow.idempotency_store.until_reserved(2).await;
    slow.idempotency_store.inject_always(CallFault::Unavailable);
    let taken_over = other.create_message_with_retries(app, "a").await.unwrap();
    assert_eq!((created_number(&taken_over), taken_over.execution), (1, ExecutionKind::New));
    release.notify_one();
    let late = repeat_if_overloaded(late.await.unwrap(), || other.create_message(app, "a")).await.unwrap();
    assert_eq!((created_number(&late), late.execution), (1, ExecutionKind::Replayed));
    repeat_if_overloaded(before.await.unwrap(), || other.create_message(app, "before")).await.unwrap();
    assert_eq!(cluster.bodies().await, ["a", "before"]);
}

async fn an_owner_that_lost_its_lease_during_a_read_appends_no_second_event(engines: Engines) {
    let cluster = Cluster::new(engines);
    let (slow, other) = (cluster.start_process().await, cluster.start_process().await);
    let app = other.create_app_with_chat().await;
    let release = Arc::new(Notify::new());
    slow.log.hold_next_read(Arc::clone(&release));
    let late = slow.spawn_message(app, "a");
    slow.log.until_held().await;
    slow.idempotency_store.inject_always(CallFault::Unavailable);
    let taken_over = other.create_message_with_retries(app, "a").await.unwrap();
    assert_eq!((created_number(&taken_over), taken_over.execution), (1, ExecutionKind::New));
    // The delayed read includes the other process's message.
    release.notify_one();
    let late = repeat_if_overloaded(late.await.unwrap(), || other.create_message(app, "a")).await.unwrap();
    assert_eq!((created_number(&late), late.execution), (1, ExecutionKind::Replayed));
    assert_eq!(cluster.bodies().await, ["a"]);
}

async fn reports_a_command_in_flight_and_renews_its_lease(engines: Engines) {
    // The lease is long enough for a busy machine to renew it in time.
    let terms = IdempotencyTerms { lease: Duration::from_secs(10), ..TERMS };
    let cluster = Cluster::with_terms(engines, terms);
    let (busy, other) = (cluster.start_process().await, cluster.start_process().await);
    let app = other.create_app_with_chat().await;
    let release = Arc::new(Notify::new());
    busy.log.inject_once(AppendFault::HeldUntil(Arc::clone(&release)));
    let first = busy.spawn_message(app, "a");
    busy.log.until_held().await;
    // A lease is renewed four times in its duration. So a lease that is never renewed ends before the fifth renewal.
    for renewals in 0..=5 {
        busy.idempotency_store.until_renewed(renewals).await;
        let outcome = other.create_message(app, "a").await;
        assert!(matches!(outcome, Err(CommandError::KeyInFlight)), "{outcome:?}");
    }
    release.notify_one();
    assert_eq!(created_number(&first.await.unwrap().unwrap()), 1);
    assert_eq!(cluster.bodies().await, ["a"]);
}

async fn a_refused_append_releases_the_key(engines: Engines) {
    let cluster = Cluster::new(engines);
    let process = cluster.start_process().await;
    let app = process.create_app_with_chat().await;
    process.log.inject_once(AppendFault::Refused);
    let refused = process.create_message(app, "a").await;
    assert!(matches!(refused, Err(CommandError::EventStoreUnavailable(_))), "{refused:?}");
    // The key is free at once, even for another payload.
    let repeated = process.create_message_with_body(app, "a", "other").await.unwrap();
    assert_eq!((created_number(&repeated), repeated.execution), (1, ExecutionKind::New));
}

async fn a_client_that_disconnects_leaves_no_key_reserved(engines: Engines) {
    let cluster = Cluster::new(engines);
    let process = cluster.start_process().await;
    let app = process.create_app_with_chat().await;
    let release = Arc::new(Notify::new());
    process.log.inject_once(AppendFault::HeldUntil(Arc::clone(&release)));
    tokio::select! {
        _ = process.create_message(app, "a") => panic!("the command was answered although its append is held"),
        () = process.log.until_held() => {}
    }
    release.notify_one();
    let repeated = process.create_message_with_retries(app, "a").await.unwrap();
    assert_eq!((created_number(&repeated), repeated.execution), (1, ExecutionKind::Replayed));
}

async fn executes_only_commands_without_a_key_while_the_store_is_unavailable(engines: Engines) {
    let cluster = Cluster::new(engines);
    let process = cluster.start_process().await;
    let app = process.create_app_with_chat().await;
    process.idempotency_store.inject_always(CallFault::Unavailable);
    let refused = process.create_message(app, "a").await;
    assert!(matches!(refused, Err(CommandError::IdempotencyStoreUnavailable(_))), "{refused:?}");
    let command = Command::CreateChat { app };
    process.commands.execute(command, Metadata::default(), None).await.unwrap();
    assert!(cluster.bodies().await.is_empty());
}

async fn a_key_can_be_used_again_after_a_lost_response_of_the_store(engines: Engines) {
    let cluster = Cluster::new(engines);
    let process = cluster.start_process().await;
    let app = process.create_app_with_chat().await;
    process.idempotency_store.inject_always(CallFault::ResponseLost);
    let refused = process.create_message(app, "a").await;
    assert!(matches!(refused, Err(CommandError::IdempotencyStoreUnavailable(_))), "{refused:?}");
    process.idempotency_store.inject_always(CallFault::None);
    assert_eq!(process.create_message_with_retries(app, "a").await.unwrap().execution, ExecutionKind::New);
}

async fn a_store_that_loses_its_data_during_a_command_causes_no_second_event(engines: Engines) {
    let cluster = Cluster::new(engines);
    let (slow, other) = (cluster.start_process().await, cluster.start_process().await);
    let app = other.create_app_with_chat().await;
    let release = Arc::new(Notify::new());
    // The store loses its data while the append of the first command with the key is in flight.
    slow.log.inject_once(AppendFault::HeldUntil(Arc::clone(&release)));
    let first = slow.spawn_message(app, "a");
    slow.log.until_held().await;
    cluster.wipe_idempotency_store();
    let second = other.create_message_with_retries(app, "a").await.unwrap();
    release.notify_one();
    let first = repeat_if_overloaded(first.await.unwrap(), || other.create_message(app, "a")).await.unwrap();
    assert_eq!((created_number(&first), created_number(&second)), (1, 1));
    assert_eq!(cluster.bodies().await, ["a"]);
}
