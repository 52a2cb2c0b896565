//! Checkpoints: signed statements about the content of a log (c2sp.org/tlog-checkpoint).
//!
//! A checkpoint consists of lines of text, each ended by a line break:
//!
//! ```text
//! chat-api/log/0199aa5e-2f3c-4c8e-9d0a-3f1f7a1e2b4c   the log's id
//! 1204                                                 the number of events
//! CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=         the root of their tree
//! position 1204                                        the position of the last event
//! time 2026-11-24T17:30:00.123Z                        the time of signing
//! leaves 3q2+7w…                                       the SHA-256 of the leaves file
//! ```

use std::fmt;

use chat_domain::{Position, Timestamp};
use chat_ports::event_store::LogId;
use serde::{Serialize, Serializer};

use super::ProofError;
use super::note::Note;
use super::tree::Hash;

const ORIGIN_PREFIX: &str = "chat-api/log/";

/// A statement about the content of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Checkpoint {
    /// The log.
    pub log: LogId,
    /// The number of its events.
    pub events: u64,
    /// The root of their tree.
    pub root: Hash,
    /// The position of the last event.
    pub position: Position,
    /// The time of signing.
    #[serde(serialize_with = "as_text")]
    pub time: Timestamp,
    /// The SHA-256 of the leaves file.
    pub leaves: Hash,
}

impl Checkpoint {
    /// Parses the checkpoint in a signed note. Does not check the signatures.
    pub fn parse_note(note: &str) -> Result<Self, ProofError> {
        Self::parse(Note::parse(note)?.text())
    }

    /// Parses the format that [`fmt::Display`] writes. Ignores further lines.
    pub fn parse(text: &str) -> Result<Self, ProofError> {
        Self::read(text).ok_or(ProofError::Malformed("this is no checkpoint of a chat API's log"))
    }

    fn read(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let log = lines.next()?.strip_prefix(ORIGIN_PREFIX)?.parse().ok().map(LogId)?;
        let events = parse_number(lines.next()?)?;
        let root = Hash::from_base64(lines.next()?)?;
        let position = Position::new(parse_number(lines.next()?.strip_prefix("position ")?)?);
        let time = Timestamp::parse_rfc3339(lines.next()?.strip_prefix("time ")?)?;
        let leaves = Hash::from_base64(lines.next()?.strip_prefix("leaves ")?)?;
        Some(Self { log, events, root, position, time, leaves })
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
fn as_text<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

/// Parses a number without leading zeroes.
pub(super) fn parse_number(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{ORIGIN_PREFIX}{}", self.log.0)?;
        writeln!(f, "{}", self.events)?;
        writeln!(f, "{}", self.root.to_base64())?;
        writeln!(f, "position {}", self.position)?;
        writeln!(f, "time {}", self.time)?;
        writeln!(f, "leaves {}", self.leaves.to_base64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint() -> Checkpoint {
        Checkpoint {
            log: LogId(uuid::Uuid::from_u128(7)),
            events: 12,
            root: Hash::of_leaf(b"root"),
            position: Position::new(40),
            time: Timestamp::from_millis(1_790_000_000_007),
            leaves: Hash::of_nothing(),
        }
    }

    #[test]
    fn formats_and_parses_a_checkpoint() {
        let text = checkpoint().to_string();
        assert_eq!(
            text,
            "chat-api/log/00000000-0000-0000-0000-000000000007\n12\nPAb5plclr2BSYfY2ZyyWINQJcx2JpFHXRV/pxK4WeCk=\n\
             position 40\ntime 2026-09-21T14:13:20.007Z\nleaves 47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n"
        );
        assert_eq!(Checkpoint::parse(&text).unwrap(), checkpoint());
    }

    #[test]
    fn rejects_malformed_checkpoints() {
        let text = checkpoint().to_string();
        for (from, to) in [
            ("chat-api/log/", "example.com/"),
            ("\n12\n", "\n012\n"),
            ("\n12\n", "\n-1\n"),
            ("position 40\n", ""),
            ("=\nposition", "\nposition"),
            ("2026-09-21T", "2026-13-21T"),
        ] {
            assert!(Checkpoint::parse(&text.replacen(from, to, 1)).is_err(), "{to:?} instead of {from:?}");
        }
    }
}
