//! What clients are answered who send a command again.

use std::collections::BTreeSet;
use std::time::Duration;

use chat_command_api::command::{CommandError, CommandOutcome, ExecutionKind};
use chat_domain::AppToken;
use chat_ports::idempotency::IdempotencyTerms;
use futures::future::join_all;
use tokio::time::sleep;

use super::{Engines, Process, Scene, TERMS, number, on_both_line_ups, soon};
use crate::stage::refusal;

on_both_line_ups! {
    a_command_sent_again_is_answered_as_before_and_not_carried_out
    a_new_app_sent_again_has_the_same_token
    of_many_at_once_one_is_carried_out
    another_payload_is_refused_also_when_only_the_log_remembers_the_first
    a_refused_command_is_decided_anew_when_it_is_sent_again
    a_key_counts_on_its_own_path_only
    a_key_is_good_for_another_command_once_it_is_forgotten
    reservations_that_hold_nobody_back_leave_it_to_the_log
    numbers_of_commands_that_turn_out_to_be_done_are_handed_out_again
    a_key_that_the_store_forgot_is_found_in_the_log
}

async fn a_command_sent_again_is_answered_as_before_and_not_carried_out(engines: Engines) {
    let scene = Scene::new(engines);
    let (first, second) = (scene.process().await, scene.process().await);
    let app = first.app_with_chat().await;
    for (sent, key) in ["a", "b", "c"].into_iter().enumerate() {
        let now = first.create_message(app, key).await.unwrap();
        assert_eq!((number(&now), now.execution), (sent as u64 + 1, ExecutionKind::New));
        for process in [&first, &second] {
            let again = process.create_message(app, key).await.unwrap();
            assert_eq!(
                (&again.appended, again.app, again.execution),
                (&now.appended, app, ExecutionKind::Replayed)
            );
        }
    }
    let chat = first.create_chat(app, "a").await.unwrap();
    let again = second.create_chat(app, "a").await.unwrap();
    assert_eq!(
        (number(&chat), chat.execution, number(&again), again.execution),
        (2, ExecutionKind::New, 2, ExecutionKind::Replayed)
    );
    assert_eq!(scene.bodies().await, ["a", "b", "c"]);
}

async fn a_new_app_sent_again_has_the_same_token(engines: Engines) {
    let scene = Scene::new(engines);
    let (first, second) = (scene.process().await, scene.process().await);
    let created = first.create_app("a").await.unwrap();
    for process in [&first, &second] {
        let again = process.create_app("a").await.unwrap();
        assert_eq!(
            (again.app, again.appended, again.execution),
            (created.app, created.appended.clone(), ExecutionKind::Replayed)
        );
    }
    assert_ne!(second.create_app("b").await.unwrap().app, created.app);
    assert_eq!(scene.events().await.len(), 2);
}

async fn of_many_at_once_one_is_carried_out(engines: Engines) {
    let scene = Scene::new(engines);
    let processes = [scene.process().await, scene.process().await, scene.process().await];
    let app = processes[0].app_with_chat().await;
    let sends = (0..60).map(|index| processes[index % 3].create_message(app, ["a", "b"][index % 2]));
    let mut numbers = BTreeSet::new();
    let mut created = 0;
    for (index, outcome) in join_all(sends).await.into_iter().enumerate() {
        match outcome {
            Ok(carried) => {
                created += usize::from(carried.execution == ExecutionKind::New);
                numbers.insert((index % 2, number(&carried)));
            }
            Err(CommandError::KeyInFlight) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!((created, numbers.len()), (2, 2), "{numbers:?}");
    assert_eq!(scene.bodies().await.into_iter().collect::<BTreeSet<_>>().len(), 2);
    assert_eq!(scene.bodies().await.len(), 2);
}

async fn another_payload_is_refused_also_when_only_the_log_remembers_the_first(engines: Engines) {
    let scene = Scene::new(engines);
    let process = scene.process().await;
    let app = process.app_with_chat().await;
    process.create_message_of(app, "key", "this").await.unwrap();
    let other = process.create_message_of(app, "key", "that").await;
    assert!(matches!(other, Err(CommandError::KeyReused)), "{other:?}");
    scene.wipe();
    let other = process.create_message_of(app, "key", "that").await;
    assert!(matches!(other, Err(CommandError::KeyReused)), "{other:?}");
    assert_eq!(scene.bodies().await, ["this"]);
}

async fn a_refused_command_is_decided_anew_when_it_is_sent_again(engines: Engines) {
    let scene = Scene::new(engines);
    let process = scene.process().await;
    let app = process.create_app("app").await.unwrap().app;
    for _ in 0..2 {
        assert_eq!(refusal(process.create_message(app, "a").await), "ChatNotFound");
    }
    process.create_chat(app, "a").await.unwrap();
    assert_eq!(process.create_message(app, "a").await.unwrap().execution, ExecutionKind::New);
}

async fn a_key_counts_on_its_own_path_only(engines: Engines) {
    let scene = Scene::new(engines);
    let process = scene.process().await;
    let apps: Vec<AppToken> = vec![process.app_with_chat().await, process.app_with_chat().await];
    for app in apps {
        assert_eq!(number(&process.create_message_of(app, "key", "body").await.unwrap()), 1);
        assert_eq!(number(&process.create_chat(app, "key").await.unwrap()), 2);
    }
    assert_eq!(process.create_app("key").await.unwrap().execution, ExecutionKind::New);
}

async fn a_key_is_good_for_another_command_once_it_is_forgotten(engines: Engines) {
    // The lease is not what ends: each use is sure to be the first, and meets the id of the one before.
    let terms = IdempotencyTerms { retention: Duration::from_millis(200), lease: Duration::from_secs(20) };
    let scene = Scene::on_terms(engines, terms);
    let process = scene.process().await;
    let app = process.app_with_chat().await;
    for round in 1..=4 {
        assert_eq!(number(&insist_on_now(&process, app, &round.to_string()).await), round);
    }
    assert_eq!(scene.bodies().await, ["1", "2", "3", "4"]);
}

/// Sends one key with this body until it is not taken for an earlier command.
async fn insist_on_now(process: &Process, app: AppToken, body: &str) -> CommandOutcome {
    let created = async {
        loop {
            match process.create_message_of(app, "key", body).await {
                Ok(carried) if carried.execution == ExecutionKind::New => break carried,
                Ok(_) | Err(CommandError::KeyReused | CommandError::KeyInFlight) => {
                    sleep(Duration::from_millis(1)).await;
                }
                Err(error) => panic!("{error:?}"),
            }
        }
    };
    soon(created).await
}

async fn reservations_that_hold_nobody_back_leave_it_to_the_log(engines: Engines) {
    // A lease that has run out when it begins: all are granted the key, and meet in one batch or in several writers.
    let scene = Scene::on_terms(engines, IdempotencyTerms { lease: Duration::ZERO, ..TERMS });
    let processes = [scene.process().await, scene.process().await];
    let app = processes[0].app_with_chat().await;
    let sends = (0..40).map(|index| processes[index % 2].create_message(app, "a"));
    let carried: Vec<_> = join_all(sends).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(carried.iter().filter(|carried| carried.execution == ExecutionKind::New).count(), 1);
    assert!(carried.iter().all(|carried| number(carried) == 1));
    assert_eq!(scene.bodies().await, ["a"]);
}

async fn numbers_of_commands_that_turn_out_to_be_done_are_handed_out_again(engines: Engines) {
    let scene = Scene::on_terms(engines, IdempotencyTerms { lease: Duration::ZERO, ..TERMS });
    let process = scene.process().await;
    let app = process.app_with_chat().await;
    join_all((0..40).map(|_| process.create_message(app, "a"))).await.into_iter().for_each(|sent| {
        sent.unwrap();
    });
    assert_eq!(scene.next_message(app).await, 2);
}

async fn a_key_that_the_store_forgot_is_found_in_the_log(engines: Engines) {
    let scene = Scene::new(engines);
    let process = scene.process().await;
    let app = process.app_with_chat().await;
    process.create_message(app, "a").await.unwrap();
    process.create_chat(app, "a").await.unwrap();
    scene.wipe();
    // At once, although the store grants nothing yet.
    let again = process.create_message(app, "a").await.unwrap();
    assert_eq!((number(&again), again.execution), (1, ExecutionKind::Replayed));
    let fresh = process.insist(app, "b").await.unwrap();
    assert_eq!((number(&fresh), fresh.execution), (2, ExecutionKind::New));
    let again = process.create_chat(app, "a").await.unwrap();
    assert_eq!((number(&again), again.execution), (2, ExecutionKind::Replayed));
    let again = process.create_message(app, "a").await.unwrap();
    assert_eq!((number(&again), again.execution), (1, ExecutionKind::Replayed));
    assert_eq!(scene.bodies().await, ["a", "b"]);
}
