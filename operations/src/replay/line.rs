//! An event as a line of JSON.

use chat_domain::Position;
use chat_domain::Revision;
use chat_domain::event::SchemaVersion;
use chat_domain::metadata::EventId;
use chat_infra::event_store::RecordedEvent;
use serde::Serialize;
use serde_json::value::RawValue;

#[derive(Serialize)]
struct Line<'a> {
    position: Position,
    stream: &'a str,
    revision: Revision,
    id: EventId,
    #[serde(rename = "type")]
    event_type: &'a str,
    schema_version: SchemaVersion,
    recorded_at: String,
    data: Payload<'a>,
    metadata: Payload<'a>,
}

/// A payload as it is stored; as text, where it is no JSON.
#[derive(Serialize)]
#[serde(untagged)]
enum Payload<'a> {
    Json(&'a RawValue),
    Text(String),
}

impl<'a> Payload<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        match serde_json::from_slice::<&RawValue>(bytes) {
            // A line break between values would end the line.
            Ok(json) if !json.get().contains(['\n', '\r']) => Self::Json(json),
            _ => Self::Text(String::from_utf8_lossy(bytes).into_owned()),
        }
    }
}

/// Writes an event at the end of `to`, with a line break after it.
pub fn write(to: &mut Vec<u8>, event: &RecordedEvent) {
    let line = Line {
        position: event.position,
        stream: &event.stream,
        revision: event.revision,
        id: event.id,
        event_type: &event.event_type,
        schema_version: event.schema_version,
        recorded_at: event.recorded_at.to_string(),
        data: Payload::of(&event.data),
        metadata: Payload::of(&event.metadata),
    };
    // Texts, numbers and JSON always serialize, and a vector takes everything.
    let _ = serde_json::to_writer(&mut *to, &line);
    to.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use chat_domain::Timestamp;

    fn event(data: &[u8]) -> RecordedEvent {
        RecordedEvent {
            position: Position::new(42),
            stream: "chat-T-1".into(),
            revision: Revision::new(7),
            id: EventId::new(uuid::Uuid::from_u128(9)),
            event_type: "MessageCreated".to_owned(),
            schema_version: SchemaVersion(1),
            recorded_at: Timestamp::from_millis(1_790_000_000_007),
            data: data.to_vec(),
            metadata: b"{}".to_vec(),
        }
    }

    fn line(data: &[u8]) -> String {
        let mut line = Vec::new();
        write(&mut line, &event(data));
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn an_event_is_one_line_with_its_payload_as_stored() {
        assert_eq!(
            line(br#"{"b":1, "a":2.50}"#),
            "{\"position\":42,\"stream\":\"chat-T-1\",\"revision\":7,\
             \"id\":\"00000000-0000-0000-0000-000000000009\",\"type\":\"MessageCreated\",\"schema_version\":1,\
             \"recorded_at\":\"2026-09-21T14:13:20.007Z\",\"data\":{\"b\":1, \"a\":2.50},\"metadata\":{}}\n"
        );
    }

    #[test]
    fn a_payload_that_is_no_json_or_more_than_a_line_is_text() {
        for broken in [&b"{"[..], b"{\n}", b"\xff"] {
            let line = line(broken);
            assert_eq!(line.matches('\n').count(), 1, "{line}");
            assert!(serde_json::from_str::<serde_json::Value>(&line).unwrap()["data"].is_string(), "{line}");
        }
    }
}
