//! The identity of the log and its incarnations: events in a stream of their own. The first process that opens the log
//! writes the first event. An operator who begins a new incarnation writes the next one.

use chat_domain::event::SchemaVersion;
use chat_domain::metadata::EventId;
use chat_domain::{ExpectedRevision, Position, Revision, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::call_error::{CallError, Damage};
use super::connection::Connection;
use chat_ports::clock;
use chat_ports::event_store::{
    AppendError, EventStoreError, Incarnation, LogId, LogLineage, NewEvent, NewIncarnation, ReadStart,
    RecordedEvent, StreamAppend, StreamRead,
};

/// The stream of the identity, which projections do not read.
const IDENTITY_STREAM: &str = "log-identity";

/// The type of the first event. The payload is the id of the first incarnation.
const LOG_CREATED: &str = "LogCreated";

/// The type of an event that begins an incarnation. The payload is a [`StoredIncarnation`].
const INCARNATION_BEGAN: &str = "LogIncarnationBegan";

/// The number of identity events in one read.
const PAGE_EVENTS: usize = 256;

/// The maximum number of attempts to begin an incarnation while other processes begin others.
const MAX_ATTEMPTS: usize = 8;

/// The payload of an event that begins an incarnation. The time of the event is [`Incarnation::began_at`].
#[derive(Serialize, Deserialize)]
struct StoredIncarnation {
    log: LogId,
    began_after: Position,
    reason: String,
    replaces: Vec<LogId>,
}

impl Connection {
    /// Reads the log's id, or generates and writes one. If several processes do so at once, all return the one that was
    /// written first.
    pub(super) async fn log_id(&self) -> Result<LogId, EventStoreError> {
        if let Some(id) = self.read_log_id().await? {
            return Ok(id);
        }
        let id = Uuid::new_v4();
        let created =
            identity_append(ExpectedRevision::NoStream, id, LOG_CREATED, format!("\"{id}\""), clock::now());
        self.append_unless_taken(created).await?;
        self.read_log_id().await?.ok_or_else(unreadable)
    }

    /// Reads the log's id. Fails with [`EventStoreError::Refused`] if there is none.
    pub(super) async fn existing_log_id(&self) -> Result<LogId, EventStoreError> {
        self.read_log_id().await?.ok_or_else(|| CallError::NoLog.into())
    }

    /// Reads the log's id, which is that of the newest incarnation; `None` if there is none.
    pub(super) async fn read_log_id(&self) -> Result<Option<LogId>, EventStoreError> {
        let last = StreamRead::last_event(IDENTITY_STREAM);
        let Some(event) = self.read_stream(&last).await?.pop() else { return Ok(None) };
        match event.event_type.as_str() {
            INCARNATION_BEGAN => Ok(Some(read_incarnation(&event)?.log)),
            _ => read_original_id(&event).map(Some),
        }
    }

    pub(super) async fn lineage(&self) -> Result<LogLineage, EventStoreError> {
        Ok(self.read_identity().await?.0)
    }

    /// Begins an incarnation after the head of the log, or returns it if it has begun already.
    pub(super) async fn begin_incarnation(
        &self,
        incarnation: NewIncarnation,
    ) -> Result<Incarnation, EventStoreError> {
        let mut attempts = 0;
        loop {
            let (lineage, last) = self.read_identity().await?;
            if let Some(begun) = lineage.later().iter().find(|begun| begun.log == incarnation.log) {
                return Ok(begun.clone());
            }
            if attempts == MAX_ATTEMPTS {
                return Err(EventStoreError::Unavailable(
                    "other processes begin incarnations of the log at the same time".into(),
                ));
            }
            attempts += 1;
            let Incarnation { log, began_after, began_at, reason, replaces } =
                incarnation.clone().begun_after(self.head().await?);
            let payload = StoredIncarnation { log, began_after, reason, replaces };
            let payload = serde_json::to_string(&payload).map_err(|_| unreadable())?;
            let expected = ExpectedRevision::Exact(last);
            self.append_unless_taken(identity_append(expected, log.0, INCARNATION_BEGAN, payload, began_at))
                .await?;
        }
    }

    /// Reads the lineage, and the last revision of the identity stream.
    async fn read_identity(&self) -> Result<(LogLineage, Revision), EventStoreError> {
        let mut events = Vec::new();
        let mut next = Revision::FIRST;
        loop {
            let page = StreamRead::all(IDENTITY_STREAM, ReadStart::Forwards(next), PAGE_EVENTS);
            let page = self.read_stream(&page).await?;
            let Some(last) = page.last() else { break };
            next = last.revision.next();
            events.extend(page);
        }
        let mut events = events.into_iter();
        let created = events.next().ok_or_else(unreadable)?;
        let (mut later, mut last) = (Vec::new(), created.revision);
        for event in events {
            last = event.revision;
            let StoredIncarnation { log, began_after, reason, replaces } = read_incarnation(&event)?;
            later.push(Incarnation { log, began_after, began_at: event.recorded_at, reason, replaces });
        }
        Ok((LogLineage::new(read_original_id(&created)?, later), last))
    }

    /// Appends, unless another process has appended first.
    async fn append_unless_taken(&self, append: StreamAppend) -> Result<(), EventStoreError> {
        match self.append(&append).await {
            Ok(_) | Err(AppendError::Conflict) => Ok(()),
            Err(AppendError::StreamTruncated(stream)) => Err(EventStoreError::StreamTruncated(stream)),
            Err(AppendError::Unavailable(cause) | AppendError::OutcomeUnknown(cause)) => {
                Err(match cause.downcast::<CallError>() {
                    Ok(failure) => (*failure).into(),
                    Err(cause) => EventStoreError::Unavailable(cause),
                })
            }
        }
    }
}

fn read_original_id(event: &RecordedEvent) -> Result<LogId, EventStoreError> {
    serde_json::from_slice(&event.data).map_err(|_| unreadable())
}

fn read_incarnation(event: &RecordedEvent) -> Result<StoredIncarnation, EventStoreError> {
    serde_json::from_slice(&event.data).map_err(|_| unreadable())
}

fn unreadable() -> EventStoreError {
    EventStoreError::Damaged(Damage::UnreadableLogId.into())
}

fn identity_append(
    expected_revision: ExpectedRevision,
    id: Uuid,
    event_type: &'static str,
    data: String,
    recorded_at: Timestamp,
) -> StreamAppend {
    let event = NewEvent {
        id: EventId::new(id),
        event_type,
        schema_version: SchemaVersion(1),
        recorded_at,
        data,
        metadata: "{}".into(),
    };
    StreamAppend { stream: IDENTITY_STREAM.into(), expected_revision, events: vec![event] }
}
