//! Opening the event log.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chat_kurrentdb::KurrentDbEventStore;
use chat_ports::event_store::{EventStore, EventStoreError, LogId};
use chat_sqlite::SqliteEventStore;

use super::{EventLog, wait_for};
use crate::failure::Failure;

/// How long a command waits for the log.
const PATIENCE: Duration = Duration::from_secs(10);

/// Opens the log and asks which one it is, waiting for it while that may help.
pub(crate) async fn open_event_store(log: &EventLog) -> Result<(Arc<dyn EventStore>, LogId), Failure> {
    let what = format!("the event log {log}");
    let open = async || {
        let store = open(log).await?;
        let id = store.log_id().await?;
        Ok((store, id))
    };
    let opened = wait_for(&what, open, |error: &EventStoreError| error.is_retryable() && !is_final(error)).await;
    opened.map_err(|error| Failure::because(format!("{what} can't be used"), &error))
}

/// Opens a log that is there already, for a command that a person waits for: one that is away is not waited for longer
/// than a few seconds, and none is made.
pub(crate) async fn open_existing_event_store(log: &EventLog) -> Result<Arc<dyn EventStore>, Failure> {
    if let EventLog::Sqlite(path) = log
        && !path.exists()
    {
        return Err(Failure::new(format!(
            "there is no event log at {log}; --data-dir or --event-store-url says where it is"
        )));
    }
    match tokio::time::timeout(PATIENCE, open_event_store(log)).await {
        Ok(opened) => opened.map(|(store, _)| store),
        Err(_) => Err(Failure::new(format!("the event log {log} does not answer"))),
    }
}

async fn open(log: &EventLog) -> Result<Arc<dyn EventStore>, EventStoreError> {
    match log {
        EventLog::Sqlite(path) => open_sqlite(path.clone()).await,
        EventLog::KurrentDb(url) => Ok(Arc::new(KurrentDbEventStore::open(url).await?)),
    }
}

async fn open_sqlite(path: PathBuf) -> Result<Arc<dyn EventStore>, EventStoreError> {
    let opened = tokio::task::spawn_blocking(move || SqliteEventStore::open(&path)).await;
    let store = opened.map_err(|error| EventStoreError::Unavailable(error.into()))??;
    Ok(Arc::new(store))
}

/// A folder that can't be made will not become one by waiting.
fn is_final(error: &EventStoreError) -> bool {
    use std::io::ErrorKind as Kind;
    let EventStoreError::Unavailable(source) = error else { return false };
    source.downcast_ref::<std::io::Error>().is_some_and(|error| {
        matches!(
            error.kind(),
            Kind::PermissionDenied | Kind::NotADirectory | Kind::AlreadyExists | Kind::ReadOnlyFilesystem
        )
    })
}
