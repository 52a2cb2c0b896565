//! Tests of the explanations of rows.

use chat_domain::{Position, Revision};
use chat_operations::audit::{Subject, explain};
use chat_ports::dead_letter::DeadLetter;
use chat_ports::read_model::{ReadModelChanges, ReadModelWriter as _};
use chat_sqlite::{SqliteReadModel, SqliteReadModelWriter};

use crate::fixture::*;

#[tokio::test(flavor = "multi_thread")]
async fn lists_the_dead_letters_of_a_subject_among_many_of_other_streams() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("read-model.db");
    let (writer, _) = SqliteReadModelWriter::open(&path).unwrap();
    let [log, _] = on_sqlite_and_kurrentdb().await;
    let dead_letter = |position: u64, stream: String| DeadLetter {
        position: Position::new(position),
        stream,
        revision: Revision::new(0),
        event_type: "Rained".to_owned(),
        reason: "the type of the event is unknown".to_owned(),
        dead_lettered_at: at(0),
        discarded: None,
    };
    let mut dead_letters: Vec<_> =
        (1..=1_500).map(|position| dead_letter(position, format!("weather-{position}"))).collect();
    dead_letters.push(dead_letter(1_501, chat(1, 1).to_string()));
    dead_letters.push(dead_letter(1_502, app(1).to_string()));
    dead_letters.push(dead_letter(1_503, chat(1, 1).to_string()));
    dead_letters.push(dead_letter(1_504, chat(1, 2).to_string()));
    let log_id = log.event_store.log_id().await.unwrap();
    let changes = ReadModelChanges::empty(log_id, Position::START, Position::new(1_504));
    writer.commit(ReadModelChanges { new_dead_letters: dead_letters, ..changes }).await.unwrap();

    let listed = async |subject| {
        let explanation = explain(&*log.event_store, &SqliteReadModel::new(&path), subject).await.unwrap();
        explanation.dead_letters.iter().map(|dead_letter| dead_letter.position.get()).collect::<Vec<_>>()
    };
    assert_eq!(listed(Subject::Chat(token(1), chat_number(1))).await, [1_501, 1_502, 1_503]);
    assert_eq!(listed(Subject::App(token(1))).await, [1_502]);
}
