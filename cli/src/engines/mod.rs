//! Storage engines: their locations, parsed from the options, and opening them.

mod coordination;
mod event_store;
mod options;
mod retry;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use chat_files::log_anchor::LogAnchor;
#[cfg(feature = "kurrentdb")]
use chat_kurrentdb::KurrentDbUrl;
use chat_ports::read_model::ReadModelStorage;
#[cfg(feature = "postgres")]
use chat_postgres::{PostgresReadModelStorage, PostgresUrl};
use chat_projector::generations::ProjectionLocations;
#[cfg(feature = "redis")]
use chat_redis::RedisUrl;
use chat_sqlite::SqliteReadModelStorage;

use crate::failure::Failure;

pub(crate) use coordination::CoordinationServices;
pub(crate) use event_store::{
    lacks_log, open_backup, open_event_store, open_existing_event_store, open_or_create_event_store,
    refuse_backup,
};
pub(crate) use options::EngineOptions;
pub(crate) use retry::retry_until_available;

/// Locations of the event store, of the projections, and of the services that processes share.
#[derive(Clone, Debug)]
pub(crate) struct StorageLocations {
    pub(crate) event_store: EventStoreLocation,
    pub(crate) read_model: ReadModelLocation,
    /// The Redis that processes share; without one, each process has its own counters and rate limits.
    #[cfg(feature = "redis")]
    pub(crate) redis: Option<RedisUrl>,
    pub(crate) search_index: PathBuf,
    /// The file of reserved idempotency keys, used without Redis.
    pub(crate) idempotency_keys: PathBuf,
    /// The anchor of the log, written by the processes that take commands.
    pub(crate) log_anchor: PathBuf,
}

/// Location of the event store.
#[derive(Clone, Debug)]
pub(crate) enum EventStoreLocation {
    Sqlite(PathBuf),
    #[cfg(feature = "kurrentdb")]
    KurrentDb(Box<KurrentDbUrl>),
    #[cfg(feature = "postgres")]
    Postgres(Box<PostgresUrl>),
}

/// Location of the read model's first generation.
#[derive(Clone, Debug)]
pub(crate) enum ReadModelLocation {
    Sqlite(PathBuf),
    #[cfg(feature = "postgres")]
    Postgres(Box<PostgresUrl>),
}

impl StorageLocations {
    /// Reads the locations from the options. `redis_url` is `None` for the commands of operators, which need no Redis.
    pub(crate) fn from_options(options: &EngineOptions, redis_url: Option<&str>) -> Result<Self, Failure> {
        let in_data_dir = |name: &str| options.data_dir.join(name);
        #[cfg(not(feature = "redis"))]
        if let Some(url) = redis_url {
            return Err(missing_feature(scheme(url), "redis"));
        }
        Ok(Self {
            event_store: match &options.event_store_url {
                None => EventStoreLocation::Sqlite(in_data_dir("events.db")),
                Some(url) => EventStoreLocation::from_url(url)?,
            },
            read_model: match &options.database_url {
                None => ReadModelLocation::Sqlite(in_data_dir("read-model.db")),
                Some(url) => ReadModelLocation::from_url(url)?,
            },
            #[cfg(feature = "redis")]
            redis: redis_url.map(str::parse).transpose().map_err(|error: chat_redis::InvalidRedisUrl| {
                invalid_url("--redis-url (REDIS_URL)", &error)
            })?,
            search_index: options.search_index_dir.clone().unwrap_or_else(|| in_data_dir("search-index")),
            idempotency_keys: in_data_dir("idempotency.db"),
            log_anchor: LogAnchor::path_in(&options.data_dir),
        })
    }

    /// Locations of the projections' generations.
    pub(crate) fn projection_locations(&self) -> ProjectionLocations {
        ProjectionLocations { read_model: self.read_model.storage(), search_index: self.search_index.clone() }
    }

    /// The paths of the data that is on this machine, the log first.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        let event_store = match &self.event_store {
            EventStoreLocation::Sqlite(path) => Some(path),
            #[cfg(feature = "kurrentdb")]
            EventStoreLocation::KurrentDb(_) => None,
            #[cfg(feature = "postgres")]
            EventStoreLocation::Postgres(_) => None,
        };
        let read_model = match &self.read_model {
            ReadModelLocation::Sqlite(path) => Some(path),
            #[cfg(feature = "postgres")]
            ReadModelLocation::Postgres(_) => None,
        };
        let always_local = [&self.search_index, &self.idempotency_keys, &self.log_anchor];
        event_store.into_iter().chain(read_model).chain(always_local).cloned().collect()
    }

    /// Whether processes share a Redis.
    pub(crate) fn has_redis(&self) -> bool {
        #[cfg(feature = "redis")]
        return self.redis.is_some();
        #[cfg(not(feature = "redis"))]
        return false;
    }

    /// Describes where numbers are reserved.
    pub(crate) fn describe_counters(&self) -> String {
        #[cfg(feature = "redis")]
        if let Some(redis) = &self.redis {
            return redis.to_string();
        }
        "in this process".to_owned()
    }
}

impl EventStoreLocation {
    /// Returns the words "the event store" and the location, as a part of a sentence.
    pub(crate) fn describe(&self) -> String {
        format!("the event store {self}")
    }

    fn from_url(url: &str) -> Result<Self, Failure> {
        const FLAG: &str = "--event-store-url (EVENT_STORE_URL)";
        match scheme(url) {
            "sqlite" => sqlite_path(url).map(Self::Sqlite).ok_or_else(|| no_file_in_url(FLAG, "events.db")),
            #[cfg(feature = "kurrentdb")]
            scheme if is_kurrentdb(scheme) => KurrentDbUrl::parse(url)
                .map(|url| Self::KurrentDb(Box::new(url)))
                .map_err(|error| invalid_url(FLAG, &error)),
            #[cfg(not(feature = "kurrentdb"))]
            scheme if is_kurrentdb(scheme) => Err(missing_feature(scheme, "kurrentdb")),
            #[cfg(feature = "postgres")]
            "postgres" | "postgresql" => postgres_url(FLAG, url).map(Self::Postgres),
            #[cfg(not(feature = "postgres"))]
            scheme @ ("postgres" | "postgresql") => Err(missing_feature(scheme, "postgres")),
            other => Err(unknown_scheme(
                FLAG,
                other,
                "sqlite://FILE, postgres://USER:PASSWORD@HOST/DATABASE, kurrentdb://HOST:PORT or esdb://HOST:PORT",
            )),
        }
    }
}

impl ReadModelLocation {
    fn from_url(url: &str) -> Result<Self, Failure> {
        const FLAG: &str = "--database-url (DATABASE_URL)";
        match scheme(url) {
            "sqlite" => {
                sqlite_path(url).map(Self::Sqlite).ok_or_else(|| no_file_in_url(FLAG, "read-model.db"))
            }
            #[cfg(feature = "postgres")]
            "postgres" | "postgresql" => postgres_url(FLAG, url).map(Self::Postgres),
            #[cfg(not(feature = "postgres"))]
            scheme @ ("postgres" | "postgresql") => Err(missing_feature(scheme, "postgres")),
            other => {
                Err(unknown_scheme(FLAG, other, "sqlite://FILE or postgres://USER:PASSWORD@HOST/DATABASE"))
            }
        }
    }

    fn storage(&self) -> Arc<dyn ReadModelStorage> {
        match self {
            Self::Sqlite(path) => Arc::new(SqliteReadModelStorage::new(path)),
            #[cfg(feature = "postgres")]
            Self::Postgres(url) => Arc::new(PostgresReadModelStorage::new(PostgresUrl::clone(url))),
        }
    }
}

impl fmt::Display for EventStoreLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => path.display().fmt(f),
            #[cfg(feature = "kurrentdb")]
            Self::KurrentDb(url) => url.fmt(f),
            #[cfg(feature = "postgres")]
            Self::Postgres(url) => url.fmt(f),
        }
    }
}

impl fmt::Display for ReadModelLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => path.display().fmt(f),
            #[cfg(feature = "postgres")]
            Self::Postgres(url) => url.fmt(f),
        }
    }
}

/// Returns the scheme of a URL. If there is none, returns a phrase for the error message, which no scheme equals.
fn scheme(url: &str) -> &str {
    url.split_once("://").map_or("a URL without a scheme", |(scheme, _)| scheme)
}

fn is_kurrentdb(scheme: &str) -> bool {
    let scheme = scheme.strip_suffix("+discover").unwrap_or(scheme);
    matches!(scheme, "kurrentdb" | "kurrent" | "kdb" | "esdb")
}

/// Returns the path in `sqlite://data/events.db` (relative) or `sqlite:///var/lib/events.db` (absolute).
fn sqlite_path(url: &str) -> Option<PathBuf> {
    let path = url.strip_prefix("sqlite://")?;
    (!path.is_empty() && !path.contains('?')).then(|| PathBuf::from(path))
}

#[cfg(feature = "postgres")]
fn postgres_url(flag: &str, url: &str) -> Result<Box<PostgresUrl>, Failure> {
    PostgresUrl::parse(url).map(Box::new).map_err(|error| invalid_url(flag, &error))
}

fn no_file_in_url(flag: &str, file: &str) -> Failure {
    Failure::new(format!(
        "{flag} must name a file, without parameters: for example sqlite:///var/lib/chat/{file}"
    ))
}

fn unknown_scheme(flag: &str, scheme: &str, known: &str) -> Failure {
    Failure::new(format!("{flag} does not support {scheme}; it takes {known}"))
}

#[cfg(any(feature = "kurrentdb", feature = "postgres", feature = "redis"))]
fn invalid_url(flag: &str, error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::because(format!("{flag} is not a valid URL"), error)
}

#[cfg(not(all(feature = "kurrentdb", feature = "postgres", feature = "redis")))]
fn missing_feature(scheme: &str, feature: &str) -> Failure {
    Failure::new(format!(
        "this build of chat-api has no support for {scheme}:// URLs: it was built without the cargo feature `{feature}`"
    ))
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

    #[test]
    fn rejects_unsupported_urls() {
        assert!(EventStoreLocation::from_url("mysql://db/chat").is_err());
        assert!(EventStoreLocation::from_url("sqlite://").is_err());
        assert!(ReadModelLocation::from_url("kurrentdb://db:2113").is_err());
        assert!(ReadModelLocation::from_url("read-model.db").is_err());
    }

    #[cfg(feature = "kurrentdb")]
    #[test]
    fn kurrentdb_urls_are_recognized_and_shown_without_their_secrets() {
        for url in
            ["kurrentdb://u:secret@db:2113", "kdb+discover://u:secret@db:2113", "esdb://u:secret@a:1,b:2"]
        {
            let location = EventStoreLocation::from_url(url).unwrap();
            assert!(matches!(location, EventStoreLocation::KurrentDb(_)), "{url}");
            assert!(!format!("{location} {location:?}").contains("secret"), "{location}");
        }
    }

    #[cfg(feature = "postgres")]
    #[test]
    fn postgres_urls_are_shown_without_their_secrets() {
        let url = "postgres://u:secret@db/chat";
        let location = ReadModelLocation::from_url(url).unwrap();
        assert!(!format!("{location} {location:?}").contains("secret"), "{location}");
        let location = EventStoreLocation::from_url(url).unwrap();
        assert!(matches!(location, EventStoreLocation::Postgres(_)), "{location}");
        assert!(!format!("{location} {location:?}").contains("secret"), "{location}");
    }

    #[cfg(not(feature = "postgres"))]
    #[test]
    fn a_url_of_an_engine_that_was_left_out_is_refused_with_the_name_of_its_feature() {
        for refused in [
            ReadModelLocation::from_url("postgres://db/chat").unwrap_err().to_string(),
            EventStoreLocation::from_url("postgres://db/chat").unwrap_err().to_string(),
        ] {
            assert!(refused.contains("without the cargo feature `postgres`"), "{refused}");
        }
    }
}
