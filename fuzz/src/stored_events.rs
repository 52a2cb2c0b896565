//! Stored events. The first line of a case is the event's type and schema version, the second line its metadata, and
//! the rest its payload.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chat_domain::event::SchemaVersion;
use chat_domain::metadata::EventId;
use chat_domain::{
    Event, Metadata, OperatorAction, Position, Revision, StreamId, Timestamp, app, chat, operator_action,
};
use chat_operations::audit::{AuditedEvent, EventReference};
use chat_ports::event_store::RecordedEvent;
use serde::de::IgnoredAny;
use serde_json::Value;
use uuid::Uuid;

use crate::sample_log;

/// An event that can be decoded stays the same when it is encoded and decoded again. Every event is shown in full on
/// one line.
pub fn check(case: &[u8]) {
    let mut lines = case.splitn(3, |byte| *byte == b'\n');
    let (Some(kind), Some(metadata), Some(payload)) = (lines.next(), lines.next(), lines.next()) else {
        return;
    };
    let Ok(kind) = str::from_utf8(kind) else { return };
    let (event_type, version) = kind.split_once(' ').unwrap_or((kind, "1"));
    let version = SchemaVersion(version.parse().unwrap_or(0));
    check_payload(event_type, version, payload);
    if let Ok(metadata) = serde_json::from_slice::<Metadata>(metadata) {
        let stored = serde_json::to_string(&metadata).expect("metadata as JSON");
        assert_eq!(serde_json::from_str::<Metadata>(&stored).expect("metadata"), metadata);
    }
    for stream in [StreamId::App(sample_log::app_token()).to_string(), operator_action::STREAM.to_owned()] {
        check_audited(&RecordedEvent {
            position: Position::new(7),
            stream: stream.into(),
            revision: Revision::FIRST,
            id: EventId::new(Uuid::from_u128(9)),
            event_type: event_type.to_owned(),
            schema_version: version,
            recorded_at: Timestamp::from_millis(1_790_000_000_007),
            data: payload.to_vec(),
            metadata: metadata.to_vec(),
        });
    }
}

fn check_payload(event_type: &str, version: SchemaVersion, payload: &[u8]) {
    let event = Event::decode(event_type, version, payload);
    let action = OperatorAction::decode(event_type, version, payload);
    assert!(
        event.is_err() || action.is_err(),
        "{event_type} is decoded both as an event and as an operator action"
    );
    if let Ok(event) = event {
        assert_eq!(event.event_type(), event_type);
        let again = Event::decode(event_type, event.schema_version(), event.payload().as_bytes());
        assert_eq!(again.expect("an event"), event);
        evolve(&event);
    }
    if let Ok(action) = action {
        assert_eq!(action.event_type(), event_type);
        let again = OperatorAction::decode(event_type, action.schema_version(), action.payload().as_bytes());
        assert_eq!(again.expect("an action"), action);
    }
}

/// Applies an event to states that it may or may not follow from.
fn evolve(event: &Event) {
    let _ = app::evolve(app::State::Absent, event);
    let last_chat = "9223372036854775807".parse().ok().and_then(|number: u64| number.try_into().ok());
    for last_chat in [None, last_chat] {
        let _ = app::evolve(app::State::Present { last_chat, version: chat_domain::Version::new(1) }, event);
    }
    for last in [0, 1, 7, u64::try_from(i64::MAX).unwrap_or(0)] {
        let state = chat::State::with_messages(last.try_into().ok());
        let count = state.message_count();
        if let Ok(evolved) = chat::evolve(state, event) {
            assert!(evolved.message_count().abs_diff(count) <= 1);
        }
    }
}

fn check_audited(event: &RecordedEvent) {
    let line = serde_json::to_string(&AuditedEvent::from(event)).expect("JSON");
    assert!(!line.contains(['\n', '\r']), "{line}");
    let fields: std::collections::BTreeMap<String, Box<serde_json::value::RawValue>> =
        serde_json::from_str(&line).expect("an object");
    for (name, bytes) in [("data", &event.data), ("metadata", &event.metadata)] {
        let shown = fields[name].get();
        match fields.get(&format!("{name}_base64")) {
            None => {
                // Line breaks are shown as spaces, so neither is compared.
                let is_compared = |c: &char| !matches!(c, '\n' | '\r' | ' ');
                let stored = str::from_utf8(bytes).expect("JSON").trim_matches([' ', '\t', '\n', '\r']);
                assert!(shown.chars().filter(is_compared).eq(stored.chars().filter(is_compared)), "{shown}");
            }
            Some(encoded) => {
                let is_json = |text| serde_json::from_str::<IgnoredAny>(text).is_ok();
                assert!(!str::from_utf8(bytes).is_ok_and(is_json));
                let encoded: Value = serde_json::from_str(encoded.get()).expect("a text");
                assert_eq!(&STANDARD.decode(encoded.as_str().expect("a text")).expect("base64"), bytes);
            }
        }
    }
    let reference = serde_json::to_string(&EventReference::from(event)).expect("JSON");
    assert!(serde_json::from_str::<Value>(&reference).is_ok(), "{reference}");
}
