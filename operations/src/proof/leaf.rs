//! Leaves: events in the serialized form that is hashed.
//!
//! The leaf hash is the SHA-256 of the byte 0x00 and the leaf (RFC 9162). Numbers are big-endian. A field of variable
//! length is its length in four bytes, followed by its bytes.
//!
//! | field | bytes |
//! |---|---|
//! | the version of this format, 1 | 1 |
//! | stream | 4, and the name |
//! | revision | 8 |
//! | id | 16 |
//! | type | 4, and the name |
//! | schema version | 4 |
//! | recorded at, in milliseconds since 1970 | 8 |
//! | payload, as stored | 4, and the bytes |
//! | metadata, as stored | 4, and the bytes |
//! | position | 8 |
//!
//! These are all stored fields of an event. The position comes last, so that the hash for another position can be
//! computed without hashing the rest again.

use chat_domain::event::SchemaVersion;
use chat_domain::metadata::EventId;
use chat_domain::{Position, Revision, Timestamp};
use chat_ports::event_store::RecordedEvent;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::tree::{Hash, LEAF_PREFIX};

const VERSION: u8 = 1;

/// The hash state of an event after all fields except the position. Computes the leaf hash of the event at any
/// position.
#[derive(Clone)]
pub struct LeafHasher(Sha256);

impl LeafHasher {
    /// Hashes all fields of an event except the position.
    pub fn from_event(event: &RecordedEvent) -> Self {
        let mut hasher = Sha256::new_with_prefix([LEAF_PREFIX]);
        write_content(event, |bytes| hasher.update(bytes));
        Self(hasher)
    }

    /// The leaf hash of the event at a position.
    pub fn hash_at(&self, position: Position) -> Hash {
        Hash(self.0.clone().chain_update(position.get().to_be_bytes()).finalize().into())
    }
}

/// The leaf hash of an event.
pub fn hash(event: &RecordedEvent) -> Hash {
    LeafHasher::from_event(event).hash_at(event.position)
}

/// Serializes an event as a leaf.
pub fn encode(event: &RecordedEvent) -> Vec<u8> {
    let mut leaf = Vec::new();
    write_content(event, |bytes| leaf.extend_from_slice(bytes));
    leaf.extend_from_slice(&event.position.get().to_be_bytes());
    leaf
}

fn write_content(event: &RecordedEvent, mut put: impl FnMut(&[u8])) {
    put(&[VERSION]);
    write_bytes(&mut put, event.stream.as_bytes());
    put(&event.revision.get().to_be_bytes());
    put(event.id.uuid().as_bytes());
    write_bytes(&mut put, event.event_type.as_bytes());
    put(&event.schema_version.0.to_be_bytes());
    put(&event.recorded_at.millis().to_be_bytes());
    write_bytes(&mut put, &event.data);
    write_bytes(&mut put, &event.metadata);
}

fn write_bytes(put: &mut impl FnMut(&[u8]), bytes: &[u8]) {
    // An append is limited to a size far below 4 GiB.
    put(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    put(bytes);
}

/// Parses a leaf; `None` if it is malformed.
pub fn decode(leaf: &[u8]) -> Option<RecordedEvent> {
    let mut rest = leaf;
    let [VERSION] = take(&mut rest)? else { return None };
    let event = RecordedEvent {
        stream: std::str::from_utf8(take_bytes(&mut rest)?).ok()?.into(),
        revision: Revision::new(u64::from_be_bytes(take(&mut rest)?)),
        id: EventId::new(Uuid::from_bytes(take(&mut rest)?)),
        event_type: String::from_utf8(take_bytes(&mut rest)?.to_vec()).ok()?,
        schema_version: SchemaVersion(u32::from_be_bytes(take(&mut rest)?)),
        recorded_at: Timestamp::from_millis(i64::from_be_bytes(take(&mut rest)?)),
        data: take_bytes(&mut rest)?.to_vec(),
        metadata: take_bytes(&mut rest)?.to_vec(),
        position: Position::new(u64::from_be_bytes(take(&mut rest)?)),
    };
    rest.is_empty().then_some(event)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, remaining) = rest.split_first_chunk()?;
    *rest = remaining;
    Some(*taken)
}

fn take_bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u32::from_be_bytes(take(rest)?);
    let (taken, remaining) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    *rest = remaining;
    Some(taken)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::proof) fn event() -> RecordedEvent {
        RecordedEvent {
            position: Position::new(42),
            stream: "chat-T-1".into(),
            revision: Revision::new(7),
            id: EventId::new(Uuid::from_u128(0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0f)),
            event_type: "MessageCreated".to_owned(),
            schema_version: SchemaVersion(1),
            recorded_at: Timestamp::from_millis(1_790_000_000_007),
            data: br#"{"message_number":8,"body":"Hi"}"#.to_vec(),
            metadata: b"{}".to_vec(),
        }
    }

    #[test]
    fn hashes_the_documented_format() {
        // Computed with Python's struct and hashlib from the byte 0x00 and the table above.
        let expected = "5092ffe04793c398e9ed74c122b61183664da4f2bf99231fe4b3d9d568c87479";
        assert_eq!(hash(&event()).to_string(), expected);
        assert_eq!(Hash::of_leaf(&encode(&event())).to_string(), expected);
    }

    #[test]
    fn decodes_complete_leaves_only() {
        let leaf = encode(&event());
        assert_eq!(decode(&leaf), Some(event()));
        for length in 0..leaf.len() {
            assert_eq!(decode(&leaf[..length]), None, "{length} bytes of the leaf");
        }
        assert_eq!(decode(&[&leaf[..], &[0]].concat()), None);
    }

    #[test]
    fn bytes_moved_to_another_field_change_the_hash() {
        let mut moved = event();
        moved.event_type = "Created".to_owned();
        moved.stream = "chat-T-1Message".into();
        assert_ne!(hash(&moved), hash(&event()));
        let mut moved = event();
        (moved.data, moved.metadata) = (b"{}".to_vec(), moved.data);
        assert_ne!(hash(&moved), hash(&event()));
    }
}
