//! The encoding of events in KurrentDB.
//!
//! Stream, id, type and payload are native fields. Schema version and time are stored with the metadata in KurrentDB's
//! custom metadata: `{"schema_version":1,"recorded_at":1790000000007,"metadata":{…}}`.

use std::sync::Arc;

use chat_domain::event::SchemaVersion;
use chat_domain::metadata::EventId;
use chat_domain::{Position, Revision, Timestamp};
use chat_kurrentdb_protocol::streams::batch_append_req::ProposedMessage;
use chat_kurrentdb_protocol::streams::read_resp::ReadEvent;
use chat_kurrentdb_protocol::streams::read_resp::read_event::RecordedEvent as StoredEvent;
use chat_kurrentdb_protocol::{Uuid as WireUuid, uuid::Value};
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::call_error::Damage;
use chat_ports::event_store::{NewEvent, RecordedEvent};

/// The number of ticks in a millisecond. KurrentDB counts time in ticks of 100 ns.
const TICKS_PER_MILLI: i64 = 10_000;

#[derive(Deserialize)]
struct MetadataEnvelope<'a> {
    schema_version: SchemaVersion,
    recorded_at: Timestamp,
    #[serde(borrow)]
    metadata: &'a RawValue,
}

/// Encodes an event. Payload and metadata are kept byte for byte.
pub(super) fn to_wire(event: &NewEvent) -> ProposedMessage {
    let custom_metadata = format!(
        r#"{{"schema_version":{},"recorded_at":{},"metadata":{}}}"#,
        event.schema_version.0,
        event.recorded_at.millis(),
        event.metadata
    );
    // The port promises JSON; anything else is stored unchanged.
    let is_json = serde_json::from_str::<&RawValue>(&event.data).is_ok();
    let content_type = if is_json { "application/json" } else { "application/octet-stream" };
    let properties = [("type", event.event_type), ("content-type", content_type)];
    ProposedMessage {
        id: Some(wire_uuid(event.id.uuid())),
        metadata: properties.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        custom_metadata: custom_metadata.into(),
        data: event.data.clone().into(),
    }
}

/// Decodes a stored event of the stream with this name.
pub(super) fn from_wire(stored: StoredEvent, stream: Arc<str>) -> Result<RecordedEvent, Damage> {
    let (position, id) = (position(&stored)?, event_id(&stored)?);
    let envelope = serde_json::from_slice::<MetadataEnvelope<'_>>(&stored.custom_metadata);
    let (schema_version, recorded_at, metadata) = match envelope {
        Ok(MetadataEnvelope { schema_version, recorded_at, metadata }) => {
            (schema_version, recorded_at, metadata.get().as_bytes().to_vec())
        }
        // Not written by this system. Version 0 does not exist, so projections make the event a dead letter.
        Err(_) => (SchemaVersion(0), created_at(&stored), stored.custom_metadata.to_vec()),
    };
    let mut properties = stored.metadata;
    Ok(RecordedEvent {
        position,
        stream,
        revision: Revision::new(stored.stream_revision),
        id: EventId::new(id),
        event_type: properties.remove("type").ok_or(Damage::IncompleteEvent)?,
        schema_version,
        recorded_at,
        data: stored.data.to_vec(),
        metadata,
    })
}

/// The time at which KurrentDB stored the event.
fn created_at(stored: &StoredEvent) -> Timestamp {
    let ticks = stored.metadata.get("created").and_then(|ticks| ticks.parse::<i64>().ok());
    Timestamp::from_millis(ticks.unwrap_or(0) / TICKS_PER_MILLI)
}

/// The position of a stored event. KurrentDB has two numbers for it, commit and prepare. They differ only in explicit
/// transactions, which this system does not use.
pub(super) fn position(stored: &StoredEvent) -> Result<Position, Damage> {
    let (commit, prepare) = (stored.commit_position, stored.prepare_position);
    if commit != prepare {
        return Err(Damage::ExplicitTransaction { commit, prepare });
    }
    Ok(Position::new(commit))
}

/// The id of a stored event.
pub(super) fn event_id(stored: &StoredEvent) -> Result<Uuid, Damage> {
    stored.id.as_ref().and_then(parse_uuid).ok_or(Damage::IncompleteEvent)
}

/// The event that is stored in the stream that was read: a link itself, not the event that it points to.
pub(super) fn original_event(read: ReadEvent) -> Option<StoredEvent> {
    read.link.or(read.event)
}

pub(super) fn wire_uuid(id: Uuid) -> WireUuid {
    WireUuid { value: Some(Value::String(id.to_string())) }
}

pub(super) fn parse_uuid(id: &WireUuid) -> Option<Uuid> {
    match id.value.as_ref()? {
        Value::String(id) => id.parse().ok(),
        Value::Structured(id) => Some(Uuid::from_u64_pair(
            id.most_significant_bits.cast_unsigned(),
            id.least_significant_bits.cast_unsigned(),
        )),
    }
}

/// Shares the stream name between consecutive events, which are often of one stream.
#[derive(Default)]
pub(super) struct StreamNames(Option<Arc<str>>);

impl StreamNames {
    pub(super) fn shared_name(&mut self, stored: &StoredEvent) -> Result<Arc<str>, Damage> {
        let identifier = stored.stream_identifier.as_ref().ok_or(Damage::IncompleteEvent)?;
        let name = String::from_utf8_lossy(&identifier.stream_name);
        let shared = self.0.take().filter(|last| **last == *name).unwrap_or_else(|| name.into());
        self.0 = Some(Arc::clone(&shared));
        Ok(shared)
    }
}
