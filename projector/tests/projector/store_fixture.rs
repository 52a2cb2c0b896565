//! The projection stores of the contract suite, with simulated damage and crashes for each kind of store.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chat_domain::projection::{Generation, ProjectionGeneration, ProjectionName};
use chat_ports::read_model::ReadModelStorage;
use chat_postgres::{PostgresReadModelStorage, PostgresUrl};
use chat_projector::generations::ProjectionLocations;
use chat_projector::projection::ProjectionStore;
use chat_sqlite::SqliteReadModelStorage;
use chat_testing::Postgres;
use sqlx::{AssertSqlSafe, Connection, PgConnection, query_scalar, raw_sql};
use tempfile::TempDir;

/// The stores of one projection, one for each generation, in their own folder or database.
pub struct Stores {
    projection: ProjectionName,
    folder: TempDir,
    /// `None` if the stores are in the folder.
    database_url: Option<String>,
}

impl Stores {
    pub fn sqlite_read_model() -> Self {
        Self::new(ProjectionName::ReadModel, None)
    }

    pub fn postgres_read_model() -> Self {
        Self::new(ProjectionName::ReadModel, Some(Postgres::shared().create_database()))
    }

    pub fn search_index() -> Self {
        Self::new(ProjectionName::SearchIndex, None)
    }

    fn new(projection: ProjectionName, database_url: Option<String>) -> Self {
        Self { projection, folder: tempfile::tempdir().unwrap(), database_url }
    }

    pub fn generation(&self, number: u32) -> Arc<dyn ProjectionStore> {
        let read_model: Arc<dyn ReadModelStorage> = match &self.database_url {
            None => Arc::new(SqliteReadModelStorage::new(self.path("read-model.db"))),
            Some(url) => Arc::new(PostgresReadModelStorage::new(PostgresUrl::parse(url).unwrap())),
        };
        let locations = ProjectionLocations { read_model, search_index: self.path("search-index") };
        locations.store(ProjectionGeneration { projection: self.projection, generation: Generation(number) })
    }

    pub fn first(&self) -> Arc<dyn ProjectionStore> {
        self.generation(1)
    }

    /// Damages the first generation, which must have a thousand messages and must not be open.
    pub async fn damage(&self) {
        match (&self.database_url, self.projection) {
            (Some(_), _) => self.execute("DELETE FROM chat_read_model.messages WHERE number = 7").await,
            (None, ProjectionName::ReadModel) => overwrite_middle(&self.path("read-model.db")),
            (None, ProjectionName::SearchIndex) => {
                let files = entries(&self.path("search-index"));
                overwrite_middle(
                    files.iter().find(|path| path.extension() == Some("store".as_ref())).unwrap(),
                );
            }
        }
    }

    /// Returns how many files or schemas of the first generation are quarantined as damaged. Other generations must not
    /// have any.
    pub async fn quarantined_as_damaged(&self) -> usize {
        if let Some(url) = &self.database_url {
            let mut connection = PgConnection::connect(url).await.unwrap();
            let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'chat_read_model_damaged%'";
            let count: i64 = query_scalar(schemas).fetch_one(&mut connection).await.unwrap();
            return usize::try_from(count).unwrap();
        }
        let names = entries(self.folder.path());
        let names = names.iter().map(|path| path.file_name().unwrap().to_str().unwrap());
        names.filter(|name| name.contains(".damaged-") && !name.ends_with("-wal")).count()
    }

    /// Returns how many files or schemas of the first generation are quarantined because they are of another log; these
    /// are kept for good. Other generations must not have any.
    pub async fn quarantined_as_of_other_log(&self) -> usize {
        if let Some(url) = &self.database_url {
            let mut connection = PgConnection::connect(url).await.unwrap();
            let schemas = r"SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'chat\_read\_model\_log\_%'";
            let count: i64 = query_scalar(schemas).fetch_one(&mut connection).await.unwrap();
            return usize::try_from(count).unwrap();
        }
        let names = entries(self.folder.path());
        let names = names.iter().map(|path| path.file_name().unwrap().to_str().unwrap());
        let is_quarantined =
            |name: &&str| name.contains(".other-log-") && !name.ends_with("-wal") && !name.ends_with("-shm");
        names.filter(is_quarantined).count()
    }

    /// Creates the state after a crash between the quarantine of the stored projection and the creation of a new one.
    /// In Postgres, both are one transaction.
    pub async fn crash_in_recreate(&self) {
        match (&self.database_url, self.projection) {
            (Some(_), _) => {
                self.execute("BEGIN; ALTER SCHEMA chat_read_model RENAME TO chat_read_model_damaged").await;
            }
            (None, ProjectionName::ReadModel) => {
                fs::rename(self.path("read-model.db"), self.path("read-model.db.damaged-1")).unwrap();
                fs::write(self.path("read-model.db-wal"), "a write-ahead log without its database").unwrap();
                fs::write(self.path("read-model.db.new"), "half a database").unwrap();
            }
            (None, ProjectionName::SearchIndex) => {
                fs::rename(self.path("search-index"), self.path("search-index.damaged-1")).unwrap();
                fs::create_dir(self.path("search-index")).unwrap();
            }
        }
    }

    /// Creates the state after a crash in the middle of the removal of the stored projection.
    pub async fn crash_in_remove(&self) {
        match (&self.database_url, self.projection) {
            (Some(_), _) => self.execute("BEGIN; DROP SCHEMA chat_read_model CASCADE").await,
            (None, ProjectionName::ReadModel) => {
                fs::remove_file(self.path("read-model.db")).unwrap();
                fs::write(self.path("read-model.db-wal"), "a write-ahead log without its database").unwrap();
            }
            (None, ProjectionName::SearchIndex) => {
                fs::remove_file(self.path("search-index").join("meta.json")).unwrap();
            }
        }
    }

    /// Returns the password in the database's URL, if the stores are in a database.
    pub fn password(&self) -> Option<&str> {
        self.database_url.as_ref().map(|_| Postgres::shared().password())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs SQL on a connection that is closed afterwards.
    async fn execute(&self, sql: &str) {
        let mut connection = PgConnection::connect(self.database_url.as_ref().unwrap()).await.unwrap();
        raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn overwrite_middle(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let quarter = bytes.len() / 4;
    bytes[quarter..3 * quarter].fill(0xA5);
    fs::write(file, bytes).unwrap();
}
