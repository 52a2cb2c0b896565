//! A SQLite log with a checkpoint, and altered copies of the log.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chat_domain::event::SchemaVersion;
use chat_domain::metadata::EventId;
use chat_domain::{ExpectedRevision, Revision, Timestamp};
use chat_operations::operator_actions::Operator;
use chat_operations::proof::checkpoint::Checkpoint;
use chat_operations::proof::key::{KeyName, SigningKey};
use chat_operations::proof::leaves_file;
use chat_operations::proof::verify::{self, Verdict};
use chat_ports::event_store::{EventStore, NewEvent, StreamAppend};
use chat_sqlite::SqliteEventStore;
use rusqlite::Connection;
use tempfile::TempDir;
use uuid::Uuid;

/// The number of signed events.
pub const EVENTS: u64 = 60;

/// A log of a few interleaved streams, with a checkpoint.
pub struct SignedLog {
    pub folder: TempDir,
    pub key: SigningKey,
    pub checkpoint: Checkpoint,
}

pub fn operator() -> Operator {
    Operator { name: "alice@ops-1".to_owned(), program: "test".to_owned(), job: None }
}

/// Opens the log in a folder.
pub fn open(folder: &Path) -> SqliteEventStore {
    SqliteEventStore::open(&folder.join("events.db")).expect("a log")
}

/// Appends `count` events to five streams in turn.
pub async fn fill(log: &dyn EventStore, count: u64) {
    for index in 0..count {
        let (stream, revision) = (index % 5, index / 5);
        let event = NewEvent {
            id: EventId::new(Uuid::new_v4()),
            event_type: "MessageCreated",
            schema_version: SchemaVersion::FIRST,
            recorded_at: Timestamp::from_millis(1_790_000_000_000 + i64::try_from(index).expect("few")),
            data: format!(r#"{{"message_number":{},"body":"message {index}"}}"#, revision + 1),
            metadata: format!(r#"{{"command":"CreateMessage","actor":{{"kind":"app"}},"correlation_id":"{index}","causation_id":"{index}"}}"#).into(),
        };
        let append = StreamAppend {
            stream: format!("chat-token-{stream}").into(),
            expected_revision: ExpectedRevision::from_last_revision(
                revision.checked_sub(1).map(Revision::new),
            ),
            events: vec![event],
        };
        log.append(vec![append]).await.pop().expect("an outcome").expect("an append");
    }
}

impl SignedLog {
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let key = SigningKey::generate(KeyName::default()).expect("a key");
        let checkpoint = {
            let log = open(folder.path());
            fill(&log, EVENTS).await;
            let file = folder.path().join("checkpoint");
            verify::make_checkpoint(&log, None, &key, &file, (&operator(), "a test"), &mut |_| ())
                .await
                .expect("a checkpoint")
        };
        // Truncates the WAL, so that the database can be copied as one file.
        let connection = Connection::open(folder.path().join("events.db")).expect("the file");
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("one file");
        Self { folder, key, checkpoint }
    }

    pub fn checkpoint_path(&self) -> PathBuf {
        self.folder.path().join("checkpoint")
    }

    pub fn leaves_path(&self) -> PathBuf {
        leaves_file::leaves_path(&self.checkpoint_path())
    }

    /// Copies the log, and alters the copy with `alter`.
    pub fn altered_copy(&self, alter: impl FnOnce(&Connection)) -> AlteredLog {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("events.db");
        fs::copy(self.folder.path().join("events.db"), &path).expect("a copy");
        let connection = Connection::open(&path).expect("the copy");
        // Alterations may violate indexes and foreign keys.
        connection
            .execute_batch(
                "PRAGMA foreign_keys = OFF; PRAGMA synchronous = OFF; DROP INDEX events_in_stream;",
            )
            .expect("the indexes are dropped");
        alter(&connection);
        drop(connection);
        AlteredLog { log: Arc::new(open(folder.path())), _folder: folder }
    }

    pub async fn verify(&self, log: &dyn EventStore) -> Verdict {
        let key = self.key.verifying_key();
        verify::verify(log, &self.checkpoint_path(), Some(&key), &mut |_| ()).await.expect("a verdict")
    }
}

/// A copy of a signed log, which is altered in most tests.
pub struct AlteredLog {
    pub log: Arc<SqliteEventStore>,
    _folder: TempDir,
}
