//! Connecting, and the settings of sessions.

use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, PgConnection};
use tokio::time::timeout;

use super::error::{ResponseTimeout, classify_error};
use super::url::PostgresUrl;
use chat_ports::read_model::ReadModelError;

/// The time limit of connecting.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The settings for statements that look rows up by key: all statements except full scans. Such statements must use the
/// indexes. The planner would not use them, because its statistics show empty tables until a catch-up has ended. Each
/// connection plans a statement once, without JIT compilation, which would take longer than the statement.
pub(super) const INDEX_SCAN_SETTINGS: [(&str, &str); 6] = [
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("plan_cache_mode", "force_generic_plan"),
    ("jit", "off"),
];

/// The settings with which Postgres ends the session of a client that disappeared, after about 20 seconds of silence.
pub(super) const DEAD_CLIENT_SETTINGS: [(&str, &str); 4] = [
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "2"),
    ("tcp_user_timeout", "20s"),
];

/// The options of a session for queries.
pub(super) fn query_options(url: &PostgresUrl) -> PgConnectOptions {
    read_only_options(url).options(INDEX_SCAN_SETTINGS).options([("statement_timeout", "5s")])
}

/// The options of a session for full scans, and for reads outside the tables of the read model.
pub(super) fn full_scan_options(url: &PostgresUrl) -> PgConnectOptions {
    read_only_options(url).options([("jit", "off"), ("statement_timeout", "0")])
}

/// The options of a session that writes. Postgres ends the session of a dead client, and so releases its lock, after
/// about 20 seconds of silence.
pub(super) fn writer_options(url: &PostgresUrl) -> PgConnectOptions {
    schema_options(url).options(INDEX_SCAN_SETTINGS).options(DEAD_CLIENT_SETTINGS).options([
        ("synchronous_commit", "off"),
        ("statement_timeout", "60s"),
        ("lock_timeout", "5s"),
    ])
}

fn read_only_options(url: &PostgresUrl) -> PgConnectOptions {
    schema_options(url).options([("default_transaction_read_only", "on")])
}

fn schema_options(url: &PostgresUrl) -> PgConnectOptions {
    options_with_application_name(url).options([("search_path", url.schema().as_str())])
}

/// The options of the URL, with the application name `chat-api` unless the URL has one.
pub(super) fn options_with_application_name(url: &PostgresUrl) -> PgConnectOptions {
    let options = url.options().clone();
    match options.get_application_name() {
        Some(_) => options,
        None => options.application_name("chat-api"),
    }
}

pub(super) async fn connect(options: &PgConnectOptions) -> Result<PgConnection, ReadModelError> {
    match timeout(CONNECT_TIMEOUT, options.connect()).await {
        Ok(connected) => connected.map_err(classify_error),
        Err(_) => Err(ReadModelError::Unavailable(Box::new(ResponseTimeout(CONNECT_TIMEOUT)))),
    }
}
