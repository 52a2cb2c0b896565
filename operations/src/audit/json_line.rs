//! Serializes events as lines of JSON, for exports and replays.

use chat_ports::event_store::RecordedEvent;

use super::event::AuditedEvent;

/// Appends an event to `buffer` as one line of JSON that ends with a line break.
pub(crate) fn write(buffer: &mut Vec<u8>, event: &RecordedEvent) -> Result<(), serde_json::Error> {
    serde_json::to_writer(&mut *buffer, &AuditedEvent::from(event))?;
    buffer.push(b'\n');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use chat_domain::event::SchemaVersion;
    use chat_domain::metadata::EventId;
    use chat_domain::{Position, Revision, Timestamp};

    fn json_line(data: &[u8]) -> String {
        let event = RecordedEvent {
            position: Position::new(42),
            stream: "chat-T-1".into(),
            revision: Revision::new(7),
            id: EventId::new(uuid::Uuid::from_u128(9)),
            event_type: "MessageCreated".to_owned(),
            schema_version: SchemaVersion(1),
            recorded_at: Timestamp::from_millis(1_790_000_000_007),
            data: data.to_vec(),
            metadata: b"{}".to_vec(),
        };
        let mut line = Vec::new();
        write(&mut line, &event).unwrap();
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn writes_one_line_with_the_payload_as_stored() {
        let line = json_line(br#"{"message_number":1, "body":"two\nlines"}"#);
        assert!(line.contains(r#""data":{"message_number":1, "body":"two\nlines"}"#), "{line}");
        assert!(line.ends_with("}\n") && line.matches('\n').count() == 1, "{line}");
    }

    #[test]
    fn writes_one_line_for_invalid_or_multiline_payloads() {
        for data in [&b"{"[..], b"{\r\n}", b"\xff"] {
            let line = json_line(data);
            assert_eq!(line.matches(['\n', '\r']).count(), 1, "{line}");
            assert!(serde_json::from_str::<serde_json::Value>(&line).is_ok(), "{line}");
        }
    }
}
