//! Everything that a projection holds, part by part, for telling where two copies of it differ.

use std::cmp::Ordering;

use chat_domain::Position;
use serde::Serialize;

use crate::content_digest::{ContentDigest, hash_fields};

/// What a part of a projection is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
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
    /// A parked event.
    Parked,
}

/// Which part: what it is about, and the position of the event that created that, or of the parked event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntityKey {
    /// What it is about.
    pub kind: EntityKind,
    /// The position of the event that it began with.
    pub position: Position,
}

/// The digest of everything, and what each part hashes to: 24 bytes a part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProjectionContents {
    /// The digest of all parts.
    pub digest: ContentDigest,
    entities: Vec<(EntityKey, u64)>,
}

/// How a part of one copy relates to the same part of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Difference {
    /// Only the first copy has it.
    OnlyFirst,
    /// Only the second copy has it.
    OnlySecond,
    /// Both have it, with other content.
    Content,
}

impl ProjectionContents {
    /// Adds a part with its fields.
    pub fn add(&mut self, key: EntityKey, fields: &[&[u8]]) {
        let hash = hash_fields(fields);
        self.digest.add_hash(hash);
        let mut start = [0; 8];
        start.copy_from_slice(&hash[..8]);
        self.entities.push((key, u64::from_le_bytes(start)));
    }

    /// Brings the parts in order, once all are added.
    #[must_use]
    pub fn sorted(mut self) -> Self {
        self.entities.sort_unstable();
        self
    }

    /// How many parts there are of a kind.
    pub fn count(&self, kind: EntityKind) -> usize {
        self.entities.iter().filter(|(key, _)| key.kind == kind).count()
    }

    /// The parts that differ between this copy, the first, and a second one. Both must be [in order](Self::in_order).
    pub fn differences(&self, second: &Self) -> Vec<(EntityKey, Difference)> {
        if self.digest == second.digest {
            return Vec::new();
        }
        let (mut ours, mut theirs) = (self.entities.iter().peekable(), second.entities.iter().peekable());
        let mut found = Vec::new();
        loop {
            let order = match (ours.peek(), theirs.peek()) {
                (None, None) => return found,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((ours, _)), Some((theirs, _))) => ours.cmp(theirs),
            };
            let first = if order == Ordering::Greater { None } else { ours.next() };
            let other = if order == Ordering::Less { None } else { theirs.next() };
            match (first, other) {
                (Some((key, first)), Some((_, second))) if first != second => {
                    found.push((*key, Difference::Content));
                }
                (Some((key, _)), None) => found.push((*key, Difference::OnlyFirst)),
                (None, Some((key, _))) => found.push((*key, Difference::OnlySecond)),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(parts: &[(EntityKind, u64, &str)]) -> ProjectionContents {
        let mut contents = ProjectionContents::default();
        for (kind, position, text) in parts {
            contents.add(EntityKey { kind: *kind, position: Position::new(*position) }, &[text.as_bytes()]);
        }
        contents.sorted()
    }

    #[test]
    fn reports_differences_with_the_side_that_has_them() {
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
