//! Notices of projectors, in a table beside those of the read model.

use sqlx::{PgConnection, query, query_scalar, raw_sql};

use super::error::classify_error;
use super::session;
use super::url::PostgresUrl;
use chat_ports::heartbeat::{Heartbeat, ProjectorRole};
use chat_ports::read_model::ReadModelError;

/// Made when it is missing: it is no part of the read model, and says nothing about the log.
const CREATE_TABLE: &str =
    "CREATE TABLE IF NOT EXISTS projector_notices (capacity TEXT PRIMARY KEY, notice TEXT NOT NULL)";

/// Notices in a namespace. Keeps a connection from the first use on.
pub struct PostgresHeartbeats {
    url: PostgresUrl,
    session: Option<PgConnection>,
}

impl PostgresHeartbeats {
    /// Those in the namespace of `url`.
    pub fn new(url: PostgresUrl) -> Self {
        Self { url, session: None }
    }

    /// Puts a notice up in place of the one before; nowhere while there is no read model.
    pub async fn post(&mut self, capacity: ProjectorRole, notice: &Heartbeat) -> Result<(), ReadModelError> {
        let Some(mut session) = self.writing_session().await? else { return Ok(()) };
        let text = serde_json::to_string(notice).unwrap_or_default();
        query(
            "INSERT INTO projector_notices (capacity, notice) VALUES ($1, $2)
             ON CONFLICT (capacity) DO UPDATE SET notice = excluded.notice",
        )
        .bind(capacity.as_str())
        .bind(text)
        .execute(&mut session)
        .await
        .map_err(classify_error)?;
        self.session = Some(session);
        Ok(())
    }

    /// Takes a notice down.
    pub async fn remove(&mut self, capacity: ProjectorRole) -> Result<(), ReadModelError> {
        let Some(mut session) = self.writing_session().await? else { return Ok(()) };
        query("DELETE FROM projector_notices WHERE capacity = $1")
            .bind(capacity.as_str())
            .execute(&mut session)
            .await
            .map_err(classify_error)?;
        self.session = Some(session);
        Ok(())
    }

    /// The notice that is up, if there is one that can be read.
    pub async fn read(&mut self, capacity: ProjectorRole) -> Result<Option<Heartbeat>, ReadModelError> {
        let mut session = match self.session.take() {
            Some(session) => session,
            None => session::connect(&session::full_scan_options(&self.url)).await?,
        };
        let there: bool = query_scalar("SELECT to_regclass('projector_notices') IS NOT NULL")
            .fetch_one(&mut session)
            .await
            .map_err(classify_error)?;
        if !there {
            return Ok(None);
        }
        let notice: Option<String> = query_scalar("SELECT notice FROM projector_notices WHERE capacity = $1")
            .bind(capacity.as_str())
            .fetch_optional(&mut session)
            .await
            .map_err(classify_error)?;
        self.session = Some(session);
        Ok(notice.and_then(|notice| serde_json::from_str(&notice).ok()))
    }

    /// A session to write with, and the table; `None` where there is no read model. Taken out, so that an error leaves
    /// none behind.
    async fn writing_session(&mut self) -> Result<Option<PgConnection>, ReadModelError> {
        let mut session = match self.session.take() {
            Some(session) => session,
            None => session::connect(&session::writer_options(&self.url)).await?,
        };
        // Where a read model is still to be laid out, a table of another name would be taken for somebody else's.
        let there: bool = query_scalar("SELECT to_regclass('checkpoint') IS NOT NULL")
            .fetch_one(&mut session)
            .await
            .map_err(classify_error)?;
        if !there {
            return Ok(None);
        }
        let made: bool = query_scalar("SELECT to_regclass('projector_notices') IS NOT NULL")
            .fetch_one(&mut session)
            .await
            .map_err(classify_error)?;
        if !made {
            raw_sql(CREATE_TABLE).execute(&mut session).await.map_err(classify_error)?;
        }
        Ok(Some(session))
    }
}
