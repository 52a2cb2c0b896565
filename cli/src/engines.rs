//! Which engines the options name, and opening them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chat_infra::event_store::{EventStore, EventStoreError, SqliteEventStore};

use crate::args::Options;
use crate::failure::Failure;

/// Where everything is kept.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    pub(crate) events: PathBuf,
    pub(crate) read_model: PathBuf,
    pub(crate) search_index: PathBuf,
    pub(crate) idempotency: PathBuf,
}

impl Places {
    pub(crate) fn of(options: &Options) -> Result<Self, Failure> {
        let sqlite = |url: &Option<String>, flag: &str, file: &str| {
            match url {
            None => Ok(options.data_dir.join(file)),
            Some(url) => sqlite_path(url).ok_or_else(|| {
                let scheme = url.split_once("://").map_or("no scheme", |(scheme, _)| scheme);
                Failure::new(format!(
                    "{flag} has {scheme}, and this version knows sqlite://FILE only (sqlite:///var/lib/chat/{file}, say)"
                ))
            }),
        }
        };
        Ok(Self {
            events: sqlite(&options.event_store_url, "--event-store-url (EVENT_STORE_URL)", "events.db")?,
            read_model: sqlite(&options.database_url, "--database-url (DATABASE_URL)", "read-model.db")?,
            search_index: options
                .search_index_dir
                .clone()
                .unwrap_or_else(|| options.data_dir.join("search-index")),
            idempotency: options.data_dir.join("idempotency.db"),
        })
    }
}

/// The path in `sqlite://data/events.db` (relative) or `sqlite:///var/lib/events.db` (absolute).
fn sqlite_path(url: &str) -> Option<PathBuf> {
    let path = url.strip_prefix("sqlite://")?;
    (!path.is_empty() && !path.contains('?')).then(|| PathBuf::from(path))
}

/// Opens the log, waiting for it while that may help.
pub(crate) async fn open_event_store(path: &Path) -> Result<Arc<dyn EventStore>, Failure> {
    const FIRST_PAUSE: Duration = Duration::from_millis(100);
    const LONGEST_PAUSE: Duration = Duration::from_secs(5);
    let mut pause = FIRST_PAUSE;
    let mut attempts = 0_u32;
    loop {
        let owned = path.to_path_buf();
        let opened = tokio::task::spawn_blocking(move || SqliteEventStore::open(&owned)).await;
        let opened = opened.map_err(|error| Failure::because("the event log could not be opened", &error))?;
        match opened {
            Ok(store) => {
                if attempts > 0 {
                    tracing::info!(path = %path.display(), "the event log can be opened again");
                }
                return Ok(Arc::new(store));
            }
            Err(error) if is_final(&error) => {
                return Err(Failure::because(
                    format!("the event log {} can't be opened", path.display()),
                    &error,
                ));
            }
            Err(error) if error.retryable() => {
                // Once, and then now and then: whoever looks into the log later should find why nothing happens.
                if attempts.is_multiple_of(20) {
                    tracing::warn!(path = %path.display(), error = &error as &dyn std::error::Error,
                        "waiting for the event log");
                }
                attempts += 1;
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            Err(error) => {
                return Err(Failure::because(
                    format!("the event log {} can't be used", path.display()),
                    &error,
                ));
            }
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sqlite_url_names_a_relative_or_an_absolute_file() {
        assert_eq!(sqlite_path("sqlite://data/events.db"), Some("data/events.db".into()));
        assert_eq!(sqlite_path("sqlite:///var/lib/events.db"), Some("/var/lib/events.db".into()));
        for other in ["", "sqlite://", "data/events.db", "postgres://localhost/chat", "sqlite://a?mode=ro"] {
            assert_eq!(sqlite_path(other), None, "{other}");
        }
    }
}
