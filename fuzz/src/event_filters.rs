//! Filters of audit queries. The first line of a case is a filter as JSON, the second line an event as JSON.

use chat_domain::event::SchemaVersion;
use chat_domain::metadata::EventId;
use chat_domain::{Position, Revision, Timestamp};
use chat_operations::audit::{EventFilter, EventFilterParams};
use chat_ports::event_store::RecordedEvent;
use serde::Deserialize;
use uuid::Uuid;

const NOW: Timestamp = Timestamp::from_millis(1_790_000_100_000);

#[derive(Deserialize)]
struct Event {
    stream: String,
    #[serde(rename = "type")]
    event_type: String,
    position: u64,
    recorded_at: i64,
    data: String,
    metadata: String,
}

/// A filter matches an event exactly if each of its parts, taken alone, matches the event.
pub fn check(case: &[u8]) {
    let Ok(case) = str::from_utf8(case) else { return };
    let Some((filter, event)) = case.split_once('\n') else { return };
    let (Ok(params), Ok(event)) =
        (serde_json::from_str::<EventFilterParams>(filter), serde_json::from_str::<Event>(event))
    else {
        return;
    };
    let event = RecordedEvent {
        position: Position::new(event.position),
        stream: event.stream.into(),
        revision: Revision::FIRST,
        id: EventId::new(Uuid::from_u128(9)),
        event_type: event.event_type,
        schema_version: SchemaVersion::FIRST,
        recorded_at: Timestamp::from_millis(event.recorded_at),
        data: event.data.into_bytes(),
        metadata: event.metadata.into_bytes(),
    };
    let Ok(filter) = EventFilter::parse(params.clone(), NOW) else { return };
    let none = EventFilterParams::default;
    let parts = [
        EventFilterParams { stream: params.stream, ..none() },
        EventFilterParams { app: params.app.clone(), ..none() },
        // A chat can only be given with its app.
        EventFilterParams { app: params.app, chat: params.chat, ..none() },
        EventFilterParams { types: params.types, ..none() },
        EventFilterParams { actor: params.actor, ..none() },
        EventFilterParams { address: params.address, ..none() },
        EventFilterParams { correlation: params.correlation, ..none() },
        EventFilterParams { since: params.since, ..none() },
        EventFilterParams { from: params.from, ..none() },
        EventFilterParams { to: params.to, ..none() },
        EventFilterParams { after: params.after, ..none() },
        EventFilterParams { before: params.before, ..none() },
        EventFilterParams { sender: params.sender, ..none() },
        EventFilterParams { text: params.text, ..none() },
    ];
    let matches_part = |part: EventFilterParams| {
        EventFilter::parse(part, NOW).expect("a part of a valid filter").matches(&event)
    };
    assert_eq!(filter.matches(&event), parts.map(matches_part).iter().all(|matches| *matches), "{filter:?}");
}
