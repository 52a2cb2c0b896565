//! Opens the event store.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chat_files::durable_fs::path_with_suffix;
#[cfg(feature = "kurrentdb")]
use chat_kurrentdb::KurrentDbEventStore;
use chat_operations::backup::find_backup;
use chat_ports::event_store::{EventStore, EventStoreError, LogId};
#[cfg(feature = "postgres")]
use chat_postgres::PostgresEventStore;
use chat_sqlite::SqliteEventStore;

use super::{EventStoreLocation, retry_until_available};
use crate::data_access::{check_permission, check_readable};
use crate::failure::Failure;
use crate::start_progress::StartProgress;

/// Maximum time that an operator command waits for the event store.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum time that an operator command waits to learn whether a server that could not be used has a log. A server
/// that refused because it has no log answers at once.
const LACKS_LOG_TIMEOUT: Duration = Duration::from_secs(2);

/// Opens the event store and reads the log's id, retrying while the store is unavailable. Refuses the log of a backup,
/// because opening the log would change the backup.
pub(crate) async fn open_event_store(
    location: &EventStoreLocation,
    progress: &StartProgress,
) -> Result<(Arc<dyn EventStore>, LogId), Failure> {
    open_with_retries(location, OnMissingLog::Create, progress).await
}

/// The reaction to a log that does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnMissingLog {
    Create,
    /// Has an effect only with KurrentDB and Postgres. For a SQLite log, [`open_existing_event_store`] checks the file
    /// beforehand.
    Refuse,
}

async fn open_with_retries(
    location: &EventStoreLocation,
    on_missing: OnMissingLog,
    progress: &StartProgress,
) -> Result<(Arc<dyn EventStore>, LogId), Failure> {
    refuse_backup(location)?;
    let name = location.describe();
    let attempt = async || {
        let store = open(location, on_missing).await?;
        let id = store.log_id().await?;
        Ok((store, id))
    };
    let is_retryable = |error: &EventStoreError| error.is_retryable() && !is_permanent(error);
    let opened = retry_until_available(&name, progress, attempt, is_retryable).await;
    opened.map_err(|error| Failure::because(format!("{name} can't be used"), &error))
}

/// Opens the log in a backup, without changing it. `None` if the log is in no backup.
pub(crate) async fn open_backup(
    location: &EventStoreLocation,
) -> Result<Option<Arc<dyn EventStore>>, Failure> {
    let path = match location {
        EventStoreLocation::Sqlite(path) if find_backup(path).is_some() => path.clone(),
        _ => return Ok(None),
    };
    check_readable(&path)?;
    let opened = tokio::task::spawn_blocking(move || SqliteEventStore::open_immutable(&path)).await;
    let opened = opened.unwrap_or_else(|join_error| Err(EventStoreError::Unavailable(join_error.into())));
    let store =
        opened.map_err(|error| Failure::because(format!("the backup's {location} can't be read"), &error))?;
    Ok(Some(Arc::new(store)))
}

/// Fails if the log is in a backup.
pub(crate) fn refuse_backup(location: &EventStoreLocation) -> Result<(), Failure> {
    let backup = match location {
        EventStoreLocation::Sqlite(path) => find_backup(path),
        #[cfg(feature = "kurrentdb")]
        EventStoreLocation::KurrentDb(_) => None,
        #[cfg(feature = "postgres")]
        EventStoreLocation::Postgres(_) => None,
    };
    let Some(backup) = backup else { return Ok(()) };
    Err(Failure::new(format!(
        "{location} belongs to a backup, which must not change. `chat-api audit` and `chat-api events check` read it as it \
         is. To use it, restore it: `chat-api restore --from {}`. To sign it, copy events.db alone into an empty folder",
        backup.display()
    )))
}

/// Opens an existing event store for an operator command. Fails after [`OPEN_TIMEOUT`]. Creates no log.
pub(crate) async fn open_existing_event_store(
    location: &EventStoreLocation,
) -> Result<Arc<dyn EventStore>, Failure> {
    if let EventStoreLocation::Sqlite(path) = location {
        for suffix in ["", "-wal", "-shm"] {
            check_permission(&path_with_suffix(path, suffix))?;
        }
        match path.try_exists() {
            Ok(true) => {}
            Ok(false) => {
                return Err(Failure::new(format!(
                    "there is no event log at {location}; set --data-dir or --event-store-url to its location"
                )));
            }
            Err(error) => {
                return Err(Failure::because(format!("the event log {location} can't be opened"), &error));
            }
        }
    }
    open_within_timeout(location, OnMissingLog::Refuse).await
}

/// Opens the event store for an operator command, and creates the log if there is none. Fails after [`OPEN_TIMEOUT`].
pub(crate) async fn open_or_create_event_store(
    location: &EventStoreLocation,
) -> Result<Arc<dyn EventStore>, Failure> {
    open_within_timeout(location, OnMissingLog::Create).await
}

async fn open_within_timeout(
    location: &EventStoreLocation,
    on_missing: OnMissingLog,
) -> Result<Arc<dyn EventStore>, Failure> {
    let progress = StartProgress::default();
    let opening = open_with_retries(location, on_missing, &progress);
    if let Ok(opened) = tokio::time::timeout(OPEN_TIMEOUT, opening).await {
        return opened.map(|(store, _)| store);
    }
    let error = progress.last_error().map(|error| format!(": {error}")).unwrap_or_default();
    Err(Failure::new(format!("{} does not answer{error}", location.describe())))
}

async fn open(
    location: &EventStoreLocation,
    #[cfg_attr(not(any(feature = "kurrentdb", feature = "postgres")), expect(unused_variables))]
    on_missing: OnMissingLog,
) -> Result<Arc<dyn EventStore>, EventStoreError> {
    match location {
        EventStoreLocation::Sqlite(path) => open_sqlite(path.clone()).await,
        #[cfg(feature = "kurrentdb")]
        EventStoreLocation::KurrentDb(url) => Ok(Arc::new(match on_missing {
            OnMissingLog::Create => KurrentDbEventStore::open(url).await?,
            OnMissingLog::Refuse => KurrentDbEventStore::open_existing(url).await?,
        })),
        #[cfg(feature = "postgres")]
        EventStoreLocation::Postgres(url) => Ok(Arc::new(match on_missing {
            OnMissingLog::Create => PostgresEventStore::open(url).await?,
            OnMissingLog::Refuse => PostgresEventStore::open_existing(url).await?,
        })),
    }
}

/// Whether the server at the location answers, and has no log. Always `false` for a SQLite log. Waits for at most
/// [`LACKS_LOG_TIMEOUT`].
pub(crate) async fn lacks_log(location: &EventStoreLocation) -> bool {
    let exists = async {
        match location {
            EventStoreLocation::Sqlite(_) => Ok::<_, EventStoreError>(true),
            #[cfg(feature = "kurrentdb")]
            EventStoreLocation::KurrentDb(url) => KurrentDbEventStore::exists(url).await,
            #[cfg(feature = "postgres")]
            EventStoreLocation::Postgres(url) => PostgresEventStore::exists(url).await,
        }
    };
    matches!(tokio::time::timeout(LACKS_LOG_TIMEOUT, exists).await, Ok(Ok(false)))
}

async fn open_sqlite(path: PathBuf) -> Result<Arc<dyn EventStore>, EventStoreError> {
    let opened = tokio::task::spawn_blocking(move || SqliteEventStore::open(&path)).await;
    let store = opened.map_err(|error| EventStoreError::Unavailable(error.into()))??;
    Ok(Arc::new(store))
}

/// Whether waiting can't help, although the port calls the error retryable: for example, a folder can't be created.
fn is_permanent(error: &EventStoreError) -> bool {
    use std::io::ErrorKind as Kind;
    let EventStoreError::Unavailable(source) = error else { return false };
    source.downcast_ref::<std::io::Error>().is_some_and(|error| {
        matches!(
            error.kind(),
            Kind::PermissionDenied | Kind::NotADirectory | Kind::AlreadyExists | Kind::ReadOnlyFilesystem
        )
    })
}
