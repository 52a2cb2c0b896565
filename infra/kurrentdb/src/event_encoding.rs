//! The encoding of events in KurrentDB.
//!
//! Stream, id, type and payload are native fields. The other fields are stored with the metadata in KurrentDB's custom
//! metadata: `{"schema_version":1,"recorded_at":1790000000007,"metadata":{…}}`.

use std::sync::Arc;

use chat_domain::event::SchemaVersion;
use chat_domain::metadata::EventId;
use chat_domain::{Position, Revision, Timestamp};
use kurrentdb::{EventData, RecordedEvent as Stored, ResolvedEvent};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::call_error::Damage;
use chat_ports::event_store::{NewEvent, RecordedEvent};

#[derive(Deserialize)]
struct MetadataEnvelope<'a> {
    schema_version: SchemaVersion,
    recorded_at: Timestamp,
    #[serde(borrow)]
    metadata: &'a RawValue,
}

/// Encodes an event. Payload and metadata are kept byte for byte.
pub(super) fn to_wire(event: &NewEvent) -> EventData {
    let metadata = format!(
        r#"{{"schema_version":{},"recorded_at":{},"metadata":{}}}"#,
        event.schema_version.0,
        event.recorded_at.millis(),
        event.metadata
    );
    let json = RawValue::from_string(event.data.clone());
    let data = match json.and_then(|json| EventData::json(event.event_type, &json)) {
        Ok(data) => data,
        // The port promises JSON; anything else is stored unchanged.
        Err(_) => EventData::binary(event.event_type, event.data.clone().into()),
    };
    data.id(event.id.uuid()).metadata(metadata.into())
}

/// Decodes a stored event of the stream with this name.
pub(super) fn from_wire(stored: Stored, stream: Arc<str>) -> Result<RecordedEvent, Damage> {
    let position = position(&stored)?;
    let metadata = &stored.custom_metadata;
    let (schema_version, recorded_at, metadata) =
        match serde_json::from_slice::<MetadataEnvelope<'_>>(metadata) {
            Ok(MetadataEnvelope { schema_version, recorded_at, metadata }) => {
                (schema_version, recorded_at, metadata.get().as_bytes().to_vec())
            }
            // Not written by this system. Version 0 does not exist, so projections make the event a dead letter.
            Err(_) => (
                SchemaVersion(0),
                Timestamp::from_millis(stored.created.timestamp_millis()),
                metadata.to_vec(),
            ),
        };
    Ok(RecordedEvent {
        position,
        stream,
        revision: Revision::new(stored.revision),
        id: EventId::new(stored.id),
        event_type: stored.event_type,
        schema_version,
        recorded_at,
        data: stored.data.to_vec(),
        metadata,
    })
}

/// The position of a stored event. KurrentDB has two numbers, which differ only in explicit transactions, and this
/// system writes none.
pub(super) fn position(stored: &Stored) -> Result<Position, Damage> {
    let kurrentdb::Position { commit, prepare } = stored.position;
    if commit != prepare {
        return Err(Damage::ExplicitTransaction { commit, prepare });
    }
    Ok(Position::new(commit))
}

/// The event as stored: links are not followed.
pub(super) fn original_event(read: ResolvedEvent) -> Option<Stored> {
    read.link.or(read.event)
}

/// Shares the stream name between consecutive events, which are often of one stream.
#[derive(Default)]
pub(super) struct StreamNames(Option<Arc<str>>);

impl StreamNames {
    pub(super) fn shared_name(&mut self, stored: &Stored) -> Arc<str> {
        let name = stored.stream_id();
        let shared = self.0.take().filter(|last| **last == *name).unwrap_or_else(|| name.into());
        self.0 = Some(Arc::clone(&shared));
        shared
    }
}
