//! Event proofs: prove that a single event was in the log. Checking a proof does not need the log
//! (c2sp.org/tlog-proof).
//!
//! A proof consists of lines of text:
//!
//! ```text
//! c2sp.org/tlog-proof@v1
//! extra AQAAAAhj…                                  the event's leaf, in base64
//! index 16                                         its index among the leaves, from 0
//! CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=     the hashes beside the path to the root, from the leaf up
//! …
//!                                                  a blank line, and the signed checkpoint
//! ```

use std::fmt::Write as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chat_domain::Position;
use chat_ports::event_store::{EventStore, RecordedEvent};

use super::checkpoint::{Checkpoint, parse_number};
use super::inclusion::{self, InclusionPathBuilder};
use super::key::VerifyingKey;
use super::leaf;
use super::leaves_file::{self, LeavesReader, LeavesStatus};
use super::log_walk::LogWalk;
use super::note::Note;
use super::tree::{Frontier, Hash};
use super::verify::{SignatureStatus, read_note, signature_status};
use super::{ProgressCallback, ProofError};

const HEADER_LINE: &str = "c2sp.org/tlog-proof@v1";

/// A proof that an event was in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventProof {
    leaf: Vec<u8>,
    path: inclusion::InclusionPath,
    note: Note,
}

/// The result of checking a proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedProof {
    /// The event.
    pub event: RecordedEvent,
    /// Its index among all events, from 0.
    pub index: u64,
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// The status of the checkpoint's signature.
    pub signature: SignatureStatus,
    /// Whether the path of the proof leads from the event to the checkpoint's root.
    pub included: bool,
}

impl EventProof {
    /// Parses a proof without checking it.
    pub fn parse(text: &str) -> Result<Self, ProofError> {
        Self::read(text).ok_or(ProofError::Malformed("this is not an event proof"))?
    }

    /// Parses a proof. `None` if the text is not a proof, an error if it is one with a malformed note.
    fn read(text: &str) -> Option<Result<Self, ProofError>> {
        let (head, note) = text.split_once("\n\n")?;
        let mut lines = head.lines().skip_while(|line| *line != HEADER_LINE);
        lines.next()?;
        let leaf = STANDARD.decode(lines.next()?.strip_prefix("extra ")?).ok()?;
        let index = parse_number(lines.next()?.strip_prefix("index ")?)?;
        let hashes: Option<Vec<Hash>> = lines.map(Hash::from_base64).collect();
        let path = inclusion::InclusionPath { index, leaf: Hash::of_leaf(&leaf), hashes: hashes? };
        Some(Note::parse(note).map(|note| Self { leaf, path, note }))
    }

    /// The text of the proof.
    pub fn to_text(&self) -> String {
        let mut text =
            format!("{HEADER_LINE}\nextra {}\nindex {}\n", STANDARD.encode(&self.leaf), self.path.index);
        for hash in &self.path.hashes {
            // Writing to a string never fails.
            let _ = writeln!(text, "{}", hash.to_base64());
        }
        let _ = write!(text, "\n{}", self.note);
        text
    }

    /// Checks the proof, and the signature of its checkpoint if a key is given.
    pub fn check(&self, key: Option<&VerifyingKey>) -> Result<CheckedProof, ProofError> {
        let checkpoint = Checkpoint::parse(self.note.text())?;
        let event = leaf::decode(&self.leaf);
        Ok(CheckedProof {
            event: event.ok_or(ProofError::Malformed("the proof contains no event"))?,
            index: self.path.index,
            signature: signature_status(&self.note, key),
            included: inclusion::root_from_path(&self.path, checkpoint.events) == Some(checkpoint.root),
            checkpoint,
        })
    }
}

/// Creates a proof that the checkpoint in the file `checkpoint_path` covers the event at `position`.
pub async fn prove(
    log: &dyn EventStore,
    position: Position,
    checkpoint_path: &Path,
    on_progress: ProgressCallback<'_>,
) -> Result<EventProof, ProofError> {
    const ALTERED: ProofError = ProofError::NotProvable(
        "the log differs from the checkpoint: audit verify with this checkpoint shows the first difference",
    );
    let note = read_note(checkpoint_path)?;
    let checkpoint = Checkpoint::parse(note.text())?;
    if position > checkpoint.position {
        return Err(ProofError::NotProvable("the checkpoint does not cover the event"));
    }
    let (event, index) = find_event_and_index(log, position, on_progress).await?;
    let mut builder = InclusionPathBuilder::new(index, checkpoint.events).ok_or(ALTERED)?;
    let leaves_path = leaves_file::leaves_path(checkpoint_path);
    if LeavesReader::check(&leaves_path, &checkpoint)? == LeavesStatus::Good {
        let mut leaves = LeavesReader::open(&leaves_path)?;
        while let Some(leaf) = leaves.read()? {
            builder.push(leaf.hash);
        }
    } else {
        let (mut tree, mut walk) = (Frontier::default(), LogWalk::new(log, Some(checkpoint.position)));
        while let Some(walked) = walk.next_event().await? {
            let hash = leaf::hash(&walked);
            builder.push(hash);
            tree.push(hash);
            on_progress(tree.leaf_count());
        }
        if tree.root() != checkpoint.root {
            return Err(ALTERED);
        }
    }
    let path = builder.finish().ok_or(ALTERED)?;
    if path.leaf != leaf::hash(&event) {
        return Err(ALTERED);
    }
    Ok(EventProof { leaf: leaf::encode(&event), path, note })
}

/// Finds the event at a position. Also returns the index of the event among all events.
async fn find_event_and_index(
    log: &dyn EventStore,
    position: Position,
    on_progress: ProgressCallback<'_>,
) -> Result<(RecordedEvent, u64), ProofError> {
    let mut walk = LogWalk::new(log, Some(position));
    let mut index = 0;
    while let Some(event) = walk.next_event().await? {
        if event.position == position {
            return Ok((event, index));
        }
        index += 1;
        on_progress(index);
    }
    Err(ProofError::NotProvable("there is no event at this position"))
}
