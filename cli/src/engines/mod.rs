//! Which engines the options name.

mod event_store;
mod shared;
mod waiting;

use std::fmt;
use std::path::PathBuf;

use chat_kurrentdb::KurrentDbUrl;
use chat_postgres::PostgresUrl;
use chat_projector::projection_store::ProjectionLocations;
use chat_redis::{InvalidRedisUrl, RedisUrl};

use crate::args::{EngineOptions, Options};
use crate::failure::Failure;

pub(crate) use chat_projector::projection_store::ReadModelLocation;
pub(crate) use event_store::{open_event_store, open_existing_event_store};
pub(crate) use shared::Shared;
pub(crate) use waiting::wait_for;

/// Where everything is kept.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    pub(crate) events: EventLog,
    pub(crate) read_model: ReadModelLocation,
    /// Where processes share what they need to know of each other at once; `None` where each counts for itself.
    pub(crate) redis: Option<RedisUrl>,
    pub(crate) search_index: PathBuf,
    /// The reservations of idempotency keys, where there is no Redis.
    pub(crate) idempotency_keys: PathBuf,
}

/// The event log.
#[derive(Clone, Debug)]
pub(crate) enum EventLog {
    Sqlite(PathBuf),
    KurrentDb(Box<KurrentDbUrl>),
}

impl Places {
    pub(crate) fn of(options: &Options) -> Result<Self, Failure> {
        let redis = options.redis_url.as_ref().map(|url| url.parse());
        let redis = redis.transpose().map_err(|error: InvalidRedisUrl| {
            Failure::because("--redis-url (REDIS_URL) can't be understood", &error)
        })?;
        Ok(Self { redis, ..Self::of_engines(&options.engines)? })
    }

    /// Where the generations of the projections are.
    pub(crate) fn projections(&self) -> ProjectionLocations {
        ProjectionLocations { read_model: self.read_model.clone(), search_index: self.search_index.clone() }
    }

    /// As far as an operator's command needs to know: without what processes share beside the log.
    pub(crate) fn of_engines(options: &EngineOptions) -> Result<Self, Failure> {
        let in_data_dir = |name: &str| options.data_dir.join(name);
        Ok(Self {
            events: match &options.event_store_url {
                None => EventLog::Sqlite(in_data_dir("events.db")),
                Some(url) => EventLog::of(url)?,
            },
            read_model: match &options.database_url {
                None => ReadModelLocation::Sqlite(in_data_dir("read-model.db")),
                Some(url) => rows(url)?,
            },
            redis: None,
            search_index: options.search_index_dir.clone().unwrap_or_else(|| in_data_dir("search-index")),
            idempotency_keys: in_data_dir("idempotency.db"),
        })
    }
}

impl EventLog {
    fn of(url: &str) -> Result<Self, Failure> {
        const FLAG: &str = "--event-store-url (EVENT_STORE_URL)";
        match scheme(url) {
            "sqlite" => sqlite_path(url).map(Self::Sqlite).ok_or_else(|| not_a_file(FLAG, "events.db")),
            "kurrentdb" | "kurrentdb+discover" | "kurrent" | "kurrent+discover" | "kdb" | "kdb+discover"
            | "esdb" | "esdb+discover" => KurrentDbUrl::parse(url)
                .map(|url| Self::KurrentDb(Box::new(url)))
                .map_err(|error| Failure::because(format!("{FLAG} can't be understood"), &error)),
            other => Err(unknown(FLAG, other, "sqlite://FILE, kurrentdb://HOST:PORT or esdb://HOST:PORT")),
        }
    }
}

/// Where the read model is, as a URL says.
fn rows(url: &str) -> Result<ReadModelLocation, Failure> {
    const FLAG: &str = "--database-url (DATABASE_URL)";
    match scheme(url) {
        "sqlite" => sqlite_path(url).map(ReadModelLocation::Sqlite).ok_or_else(|| not_a_file(FLAG, "read-model.db")),
        "postgres" | "postgresql" => PostgresUrl::parse(url)
            .map(|url| ReadModelLocation::Postgres(Box::new(url)))
            .map_err(|error| Failure::because(format!("{FLAG} can't be understood"), &error)),
        other => Err(unknown(FLAG, other, "sqlite://FILE or postgres://USER:PASSWORD@HOST/DATABASE")),
    }
}

impl fmt::Display for EventLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => path.display().fmt(f),
            Self::KurrentDb(url) => url.fmt(f),
        }
    }
}

fn scheme(url: &str) -> &str {
    url.split_once("://").map_or("no scheme", |(scheme, _)| scheme)
}

/// The path in `sqlite://data/events.db` (relative) or `sqlite:///var/lib/events.db` (absolute).
fn sqlite_path(url: &str) -> Option<PathBuf> {
    let path = url.strip_prefix("sqlite://")?;
    (!path.is_empty() && !path.contains('?')).then(|| PathBuf::from(path))
}

fn not_a_file(flag: &str, file: &str) -> Failure {
    Failure::new(format!(
        "{flag} names no file; sqlite:///var/lib/chat/{file} does, say, and takes no parameters"
    ))
}

fn unknown(flag: &str, scheme: &str, known: &str) -> Failure {
    Failure::new(format!("{flag} has {scheme}, and takes {known}"))
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
    fn the_scheme_chooses_the_engine_and_no_secret_is_shown() {
        for url in
            ["kurrentdb://u:secret@db:2113", "kdb+discover://u:secret@db:2113", "esdb://u:secret@a:1,b:2"]
        {
            let log = EventLog::of(url).unwrap();
            assert!(matches!(log, EventLog::KurrentDb(_)), "{url}");
            assert!(!format!("{log} {log:?}").contains("secret"), "{log}");
        }
        let place = rows("postgres://u:secret@db/chat").unwrap();
        assert!(!format!("{place} {place:?}").contains("secret"), "{place}");
        assert!(EventLog::of("postgres://db/chat").is_err() && rows("kurrentdb://db:2113").is_err());
        assert!(EventLog::of("sqlite://").is_err() && rows("read-model.db").is_err());
    }
}
