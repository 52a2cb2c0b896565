//! The projection checkpoint, stored as the payload of each tantivy commit.

use chat_domain::Position;
use chat_ports::event_store::LogId;
use chat_ports::projection_checkpoint::ProjectionCheckpoint;
use chat_ports::search_index::SearchError;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Damage, damaged};
use crate::schema::SCHEMA_VERSION;

#[derive(Serialize, Deserialize)]
struct CommitPayload {
    schema_version: u32,
    log_id: Option<LogId>,
    position: Position,
}

/// Encodes a checkpoint as a commit payload.
pub(crate) fn to_payload(checkpoint: ProjectionCheckpoint) -> Result<String, serde_json::Error> {
    let payload = CommitPayload {
        schema_version: SCHEMA_VERSION,
        log_id: checkpoint.log,
        position: checkpoint.position,
    };
    serde_json::to_string(&payload)
}

/// Decodes a commit payload. The schema version is checked first, because another version may have other fields.
pub(crate) fn from_payload(payload: &str) -> Result<ProjectionCheckpoint, SearchError> {
    let unreadable = |error| damaged(Damage::UnreadableCheckpoint(error));
    let value: Value = serde_json::from_str(payload).map_err(unreadable)?;
    let found = value.get("schema_version").and_then(Value::as_u64);
    if let Some(found) = found.filter(|found| *found != u64::from(SCHEMA_VERSION)) {
        return Err(damaged(Damage::VersionMismatch { found, expected: SCHEMA_VERSION }));
    }
    let payload: CommitPayload = serde_json::from_value(value).map_err(unreadable)?;
    Ok(ProjectionCheckpoint { log: payload.log_id, position: payload.position })
}
