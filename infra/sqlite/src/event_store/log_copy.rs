//! Copies of an event log: one file each, without a WAL beside it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::error::classify;
use super::schema;
use chat_files::durable_fs;
use chat_ports::event_store::EventStoreError;

/// The most messages of SQLite that an error repeats.
const MAX_MESSAGES: usize = 3;

/// The file is not sound.
#[derive(Debug, thiserror::Error)]
#[error("SQLite finds: {0}")]
struct UnsoundFile(String);

/// Copies the log at `from` into a new file, as it is at one moment, while other processes append to it.
///
/// `VACUUM INTO` reads one snapshot, so appends that are made meanwhile do not restart the copy, and none waits for it.
/// The copy is synced, and readable by its owner only. Blocks for as long as reading and writing the log takes. Fails if
/// `to` exists.
pub fn copy_event_log(from: &Path, to: &Path) -> Result<(), EventStoreError> {
    let unavailable = |error: std::io::Error| EventStoreError::Unavailable(error.into());
    let connection = schema::open_for_reading(from).map_err(classify)?;
    // SQLite writes into an empty file, which has the permissions already.
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).map_err(unavailable)?;
    let target =
        to.as_os_str().to_str().ok_or_else(|| unavailable(std::io::ErrorKind::InvalidFilename.into()))?;
    connection.execute("VACUUM INTO ?1", [target]).map_err(classify)?;
    // SQLite leaves the sync to the caller.
    File::open(to).and_then(|file| file.sync_all()).map_err(unavailable)?;
    durable_fs::sync_parent_dir(to).map_err(unavailable)
}

/// Checks every page, row and index of a log's file with `PRAGMA integrity_check`. For copies: on a log in use it would
/// keep the WAL from being reused for as long as it takes. Blocks.
pub fn check_event_log_file(path: &Path) -> Result<(), EventStoreError> {
    let connection = schema::open_for_reading(path).map_err(classify)?;
    let sql = format!("PRAGMA integrity_check({MAX_MESSAGES})");
    let mut statement = connection.prepare(&sql).map_err(classify)?;
    let messages = statement.query_map([], |row| row.get::<_, String>(0)).map_err(classify)?;
    let messages: Vec<String> = messages.collect::<Result<_, _>>().map_err(classify)?;
    if messages == ["ok"] {
        return Ok(());
    }
    Err(EventStoreError::Damaged(UnsoundFile(messages.join("; ")).into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SqliteEventStore;
    use chat_domain::event::SchemaVersion;
    use chat_domain::metadata::EventId;
    use chat_domain::{ExpectedRevision, Position, Timestamp};
    use chat_ports::event_store::{AppendError, EventStore, NewEvent, StreamAppend};
    use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
    use uuid::Uuid;

    fn append(stream: u32) -> StreamAppend {
        let event = NewEvent {
            id: EventId::new(Uuid::new_v4()),
            event_type: "MessageCreated",
            schema_version: SchemaVersion::CURRENT,
            recorded_at: Timestamp::from_millis(1_790_000_000_000),
            data: format!(r#"{{"body":"{}"}}"#, "x".repeat(500)),
            metadata: "{}".into(),
        };
        let expected_revision = ExpectedRevision::NoStream;
        StreamAppend { stream: format!("chat-T-{stream}").into(), expected_revision, events: vec![event] }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_copy_holds_the_log_and_can_only_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let (path, copy) = (folder.path().join("events.db"), folder.path().join("copy.db"));
        let log = SqliteEventStore::open(&path).unwrap();
        log.append((0..100).map(append).collect()).await;
        copy_event_log(&path, &copy).unwrap();
        assert!(copy_event_log(&path, &copy).is_err(), "a copy was overwritten");
        log.append(vec![append(100)]).await;
        assert_eq!(std::fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
        check_event_log_file(&copy).unwrap();

        let read = SqliteEventStore::open_read_only(&copy).unwrap();
        assert_eq!(read.log_id().await.unwrap(), log.log_id().await.unwrap());
        assert_eq!(read.head().await.unwrap(), Position::new(100));
        let all = read.read_all(Position::START, 1_000).await.unwrap();
        assert_eq!(all, log.read_all(Position::START, 100).await.unwrap());
        let refused = read.append(vec![append(101)]).await.remove(0);
        assert!(matches!(refused, Err(AppendError::Unavailable(_))), "{refused:?}");
        drop(read);
        let mut names: Vec<_> =
            folder.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["copy.db", "events.db", "events.db-shm", "events.db-wal"]);
    }

    #[test]
    fn a_missing_log_is_not_created() {
        let folder = tempfile::tempdir().unwrap();
        let (path, copy) = (folder.path().join("events.db"), folder.path().join("copy.db"));
        assert!(copy_event_log(&path, &copy).is_err());
        assert!(SqliteEventStore::open_read_only(&path).is_err());
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn damage_of_a_copy_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let (path, copy) = (folder.path().join("events.db"), folder.path().join("copy.db"));
        let log = SqliteEventStore::open(&path).unwrap();
        log.append((0..500).map(append).collect()).await;
        copy_event_log(&path, &copy).unwrap();
        let file = OpenOptions::new().write(true).open(&copy).unwrap();
        file.write_all_at(&[0xa5; 12_288], 40_960).unwrap();
        let found = check_event_log_file(&copy).unwrap_err();
        assert!(matches!(found, EventStoreError::Damaged(_)), "{found:?}");
    }
}
