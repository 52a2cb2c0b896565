//! The content of the index: a hash of each entity, and a digest of all. Equal content has the same digest, however the
//! documents are spread over segments.

use chat_domain::{MessageData, Position, SenderName};
use chat_ports::content_digest::ContentDigest;
use chat_ports::dead_letter::DeadLetter;
use chat_ports::projection_contents::{EntityKey, EntityKind, ProjectionContents};
use chat_ports::search_index::{Document, SearchError};
use tantivy::TantivyDocument;

use crate::documents::StoredDocument;
use crate::error::{classify_error, damaged};
use crate::index::TantivyIndex;

impl TantivyIndex {
    /// The digest of one snapshot, and the snapshot's position. Reads every document.
    pub fn digest(&self) -> Result<(Position, ContentDigest), SearchError> {
        self.contents().map(|(position, contents)| (position, contents.digest))
    }

    /// The hash of each entity of one snapshot, and the snapshot's position. Reads every document.
    pub fn contents(&self) -> Result<(Position, ProjectionContents), SearchError> {
        let snapshot = self.snapshot();
        let mut contents = ProjectionContents::default();
        for segment in snapshot.searcher.segment_readers() {
            let store = segment.get_store_reader(1).map_err(|error| classify_error(error.into()))?;
            for stored in store.iter::<TantivyDocument>(segment.alive_bitset()) {
                match self.fields().decode(&stored.map_err(classify_error)?).map_err(damaged)? {
                    StoredDocument::Message(message) => add_message(&mut contents, &message),
                    StoredDocument::DeadLetter(dead_letter) => add_dead_letter(&mut contents, &dead_letter),
                }
            }
        }
        Ok((snapshot.checkpoint.position, contents.sorted()))
    }
}

/// The bytes that are hashed in place of an absent text. They are not UTF-8, so no text has the same bytes.
const ABSENT: &[u8] = &[0xff];

fn add_message(contents: &mut ProjectionContents, message: &Document) {
    let key = EntityKey { kind: EntityKind::Message, position: message.created_position };
    let sender = message.sender.as_ref();
    let id = sender.map(|sender| sender.id.as_str());
    let name = sender.and_then(|sender| sender.name.as_ref()).map(SenderName::as_str);
    let data = message.data.as_ref().map(MessageData::as_str);
    let [chat, number, version, position] = [
        message.key.chat.get(),
        message.key.message.get(),
        message.version.get(),
        message.created_position.get(),
    ]
    .map(u64::to_le_bytes);
    let [created_at, updated_at] =
        [message.created_at, message.updated_at].map(|time| time.millis().to_le_bytes());
    let mut fields = vec![
        b"message" as &[u8],
        message.key.app.expose().as_bytes(),
        &chat,
        &number,
        message.body.as_bytes(),
        &version,
        &created_at,
        &updated_at,
        &position,
    ];
    fields.extend([id, name, data].map(|text| text.map_or(ABSENT, str::as_bytes)));
    // A message without sender and data keeps the hash that it had before messages could have them.
    while fields.last() == Some(&ABSENT) {
        fields.pop();
    }
    contents.add(key, &fields);
}

/// Adds a dead letter without its reason and time, which may differ between two projectors that failed on the same
/// event.
fn add_dead_letter(contents: &mut ProjectionContents, dead_letter: &DeadLetter) {
    let key = EntityKey { kind: EntityKind::DeadLetter, position: dead_letter.position };
    let fields: [&[u8]; 5] = [
        b"letter",
        &dead_letter.position.get().to_le_bytes(),
        dead_letter.stream.as_bytes(),
        dead_letter.event_type.as_bytes(),
        &operator_action_positions(dead_letter),
    ];
    contents.add(key, &fields);
}

/// The positions of the operator actions that discarded and acknowledged a dead letter, 0 for none.
fn operator_action_positions(dead_letter: &DeadLetter) -> [u8; 16] {
    let discarded = dead_letter.discarded.as_ref();
    let discarded_by = discarded.map_or(0, |discarded| discarded.by.get());
    let acknowledged_by = discarded.and_then(|discarded| discarded.acknowledged).map_or(0, Position::get);
    (u128::from(discarded_by) << 64 | u128::from(acknowledged_by)).to_le_bytes()
}
