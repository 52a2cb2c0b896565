//! The identity of the log: an event in a stream of its own, written by the first process that opens the log.

use std::sync::Arc;

use chat_domain::event::SchemaVersion;
use chat_domain::metadata::EventId;
use chat_domain::{ExpectedRevision, Revision};
use uuid::Uuid;

use super::call_error::{CallError, Damage};
use super::connection::Connection;
use chat_ports::clock;
use chat_ports::event_store::{
    AppendError, EventStoreError, LogId, NewEvent, ReadStart, StreamAppend, StreamRead,
};

/// The stream of the identity, which projections do not read.
const IDENTITY_STREAM: &str = "log-identity";

const LOG_CREATED: &str = "LogCreated";

impl Connection {
    /// Reads the log's identity, or generates and writes it. If several processes do so at once, one of them wins.
    pub(super) async fn log_id(&self) -> Result<LogId, EventStoreError> {
        if let Some(id) = self.read_log_id().await? {
            return Ok(id);
        }
        match self.append(Arc::new(log_created_append())).await {
            Ok(_) | Err(AppendError::Conflict) => {}
            Err(AppendError::Unavailable(cause) | AppendError::OutcomeUnknown(cause)) => {
                return Err(match cause.downcast::<CallError>() {
                    Ok(failure) => (*failure).into(),
                    Err(cause) => EventStoreError::Unavailable(cause),
                });
            }
        }
        self.read_log_id().await?.ok_or_else(|| EventStoreError::Damaged(Damage::UnreadableLogId.into()))
    }

    async fn read_log_id(&self) -> Result<Option<LogId>, EventStoreError> {
        let first = StreamRead::all(IDENTITY_STREAM, ReadStart::Forwards(Revision::FIRST), 1);
        let Some(event) = self.read_stream(&first).await?.pop() else { return Ok(None) };
        let id = serde_json::from_slice(&event.data);
        id.map(Some).map_err(|_| EventStoreError::Damaged(Damage::UnreadableLogId.into()))
    }
}

fn log_created_append() -> StreamAppend {
    let id = Uuid::new_v4();
    let event = NewEvent {
        id: EventId::new(id),
        event_type: LOG_CREATED,
        schema_version: SchemaVersion(1),
        recorded_at: clock::now(),
        data: format!("\"{id}\""),
        metadata: "{}".into(),
    };
    StreamAppend {
        stream: IDENTITY_STREAM.into(),
        expected_revision: ExpectedRevision::NoStream,
        events: vec![event],
    }
}
