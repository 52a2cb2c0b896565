//! The contents of a projection as one hash for each entity, for comparing two generations.

use std::cmp::Ordering;

use chat_domain::Position;
use serde::{Deserialize, Serialize};

use crate::content_digest::{ContentDigest, hash_fields};

/// The kind of an entity of a projection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntityKind {
    /// An app.
    App,
    /// A chat.
    Chat,
    /// A message.
    Message,
    /// A deleted message.
    Tombstone,
    /// A dead letter.
    #[serde(rename = "parked")]
    DeadLetter,
}

/// The key of an entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntityKey {
    /// The entity's kind.
    pub kind: EntityKind,
    /// The position of the event that created it, or of the dead-lettered event.
    pub position: Position,
}

/// The digest of a projection, and a 64-bit hash of each entity. Takes 24 bytes of memory for each entity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProjectionContents {
    /// The digest of all entities.
    pub digest: ContentDigest,
    /// Each entity's key and the 64-bit hash of its fields.
    entities: Vec<(EntityKey, u64)>,
}

/// A difference between two projections in one entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Difference {
    /// Only the first projection has the entity.
    OnlyFirst,
    /// Only the second projection has the entity.
    OnlySecond,
    /// Both projections have the entity, with different content.
    Content,
}

impl ProjectionContents {
    /// Adds an entity with the hash of its fields.
    pub fn add(&mut self, key: EntityKey, fields: &[&[u8]]) {
        let hash = hash_fields(fields);
        self.digest.add_hash(hash);
        let mut prefix = [0; 8];
        prefix.copy_from_slice(&hash[..8]);
        self.entities.push((key, u64::from_le_bytes(prefix)));
    }

    /// Sorts the entities by key, after all are added.
    #[must_use]
    pub fn sorted(mut self) -> Self {
        self.entities.sort_unstable();
        self
    }

    /// The number of entities of a kind.
    pub fn count(&self, kind: EntityKind) -> usize {
        self.entities.iter().filter(|(key, _)| key.kind == kind).count()
    }

    /// Returns the entities that differ between this projection, which is the first, and `second`. Both must be
    /// [sorted](Self::sorted).
    pub fn differences(&self, second: &Self) -> Vec<(EntityKey, Difference)> {
        if self.digest == second.digest {
            return Vec::new();
        }
        let (mut first_entities, mut second_entities) =
            (self.entities.iter().peekable(), second.entities.iter().peekable());
        let mut differences = Vec::new();
        loop {
            let order = match (first_entities.peek(), second_entities.peek()) {
                (None, None) => return differences,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((first_key, _)), Some((second_key, _))) => first_key.cmp(second_key),
            };
            let first_entity = if order == Ordering::Greater { None } else { first_entities.next() };
            let second_entity = if order == Ordering::Less { None } else { second_entities.next() };
            match (first_entity, second_entity) {
                (Some((key, first_hash)), Some((_, second_hash))) if first_hash != second_hash => {
                    differences.push((*key, Difference::Content));
                }
                (Some((key, _)), None) => differences.push((*key, Difference::OnlyFirst)),
                (None, Some((key, _))) => differences.push((*key, Difference::OnlySecond)),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(entities: &[(EntityKind, u64, &str)]) -> ProjectionContents {
        let mut contents = ProjectionContents::default();
        for (kind, position, text) in entities {
            contents.add(EntityKey { kind: *kind, position: Position::new(*position) }, &[text.as_bytes()]);
        }
        contents.sorted()
    }

    #[test]
    fn reports_which_projection_has_an_entity_that_differs() {
        let first = contents(&[
            (EntityKind::Message, 9, "same"),
            (EntityKind::App, 1, "a"),
            (EntityKind::Chat, 2, "here only"),
        ]);
        let second = contents(&[
            (EntityKind::App, 1, "b"),
            (EntityKind::Message, 9, "same"),
            (EntityKind::Message, 11, "new"),
        ]);
        let key = |kind, position| EntityKey { kind, position: Position::new(position) };
        assert_eq!(
            first.differences(&second),
            [
                (key(EntityKind::App, 1), Difference::Content),
                (key(EntityKind::Chat, 2), Difference::OnlyFirst),
                (key(EntityKind::Message, 11), Difference::OnlySecond),
            ]
        );
        assert_eq!(first.differences(&first.clone()), []);
    }
}
