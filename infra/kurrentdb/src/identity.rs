//! Which log this is: an event in a stream of its own, written by whoever comes first.

use std::sync::Arc;

use chat_domain::event::SchemaVersion;
use chat_domain::metadata::EventId;
use chat_domain::{ExpectedRevision, Revision};
use uuid::Uuid;

use super::connection::Connection;
use super::failure::{Damage, Failure};
use chat_ports::clock;
use chat_ports::event_store::{
    AppendError, EventStoreError, LogId, NewEvent, ReadFrom, Select, StreamAppend, StreamRead,
};

/// Not one of the streams that projections read.
const STREAM: &str = "log-identity";

const LOG_CREATED: &str = "LogCreated";

impl Connection {
    /// Reads the log's identity. Where there is none it is drawn and written, and of several who do so at once, one
    /// prevails.
    pub(super) async fn log_id(&self) -> Result<LogId, EventStoreError> {
        if let Some(id) = self.stored_id().await? {
            return Ok(id);
        }
        match self.append(Arc::new(drawn())).await {
            Ok(_) | Err(AppendError::Conflict) => {}
            Err(AppendError::Unavailable(cause) | AppendError::OutcomeUnknown(cause)) => {
                return Err(match cause.downcast::<Failure>() {
                    Ok(failure) => (*failure).into(),
                    Err(cause) => EventStoreError::Unavailable(cause),
                });
            }
        }
        self.stored_id().await?.ok_or_else(|| EventStoreError::Damaged(Damage::Identity.into()))
    }

    async fn stored_id(&self) -> Result<Option<LogId>, EventStoreError> {
        let from = ReadFrom::Forwards(Revision::FIRST);
        let first = StreamRead { stream: STREAM.into(), from, select: Select::All, limit: 1 };
        let Some(event) = self.read_stream(&first).await?.pop() else { return Ok(None) };
        let id = serde_json::from_slice(&event.data);
        id.map(Some).map_err(|_| EventStoreError::Damaged(Damage::Identity.into()))
    }
}

fn drawn() -> StreamAppend {
    let id = Uuid::new_v4();
    let event = NewEvent {
        id: EventId::new(id),
        event_type: LOG_CREATED,
        schema_version: SchemaVersion(1),
        recorded_at: clock::now(),
        data: format!("\"{id}\""),
        metadata: "{}".into(),
    };
    StreamAppend { stream: STREAM.into(), expected: ExpectedRevision::NoStream, events: vec![event] }
}
