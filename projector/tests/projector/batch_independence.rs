//! Tests that the content of a projection depends only on the log, not on batches and restarts.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use chat_domain::{DataChange, Position};
use chat_ports::event_store::RecordedEvent;
use chat_ports::read_model::{MessageRow, ReadModel};
use chat_ports::search_index::{Document, MessageKey};
use chat_postgres::{PostgresReadModel, PostgresReadModelStorage, PostgresUrl};
use chat_projector::dead_letters::BlockedStreams;
use chat_projector::decoded_batch::DecodedBatch;
use chat_projector::projection::{ProjectionError, ProjectionStore};
use chat_projector::read_model::ReadModelProjectionStore;
use chat_projector::search::{documents_to_load, fold};
use chat_sqlite::{SqliteReadModel, SqliteReadModelStorage};
use chat_testing::Postgres;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestCaseResult};
use sqlx::{Connection as _, PgConnection, raw_sql};

use crate::log_builder::*;
use crate::reference;
use crate::retries::open_when_free;

/// An event to append. It is omitted if it is not valid at this point of the log. The numbers are, in this order, those
/// of the app (from 0), the chat (from 1) and the message (from 1).
#[derive(Clone, Copy, Debug)]
enum Step {
    CreateApp,
    RenameApp(u8),
    CreateChat(u8),
    CreateMessage(u8, u64),
    EditMessage(u8, u64, usize),
    DeleteMessage(u8, u64, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (app, chat, message) = (0..3_u8, 1..4_u64, 1..8_usize);
    let step = prop_oneof![
        1 => Just(Step::CreateApp),
        1 => app.clone().prop_map(Step::RenameApp),
        2 => app.clone().prop_map(Step::CreateChat),
        8 => (app.clone(), chat.clone()).prop_map(|(a, c)| Step::CreateMessage(a, c)),
        4 => (app.clone(), chat.clone(), message.clone()).prop_map(|(a, c, m)| Step::EditMessage(a, c, m)),
        3 => (app, chat, message).prop_map(|(a, c, m)| Step::DeleteMessage(a, c, m)),
    ];
    vec(step, 0..120)
}

/// Builds a log from the valid steps.
fn build_log(steps: &[Step]) -> LogBuilder {
    let mut builder = LogBuilder::default();
    // The messages of each chat of each app: `true` for a present message, `false` for a deleted one.
    let mut apps: Vec<Vec<Vec<bool>>> = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        let text = format!("text {index}");
        match *step {
            Step::CreateApp if apps.len() < 3 => {
                let number = u8::try_from(apps.len()).unwrap();
                builder.append(app(number), app_created(&text));
                apps.push(Vec::new());
            }
            Step::RenameApp(a) if usize::from(a) < apps.len() => {
                builder.append(app(a), app_renamed(&text));
            }
            Step::CreateChat(a) => {
                let Some(chats) = apps.get_mut(usize::from(a)) else { continue };
                chats.push(Vec::new());
                builder.append(app(a), chat_created(chats.len() as u64));
            }
            Step::CreateMessage(a, c) => {
                let Some(messages) = messages(&mut apps, a, c) else { continue };
                messages.push(true);
                let (number, create) =
                    (messages.len() as u64, if index % 2 == 0 { created } else { created_by_sender });
                builder.append(chat(a, c), create(number, &text));
            }
            Step::EditMessage(a, c, m) => {
                let present = messages(&mut apps, a, c).and_then(|messages| messages.get(m - 1).copied());
                if present == Some(true) {
                    let data = match index % 3 {
                        0 => DataChange::Keep,
                        1 => DataChange::Remove,
                        _ => DataChange::Replace(data(index as u64)),
                    };
                    builder.append(chat(a, c), edited_data(m as u64, &text, data));
                }
            }
            Step::DeleteMessage(a, c, m) => {
                let message = messages(&mut apps, a, c).and_then(|messages| messages.get_mut(m - 1));
                if let Some(present @ true) = message {
                    *present = false;
                    builder.append(chat(a, c), deleted(m as u64));
                }
            }
            _ => {}
        }
    }
    builder
}

fn messages(apps: &mut [Vec<Vec<bool>>], app: u8, chat: u64) -> Option<&mut Vec<bool>> {
    apps.get_mut(usize::from(app))?.get_mut(usize::try_from(chat).unwrap() - 1)
}

/// Folds a log into a search index, in batches. Returns the documents, and the positions of the dead letters.
fn fold_search_index(events: &[RecordedEvent], cuts: &[Cut]) -> (HashMap<MessageKey, Document>, Vec<u64>) {
    let mut documents: HashMap<MessageKey, Document> = HashMap::new();
    let (mut blocked_streams, mut dead_letter_positions) = (BlockedStreams::default(), Vec::new());
    let (mut rest, mut cuts) = (events, cuts.iter().cycle());
    while !rest.is_empty() {
        let size = cuts.next().map_or(rest.len(), |cut| cut.batch_size).min(rest.len());
        let (batch, remaining) = rest.split_at(size);
        rest = remaining;
        let mut decoded =
            DecodedBatch::decode(LOG, Position::START, batch[size - 1].position, batch.to_vec());
        blocked_streams.mark(&mut decoded);
        let stored = documents_to_load(&decoded)
            .iter()
            .filter_map(|key| documents.get(key).cloned())
            .collect::<Vec<_>>();
        let changes = fold(decoded, stored, at(0));
        for key in changes.delete {
            documents.remove(&key);
        }
        let documents_to_store = changes.add.into_iter().chain(changes.upsert);
        documents.extend(documents_to_store.map(|document| (document.key, document)));
        dead_letter_positions
            .extend(changes.new_dead_letters.iter().map(|dead_letter| dead_letter.position.get()));
        blocked_streams.record_dead_letters(&changes.new_dead_letters);
    }
    (documents, dead_letter_positions)
}

/// A place where a log is cut into batches.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// The number of events in the batch before the cut.
    pub batch_size: usize,
    /// Whether the projection is reopened after the batch.
    pub restart: bool,
}

/// Returns cuts after batches of up to `max_batch_size` events. Some cuts are restarts.
pub fn cuts(max_batch_size: usize) -> impl Strategy<Value = Vec<Cut>> {
    let cut = (1..=max_batch_size, prop::bool::weighted(0.2))
        .prop_map(|(batch_size, restart)| Cut { batch_size, restart });
    vec(cut, 1..10)
}

/// Folds events into a read model in SQLite, in batches that end at the cuts. The cuts are repeated to the end of the
/// log. Without cuts, all events are one batch.
async fn project(path: &Path, events: &[RecordedEvent], cuts: &[Cut]) {
    let store = ReadModelProjectionStore::new(SqliteReadModelStorage::new(path.to_owned()));
    project_into(&store, events, cuts).await;
}

/// Like [`project`], into any store.
async fn project_into(store: &dyn ProjectionStore, events: &[RecordedEvent], cuts: &[Cut]) {
    let mut projection = store.open().await.unwrap().0;
    let mut rest = events;
    let mut cuts = cuts.iter().cycle();
    while !rest.is_empty() {
        let Cut { batch_size, restart } =
            cuts.next().copied().unwrap_or(Cut { batch_size: rest.len(), restart: false });
        let (batch, remaining) = rest.split_at(batch_size.min(rest.len()));
        projection.fold(LOG, batch.to_vec(), batch[batch.len() - 1].position).await.unwrap();
        rest = remaining;
        if restart {
            drop(projection);
            projection = open_when_free(store).await;
        }
    }
}

/// Checks that a valid log gives the same rows in the batches of `cuts`, in a single batch, and in the reference
/// implementation; and that the search index has the same messages.
async fn check_same_content_for_batches(builder: LogBuilder, cuts: Vec<Cut>) -> TestCaseResult {
    let folder = tempfile::tempdir().map_err(|error| TestCaseError::fail(error.to_string()))?;
    let (single_batch, many_batches) =
        (folder.path().join("single_batch.db"), folder.path().join("many_batches.db"));
    project(&single_batch, &builder.events, &[]).await;
    project(&many_batches, &builder.events, &cuts).await;
    let (single_batch, many_batches) =
        (SqliteReadModel::new(single_batch), SqliteReadModel::new(many_batches));
    if builder.events.is_empty() {
        return Ok(());
    }
    let digest = many_batches.digest().await.unwrap();
    prop_assert_eq!(&digest, &single_batch.digest().await.unwrap());
    prop_assert_eq!(digest.position, builder.head());
    prop_assert_eq!(reference::read_all(&many_batches).await, reference::fold(&builder.events));
    prop_assert_eq!(many_batches.dead_letters(10).await.unwrap(), (Vec::new(), 0));

    let (documents, dead_letters) = fold_search_index(&builder.events, &cuts);
    prop_assert_eq!(dead_letters, Vec::<u64>::new());
    let indexed_messages: BTreeMap<_, _> = documents
        .into_values()
        .map(|Document { key, body, sender, data, version, created_at, updated_at, .. }| {
            let row = MessageRow { number: key.message, body, sender, data, version, created_at, updated_at };
            ((key.app, key.chat, key.message), row)
        })
        .collect();
    let messages = reference::fold(&builder.events).messages;
    let present: BTreeMap<_, _> = messages.into_iter().filter_map(|(key, row)| Some((key, row?))).collect();
    prop_assert_eq!(indexed_messages, present);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_log_gives_the_same_rows_for_any_batches_and_restarts(
        steps in steps(),
        cuts in cuts(19),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(check_same_content_for_batches(build_log(&steps), cuts))?;
    }

    /// The log has unreadable or missing events.
    #[test]
    fn a_damaged_log_gives_the_same_dead_letters_for_any_batches_and_restarts(
        steps in steps(),
        broken in vec((any::<prop::sample::Index>(), any::<bool>()), 1..4),
        cuts in cuts(19),
    ) {
        let mut builder = build_log(&steps);
        for (index, is_removed) in broken {
            if builder.events.is_empty() {
                return Ok(());
            }
            let index = index.index(builder.events.len());
            if is_removed {
                builder.events.remove(index);
            } else {
                builder.events[index].data = b"{".to_vec();
            }
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let single_batch = folder.path().join("single_batch.db");
            let many_batches = folder.path().join("many_batches.db");
            project(&single_batch, &builder.events, &[]).await;
            project(&many_batches, &builder.events, &cuts).await;
            let single_batch = SqliteReadModel::new(single_batch);
            let many_batches = SqliteReadModel::new(many_batches);
            prop_assert_eq!(single_batch.digest().await.unwrap(), many_batches.digest().await.unwrap());
            prop_assert_eq!(many_batches.position().await.unwrap(), builder.head());
            prop_assert_eq!(fold_search_index(&builder.events, &[]), fold_search_index(&builder.events, &cuts));
            Ok(())
        })?;
    }
}

/// Returns the URL of a read model in Postgres, in the given schema.
fn read_model_url(database: &str, schema: &str) -> PostgresUrl {
    PostgresUrl::parse(database).unwrap().with_schema(schema).unwrap()
}

/// Checks that a log gives the same read model in Postgres as in SQLite. Logs share one database to save time, each
/// with its own schema.
async fn check_same_in_postgres(
    database: &str,
    schema: &str,
    builder: &LogBuilder,
    cuts: &[Cut],
) -> TestCaseResult {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("read-model.db");
    project(&path, &builder.events, &[]).await;
    let url = read_model_url(database, schema);
    project_into(
        &ReadModelProjectionStore::new(PostgresReadModelStorage::new(url.clone())),
        &builder.events,
        cuts,
    )
    .await;
    let (sqlite, postgres) = (SqliteReadModel::new(path), PostgresReadModel::new(url));
    prop_assert_eq!(sqlite.digest().await.unwrap(), postgres.digest().await.unwrap());
    prop_assert_eq!(reference::read_all(&sqlite).await, reference::read_all(&postgres).await);
    prop_assert_eq!(sqlite.dead_letters(0).await.unwrap(), postgres.dead_letters(0).await.unwrap());
    prop_assert!(postgres.verify().await.is_ok());
    Ok(())
}

#[test]
fn a_log_gives_the_same_rows_in_postgres_as_in_sqlite() {
    let database = Postgres::shared().create_database();
    let log_count = std::sync::atomic::AtomicU32::new(0);
    let broken = proptest::option::of(any::<prop::sample::Index>());
    proptest!(ProptestConfig { cases: 16, ..ProptestConfig::default() }, |(
        steps in steps(), cuts in cuts(39), broken in broken
    )| {
        let mut builder = build_log(&steps);
        if let (Some(index), false) = (broken, builder.events.is_empty()) {
            let index = index.index(builder.events.len());
            builder.events[index].data = b"{".to_vec();
        }
        let schema = format!("log_{}", log_count.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(check_same_in_postgres(&database, &schema, &builder, &cuts))?;
    });
}

/// Returns a log that is longer than a chunk. Later events change rows of earlier events: messages are edited and
/// deleted, some of them soon after their creation. Chats are created in all parts of the log.
fn long_log() -> LogBuilder {
    let mut steps = vec![Step::CreateApp, Step::CreateChat(0)];
    for index in 0..30_000_usize {
        let (app, chat) = (u8::try_from(index % 3).unwrap(), 1 + (index % 5) as u64);
        steps.push(match index % 4_000 {
            100 => Step::CreateApp,
            200..205 => Step::CreateChat(app),
            300 => Step::RenameApp(app),
            other if other % 7 == 0 => Step::EditMessage(app, chat, 1 + index / 40),
            other if other % 13 == 0 => Step::DeleteMessage(app, chat, 1 + index / 60),
            _ => Step::CreateMessage(app, chat),
        });
    }
    build_log(&steps)
}

#[tokio::test]
async fn a_long_batch_gives_the_same_rows_as_short_ones() {
    check_same_content_for_batches(long_log(), vec![Cut { batch_size: 1_000, restart: false }])
        .await
        .unwrap();
}

/// All rows that a chunk needs are cached, so each chunk is folded while the previous one is being stored.
#[tokio::test]
async fn chunks_are_stored_in_order_while_the_next_ones_are_folded() {
    let mut builder = LogBuilder::default();
    builder.append(app(1), app_created("one"));
    for number in 1..=3 {
        builder.append(app(1), chat_created(number));
    }
    for number in 1..=9_000 {
        for chat_index in 1..=3 {
            builder.append(chat(1, chat_index), created(number, "on and on"));
        }
    }
    check_same_content_for_batches(builder, vec![Cut { batch_size: 4_000, restart: false }]).await.unwrap();
}

/// The batch is large enough to be decoded on two threads.
#[test]
fn many_events_are_decoded_in_their_order() {
    let mut builder = LogBuilder::with_chat();
    builder.append(app(1), chat_created(2));
    for number in 1..=10_000 {
        builder.append(chat(1, 1), created(number, "a")).append(chat(1, 2), created(number, "b"));
    }
    let decoded = DecodedBatch::decode(LOG, Position::START, builder.head(), builder.events.clone());
    assert_eq!(decoded.events.len(), builder.events.len());
    for (read, expected) in decoded.events.iter().zip(&builder.events) {
        assert_eq!((read.position, read.revision), (expected.position, expected.revision));
        assert_eq!(decoded.streams[read.stream_index].name, expected.stream);
        assert_eq!(read.event.as_ref().unwrap().payload().as_bytes(), expected.data);
    }
}

#[tokio::test]
async fn a_stream_blocked_by_one_chunk_is_blocked_in_the_next_ones() {
    let mut builder = long_log();
    builder.events[4_000].data = b"{".to_vec();
    let database = Postgres::shared().create_database();
    check_same_in_postgres(&database, "many_batches", &builder, &[Cut { batch_size: 1_500, restart: true }])
        .await
        .unwrap();
    check_same_in_postgres(&database, "single_batch", &builder, &[]).await.unwrap();
    let dead_letters = async |schema| {
        let (dead_letters, count) =
            PostgresReadModel::new(read_model_url(&database, schema)).dead_letters(20_000).await.unwrap();
        assert!(count > 100, "{count} dead letters");
        dead_letters
            .into_iter()
            .map(|dead_letter| (dead_letter.position, dead_letter.stream, dead_letter.reason))
            .collect::<Vec<_>>()
    };
    assert_eq!(dead_letters("many_batches").await, dead_letters("single_batch").await);
}

#[tokio::test]
async fn a_chunk_that_can_not_be_stored_ends_its_batch() {
    let database = Postgres::shared().create_database();
    let url = read_model_url(&database, "moved");
    let store = ReadModelProjectionStore::new(PostgresReadModelStorage::new(url.clone()));
    let mut projection = store.open().await.unwrap().0;
    let mut connection = PgConnection::connect(&database).await.unwrap();
    // The open projection has its checkpoint at the start of the log. It can't commit a chunk once the stored
    // checkpoint differs from that.
    raw_sql("UPDATE moved.checkpoint SET position = 5").execute(&mut connection).await.unwrap();
    let builder = long_log();
    let folded = projection.fold(LOG, builder.events.clone(), builder.head()).await;
    assert!(matches!(folded, Err(ProjectionError::CheckpointMoved)), "{folded:?}");
    assert_eq!(projection.checkpoint().position, Position::START);
    assert_eq!(PostgresReadModel::new(url).position().await.unwrap(), Position::new(5));
}

/// Postgres can't store NUL in texts, but names of streams and event types in a log may contain it.
#[tokio::test]
async fn a_stream_name_with_nul_becomes_the_same_dead_letter_in_each_engine() {
    let mut builder = LogBuilder::with_chat();
    builder.append_raw("odd\0stream", "Odd\0Type", "{}").append(chat(1, 1), created(1, "and on"));
    let database = Postgres::shared().create_database();
    check_same_in_postgres(&database, "odd", &builder, &[]).await.unwrap();
    let dead_letters =
        PostgresReadModel::new(read_model_url(&database, "odd")).dead_letters(10).await.unwrap().0;
    assert_eq!(
        (dead_letters[0].stream.as_str(), dead_letters[0].event_type.as_str()),
        ("odd\u{fffd}stream", "Odd\u{fffd}Type")
    );
}

#[tokio::test]
async fn a_read_model_of_an_empty_log_is_at_its_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("read-model.db");
    project(&path, &[], &[]).await;
    let model = SqliteReadModel::new(path);
    assert_eq!(model.position().await.unwrap(), Position::START);
    assert_eq!(reference::read_all(&model).await, reference::AllRows::default());
}
