//! Tests that actions have the same result in each engine, independent of batches and restarts.

use chat_domain::projection::ProjectionName;
use chat_ports::read_model::ReadModel;
use chat_postgres::{PostgresReadModel, PostgresReadModelStorage, PostgresUrl};
use chat_projector::read_model::ReadModelProjectionStore;
use chat_testing::Postgres;
use proptest::collection::vec;
use proptest::prelude::*;

use super::test_log::*;
use crate::batch_independence::{Cut, cuts};
use crate::log_builder::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn actions_give_the_same_result_in_postgres() {
    let mut builder = LogBuilder::with_chat();
    builder
        .append(chat(1, 1), created(1, "one"))
        .append_raw(&chat(1, 1).to_string(), "MessageCreated", "not json")
        .append(chat(1, 1), created(3, "three"))
        .append_raw(&app(1).to_string(), "ChatCreated", "{}")
        .append(app(1), chat_created(3))
        .append_action(discard(READ_MODEL, 4))
        .append_action(discard(READ_MODEL, 6))
        .append_action(acknowledge(READ_MODEL, 4))
        .append_raw(&chat(1, 1).to_string(), "MessageEdited", "{}")
        .append_action(retry(READ_MODEL, chat(1, 1)))
        .append(chat(1, 3), created(1, "here"));
    let (fixture, sqlite) = read_model_of(&builder).await;
    let database = Postgres::shared().create_database();
    let url = PostgresUrl::parse(&database).unwrap();
    fixture
        .project(
            &ReadModelProjectionStore::new(PostgresReadModelStorage::new(url.clone())),
            &[Cut { batch_size: 2, restart: false }, Cut { batch_size: 3, restart: false }],
        )
        .await;
    let postgres = PostgresReadModel::new(url);
    assert_eq!(sqlite.digest().await.unwrap(), postgres.digest().await.unwrap());
    assert_eq!(positions(&postgres.dead_letters(10).await.unwrap().0), [11]);
    postgres.verify().await.unwrap();
}

/// An operator action on dead letters. A discard or acknowledgement chooses one of the unreadable events before it.
#[derive(Clone, Copy, Debug)]
enum Action {
    /// Retries the stream of the app (0), or that of the chat with this number.
    Retry(u64),
    Discard(prop::sample::Index),
    Acknowledge(prop::sample::Index),
}

/// Returns actions, each with its projection, and with the event after which it is appended.
fn actions() -> impl Strategy<Value = Vec<(prop::sample::Index, ProjectionName, Action)>> {
    let action = prop_oneof![
        (0..3_u64).prop_map(Action::Retry),
        // Listed twice, so that discards are twice as frequent as each other action.
        any::<prop::sample::Index>().prop_map(Action::Discard),
        any::<prop::sample::Index>().prop_map(Action::Discard),
        any::<prop::sample::Index>().prop_map(Action::Acknowledge),
    ];
    vec((any::<prop::sample::Index>(), prop::sample::select(&ProjectionName::ALL[..]), action), 1..8)
}

/// Builds a log of two chats with messages. Some events are unreadable, and actions follow some events.
fn build_log(
    broken: &[prop::sample::Index],
    actions: &[(prop::sample::Index, ProjectionName, Action)],
) -> LogBuilder {
    let mut valid = LogBuilder::with_chat();
    valid.append(app(1), chat_created(2));
    for number in 1..=5 {
        valid.append(chat(1, 1), created(number, "a")).append(chat(1, 2), created(number, "b"));
        valid.append(chat(1, 1), edited(number, "c")).append(app(1), app_renamed("d"));
        if number % 2 == 0 {
            valid.append(chat(1, 2), deleted(number));
        }
    }
    let broken: Vec<usize> = broken.iter().map(|index| index.index(valid.events.len())).collect();
    let mut builder = LogBuilder::default();
    let mut broken_positions = Vec::new();
    for (index, event) in valid.events.iter().enumerate() {
        let data = String::from_utf8(event.data.clone()).unwrap();
        if broken.contains(&index) {
            broken_positions.push(builder.events.len() as u64 + 1);
        }
        let data = if broken.contains(&index) { "{".to_owned() } else { data };
        builder.append_raw(&event.stream, &event.event_type, &data);
        for (preceding_event, projection, action) in actions {
            if preceding_event.index(valid.events.len()) != index || broken_positions.is_empty() {
                continue;
            }
            let position =
                |choice: &prop::sample::Index| broken_positions[choice.index(broken_positions.len())];
            match action {
                Action::Retry(0) => builder.append_action(retry(*projection, app(1))),
                Action::Retry(number) => builder.append_action(retry(*projection, chat(1, *number))),
                Action::Discard(choice) => builder.append_action(discard(*projection, position(choice))),
                Action::Acknowledge(choice) => {
                    builder.append_action(acknowledge(*projection, position(choice)))
                }
            };
        }
    }
    builder
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn actions_give_the_same_result_for_any_batches_and_restarts(
        broken in vec(any::<prop::sample::Index>(), 1..5),
        actions in actions(),
        cuts in cuts(11),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let fixture = Fixture::with_log(&build_log(&broken, &actions)).await;
            fixture.project(&fixture.read_model_store(), &cuts).await;
            fixture.project(&fixture.search_index_store(), &cuts).await;
            fixture.assert_equals_a_rebuild().await;
        });
    }
}
