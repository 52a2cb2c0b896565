//! Heartbeats of projectors, in a table of the read model's schema.

use async_trait::async_trait;
use sqlx::{PgConnection, query, query_scalar, raw_sql};

use super::error::classify_error;
use super::session;
use super::url::PostgresUrl;
use chat_ports::heartbeat::{Heartbeat, HeartbeatStore, ProjectorRole};
use chat_ports::read_model::ReadModelError;

/// The statement that creates the table. It runs on demand, because the table is not part of the read model.
const CREATE_TABLE: &str =
    "CREATE TABLE IF NOT EXISTS projector_notices (capacity TEXT PRIMARY KEY, notice TEXT NOT NULL)";

/// The heartbeats of a schema. Calls share one connection. A connection that [`PostgresHeartbeats::read`] opens is
/// read-only, so use a value either for reading or for writing.
pub struct PostgresHeartbeats {
    url: PostgresUrl,
    session: Option<PgConnection>,
}

impl PostgresHeartbeats {
    /// The heartbeats in the schema of `url`.
    pub fn new(url: PostgresUrl) -> Self {
        Self { url, session: None }
    }

    /// Replaces the heartbeat of a role. Does nothing while there is no read model.
    pub async fn store(&mut self, role: ProjectorRole, heartbeat: &Heartbeat) -> Result<(), ReadModelError> {
        let Some(mut session) = self.writing_session().await? else { return Ok(()) };
        let text = serde_json::to_string(heartbeat).unwrap_or_default();
        query(
            "INSERT INTO projector_notices (capacity, notice) VALUES ($1, $2)
             ON CONFLICT (capacity) DO UPDATE SET notice = excluded.notice",
        )
        .bind(role.as_str())
        .bind(text)
        .execute(&mut session)
        .await
        .map_err(classify_error)?;
        self.session = Some(session);
        Ok(())
    }

    /// Removes the heartbeat of a role.
    pub async fn remove(&mut self, role: ProjectorRole) -> Result<(), ReadModelError> {
        let Some(mut session) = self.writing_session().await? else { return Ok(()) };
        query("DELETE FROM projector_notices WHERE capacity = $1")
            .bind(role.as_str())
            .execute(&mut session)
            .await
            .map_err(classify_error)?;
        self.session = Some(session);
        Ok(())
    }

    /// Reads the heartbeat of a role; `None` if there is none or it is unreadable.
    pub async fn read(&mut self, role: ProjectorRole) -> Result<Option<Heartbeat>, ReadModelError> {
        let mut session = match self.session.take() {
            Some(session) => session,
            None => session::connect(&session::full_scan_options(&self.url)).await?,
        };
        let exists: bool = query_scalar("SELECT to_regclass('projector_notices') IS NOT NULL")
            .fetch_one(&mut session)
            .await
            .map_err(classify_error)?;
        if !exists {
            return Ok(None);
        }
        let text: Option<String> = query_scalar("SELECT notice FROM projector_notices WHERE capacity = $1")
            .bind(role.as_str())
            .fetch_optional(&mut session)
            .await
            .map_err(classify_error)?;
        self.session = Some(session);
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    }

    /// Returns the session for a write and makes sure that the table exists; `None` if there is no read model. The
    /// session is taken out of `self`, so that it is dropped after an error.
    async fn writing_session(&mut self) -> Result<Option<PgConnection>, ReadModelError> {
        let mut session = match self.session.take() {
            Some(session) => session,
            None => session::connect(&session::writer_options(&self.url)).await?,
        };
        // Before the read model is created, a table in its schema would be mistaken for one of another program.
        let read_model_exists: bool = query_scalar("SELECT to_regclass('checkpoint') IS NOT NULL")
            .fetch_one(&mut session)
            .await
            .map_err(classify_error)?;
        if !read_model_exists {
            return Ok(None);
        }
        let table_exists: bool = query_scalar("SELECT to_regclass('projector_notices') IS NOT NULL")
            .fetch_one(&mut session)
            .await
            .map_err(classify_error)?;
        if !table_exists {
            raw_sql(CREATE_TABLE).execute(&mut session).await.map_err(classify_error)?;
        }
        Ok(Some(session))
    }
}

#[async_trait]
impl HeartbeatStore for PostgresHeartbeats {
    async fn publish(&mut self, role: ProjectorRole, heartbeat: Heartbeat) {
        let _ = Self::store(self, role, &heartbeat).await;
    }

    async fn remove(&mut self, role: ProjectorRole) {
        let _ = Self::remove(self, role).await;
    }

    async fn read(&mut self, role: ProjectorRole) -> Option<Heartbeat> {
        Self::read(self, role).await.ok()?
    }
}
