//! The outcomes of repeated commands, also after the store lost its data.

use std::collections::BTreeSet;
use std::time::Duration;

use chat_command_api::command::{CommandError, CommandOutcome, ExecutionKind};
use chat_domain::AppToken;
use chat_ports::idempotency::IdempotencyTerms;
use futures::future::join_all;
use tokio::time::sleep;

use super::{Cluster, Engines, Process, TERMS, created_number, on_all_engines};
use crate::test_log::{rejection_name, within_timeout};

on_all_engines! {
    answers_a_repeated_command_with_the_first_outcome
    answers_a_repeated_creation_of_an_app_with_the_same_token
    executes_one_of_many_concurrent_repetitions
    rejects_another_payload_even_if_only_the_log_holds_the_first
    decides_a_rejected_command_again_when_it_is_repeated
    scopes_a_key_to_its_path
    accepts_an_expired_key_for_another_command
    the_log_alone_prevents_duplicates_if_leases_expire_at_once
    reuses_the_numbers_that_were_reserved_for_repeated_commands
    finds_a_key_in_the_log_after_the_store_lost_its_data
}

async fn answers_a_repeated_command_with_the_first_outcome(engines: Engines) {
    let cluster = Cluster::new(engines);
    let (first, second) = (cluster.start_process().await, cluster.start_process().await);
    let app = first.create_app_with_chat().await;
    for (sent, key) in ["a", "b", "c"].into_iter().enumerate() {
        let created = first.create_message(app, key).await.unwrap();
        assert_eq!((created_number(&created), created.execution), (sent as u64 + 1, ExecutionKind::New));
        for process in [&first, &second] {
            let repeated = process.create_message(app, key).await.unwrap();
            assert_eq!(
                repeated,
                CommandOutcome { app, execution: ExecutionKind::Replayed, ..created.clone() }
            );
        }
    }
    let chat = first.create_chat(app, "a").await.unwrap();
    let repeated = second.create_chat(app, "a").await.unwrap();
    assert_eq!(
        (created_number(&chat), chat.execution, created_number(&repeated), repeated.execution),
        (2, ExecutionKind::New, 2, ExecutionKind::Replayed)
    );
    assert_eq!(cluster.bodies().await, ["a", "b", "c"]);
}

async fn answers_a_repeated_creation_of_an_app_with_the_same_token(engines: Engines) {
    let cluster = Cluster::new(engines);
    let (first, second) = (cluster.start_process().await, cluster.start_process().await);
    let created = first.create_app("a").await.unwrap();
    for process in [&first, &second] {
        let repeated = process.create_app("a").await.unwrap();
        assert_eq!(repeated, CommandOutcome { execution: ExecutionKind::Replayed, ..created.clone() });
    }
    assert_ne!(second.create_app("b").await.unwrap().app, created.app);
    assert_eq!(cluster.events().await.len(), 2);
}

async fn executes_one_of_many_concurrent_repetitions(engines: Engines) {
    let cluster = Cluster::new(engines);
    let processes =
        [cluster.start_process().await, cluster.start_process().await, cluster.start_process().await];
    let app = processes[0].create_app_with_chat().await;
    let sends = (0..60).map(|index| processes[index % 3].create_message(app, ["a", "b"][index % 2]));
    let mut numbers = BTreeSet::new();
    let mut new_count = 0;
    for (index, outcome) in join_all(sends).await.into_iter().enumerate() {
        match outcome {
            Ok(outcome) => {
                new_count += usize::from(outcome.execution == ExecutionKind::New);
                numbers.insert((index % 2, created_number(&outcome)));
            }
            Err(CommandError::KeyInFlight) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!((new_count, numbers.len()), (2, 2), "{numbers:?}");
    assert_eq!(cluster.bodies().await.into_iter().collect::<BTreeSet<_>>().len(), 2);
    assert_eq!(cluster.bodies().await.len(), 2);
}

async fn rejects_another_payload_even_if_only_the_log_holds_the_first(engines: Engines) {
    let cluster = Cluster::new(engines);
    let process = cluster.start_process().await;
    let app = process.create_app_with_chat().await;
    process.create_message_with_body(app, "key", "this").await.unwrap();
    let other = process.create_message_with_body(app, "key", "that").await;
    assert!(matches!(other, Err(CommandError::KeyReused)), "{other:?}");
    cluster.wipe_idempotency_store();
    let other = process.create_message_with_body(app, "key", "that").await;
    assert!(matches!(other, Err(CommandError::KeyReused)), "{other:?}");
    assert_eq!(cluster.bodies().await, ["this"]);
}

async fn decides_a_rejected_command_again_when_it_is_repeated(engines: Engines) {
    let cluster = Cluster::new(engines);
    let process = cluster.start_process().await;
    let app = process.create_app("app").await.unwrap().app;
    for _ in 0..2 {
        assert_eq!(rejection_name(process.create_message(app, "a").await), "ChatNotFound");
    }
    process.create_chat(app, "a").await.unwrap();
    assert_eq!(process.create_message(app, "a").await.unwrap().execution, ExecutionKind::New);
}

async fn scopes_a_key_to_its_path(engines: Engines) {
    let cluster = Cluster::new(engines);
    let process = cluster.start_process().await;
    let apps: Vec<AppToken> =
        vec![process.create_app_with_chat().await, process.create_app_with_chat().await];
    for app in apps {
        assert_eq!(created_number(&process.create_message_with_body(app, "key", "body").await.unwrap()), 1);
        assert_eq!(created_number(&process.create_chat(app, "key").await.unwrap()), 2);
    }
    assert_eq!(process.create_app("key").await.unwrap().execution, ExecutionKind::New);
}

async fn accepts_an_expired_key_for_another_command(engines: Engines) {
    // The retention ends before the lease. So the store grants each use of the key as a first use, although the log has
    // the event of the previous use.
    let terms = IdempotencyTerms { retention: Duration::from_millis(200), lease: Duration::from_secs(20) };
    let cluster = Cluster::with_terms(engines, terms);
    let process = cluster.start_process().await;
    let app = process.create_app_with_chat().await;
    for round in 1..=4 {
        assert_eq!(created_number(&create_after_expiry(&process, app, &round.to_string()).await), round);
    }
    assert_eq!(cluster.bodies().await, ["1", "2", "3", "4"]);
}

/// Creates a message under one key; retries until the earlier use of the key has expired.
async fn create_after_expiry(process: &Process, app: AppToken, body: &str) -> CommandOutcome {
    let created = async {
        loop {
            match process.create_message_with_body(app, "key", body).await {
                Ok(outcome) if outcome.execution == ExecutionKind::New => break outcome,
                Ok(_) | Err(CommandError::KeyReused | CommandError::KeyInFlight) => {
                    sleep(Duration::from_millis(1)).await;
                }
                Err(error) => panic!("{error:?}"),
            }
        }
    };
    within_timeout(created).await
}

async fn the_log_alone_prevents_duplicates_if_leases_expire_at_once(engines: Engines) {
    // Leases expire at once, so the store grants the key to every repetition. The repetitions are decided in one batch
    // or by several writers.
    let cluster = Cluster::with_terms(engines, IdempotencyTerms { lease: Duration::ZERO, ..TERMS });
    let processes = [cluster.start_process().await, cluster.start_process().await];
    let app = processes[0].create_app_with_chat().await;
    let sends = (0..40).map(|index| processes[index % 2].create_message(app, "a"));
    let outcomes: Vec<_> = join_all(sends).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(outcomes.iter().filter(|outcome| outcome.execution == ExecutionKind::New).count(), 1);
    assert!(outcomes.iter().all(|outcome| created_number(outcome) == 1));
    assert_eq!(cluster.bodies().await, ["a"]);
}

async fn reuses_the_numbers_that_were_reserved_for_repeated_commands(engines: Engines) {
    let cluster = Cluster::with_terms(engines, IdempotencyTerms { lease: Duration::ZERO, ..TERMS });
    let process = cluster.start_process().await;
    let app = process.create_app_with_chat().await;
    join_all((0..40).map(|_| process.create_message(app, "a"))).await.into_iter().for_each(|outcome| {
        outcome.unwrap();
    });
    assert_eq!(cluster.reserve_message_number(app).await, 2);
}

async fn finds_a_key_in_the_log_after_the_store_lost_its_data(engines: Engines) {
    let cluster = Cluster::new(engines);
    let process = cluster.start_process().await;
    let app = process.create_app_with_chat().await;
    process.create_message(app, "a").await.unwrap();
    process.create_chat(app, "a").await.unwrap();
    cluster.wipe_idempotency_store();
    // The event is found at once, although the store grants no keys yet.
    let repeated = process.create_message(app, "a").await.unwrap();
    assert_eq!((created_number(&repeated), repeated.execution), (1, ExecutionKind::Replayed));
    let new = process.create_message_with_retries(app, "b").await.unwrap();
    assert_eq!((created_number(&new), new.execution), (2, ExecutionKind::New));
    let repeated = process.create_chat(app, "a").await.unwrap();
    assert_eq!((created_number(&repeated), repeated.execution), (2, ExecutionKind::Replayed));
    let repeated = process.create_message(app, "a").await.unwrap();
    assert_eq!((created_number(&repeated), repeated.execution), (1, ExecutionKind::Replayed));
    assert_eq!(cluster.bodies().await, ["a", "b"]);
}
