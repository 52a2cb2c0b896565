//! A private Postgres instance on the measured disk, with the durability of a production server.

use std::io;
use std::sync::Arc;

use chat_testing::Postgres;
use sqlx::{Connection as _, PgConnection};

use super::run_config::RunConfig;

/// Settings of the instance: enough memory for the measured data, and full durability, which test instances lack.
const SETTINGS: [&str; 10] = [
    "fsync=on",
    "full_page_writes=on",
    "synchronous_commit=on",
    "shared_buffers=1GB",
    "effective_cache_size=4GB",
    "work_mem=64MB",
    "maintenance_work_mem=512MB",
    "max_wal_size=4GB",
    "random_page_cost=1.1",
    "jit=off",
];

/// Starts an instance. Dropping the last handle stops it.
pub async fn start(config: &RunConfig) -> io::Result<Arc<Postgres>> {
    let folder = config.folder().to_owned();
    let started = tokio::task::spawn_blocking(move || Postgres::start_in(&folder, &SETTINGS));
    started.await.map(Arc::new).map_err(io::Error::other)
}

/// Creates a database and returns its URL.
pub async fn create_database(server: &Arc<Postgres>) -> io::Result<String> {
    let server = Arc::clone(server);
    tokio::task::spawn_blocking(move || server.create_database()).await.map_err(io::Error::other)
}

/// Creates a database whose trigrams contain letters of all scripts, and returns its URL. In the default locale of the
/// instance, trigrams contain only ASCII letters and digits. The database has a fixed name, so that a second call for
/// the same instance fails.
pub async fn create_unicode_database(server: &Arc<Postgres>) -> io::Result<String> {
    let url = create_database(server).await?;
    let create = "CREATE DATABASE all_scripts TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C.UTF-8'";
    sqlx::raw_sql(create).execute(&mut connect(&url).await?).await.map_err(io::Error::other)?;
    let (server_url, _) = url.rsplit_once('/').unwrap_or((&url, ""));
    Ok(format!("{server_url}/all_scripts"))
}

/// Connects to a database.
pub async fn connect(url: &str) -> io::Result<PgConnection> {
    PgConnection::connect(url).await.map_err(io::Error::other)
}

/// Returns the disk space of the tables and indexes of a database, in bytes.
pub async fn database_size(url: &str) -> io::Result<f64> {
    const SIZE: &str = "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::float8 FROM pg_class c \
         JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema')";
    sqlx::query_scalar(SIZE).fetch_one(&mut connect(url).await?).await.map_err(io::Error::other)
}
