//! The log's id and its incarnations.

use chat_domain::metadata::EventId;
use chat_domain::{Position, Timestamp};
use sqlx::postgres::PgRow;
use sqlx::{Row as _, query};
use uuid::Uuid;

use super::append::KnownLog;
use super::call_error::CallError;
use super::read::Head;
use super::server::LogServer;
use chat_ports::event_store::{Incarnation, LogId, LogLineage, NewIncarnation};

/// The identity of the log, as read from the server.
pub(super) struct LogIdentity {
    /// The current incarnation.
    pub(super) log: LogId,
    /// Whether the log has the last event that the handle has seen. True if the handle has seen none.
    pub(super) contains_seen_event: bool,
    pub(super) head: Head,
}

impl LogServer {
    /// Reads the identity of the log, and looks for the last event that a handle has seen.
    pub(super) async fn identity(&self, seen: Option<(Position, EventId)>) -> Result<LogIdentity, CallError> {
        let (seen_position, seen_id) = KnownLog::seen_params(seen);
        let rows = self
            .fetch(&self.log_reads, || {
                query(
                    "SELECT chat_event_log.current_id(),
                        $1 = 0 OR EXISTS (SELECT FROM chat_event_log.events WHERE position = $1 AND id = $2),
                        last.position, last.id
                     FROM (SELECT) one
                     LEFT JOIN (SELECT position, id FROM chat_event_log.events ORDER BY position DESC LIMIT 1) last ON true",
                )
                .bind(seen_position)
                .bind(seen_id)
            })
            .await?;
        let read = |row: &PgRow| {
            let (head_position, head_id): (Option<i64>, Option<Uuid>) = (row.try_get(2)?, row.try_get(3)?);
            let head = head_position.zip(head_id);
            Ok(LogIdentity {
                log: LogId(row.try_get(0)?),
                contains_seen_event: row.try_get(1)?,
                head: head.map(|(position, id)| (Position::new(position.unsigned_abs()), EventId::new(id))),
            })
        };
        Ok(rows.first().ok_or(sqlx::Error::RowNotFound).and_then(read)?)
    }

    pub(super) async fn lineage(&self) -> Result<LogLineage, CallError> {
        let statement = || {
            query(
                "SELECT l.id, i.id, i.began_after, i.began_at, i.reason, i.replaces
                 FROM chat_event_log.log l LEFT JOIN chat_event_log.incarnations i ON true ORDER BY i.number",
            )
        };
        let rows = self.fetch(&self.log_reads, statement).await?;
        let original = rows.first().ok_or(sqlx::Error::RowNotFound)?.try_get(0)?;
        let later = rows.iter().filter_map(|row| read_incarnation(row).transpose());
        Ok(LogLineage::new(LogId(original), later.collect::<sqlx::Result<_>>()?))
    }

    /// Begins an incarnation after the head of the log, unless it has begun already.
    pub(super) async fn begin_incarnation(&self, new: &NewIncarnation) -> Result<(), CallError> {
        // `fetch` may repeat the call: the database function begins an incarnation only once.
        let begin = || {
            query("SELECT chat_event_log.begin_incarnation($1, $2, $3, $4)")
                .bind(new.log.0)
                .bind(new.began_at.millis())
                .bind(new.reason.clone())
                .bind(new.replaces.iter().map(|log| log.0).collect::<Vec<_>>())
        };
        self.fetch(&self.appends, begin).await.map(drop)
    }
}

/// The incarnation in a row of [`LogServer::lineage`]; `None` in the row of a log without later incarnations.
fn read_incarnation(row: &PgRow) -> sqlx::Result<Option<Incarnation>> {
    let Some(id) = row.try_get(1)? else { return Ok(None) };
    Ok(Some(Incarnation {
        log: LogId(id),
        began_after: Position::new(row.try_get::<i64, _>(2)?.unsigned_abs()),
        began_at: Timestamp::from_millis(row.try_get(3)?),
        reason: row.try_get(4)?,
        replaces: row.try_get::<Vec<Uuid>, _>(5)?.into_iter().map(LogId).collect(),
    }))
}
