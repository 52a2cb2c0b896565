//! Making checkpoints, and checking the log against them.

use std::io::Write as _;
use std::path::Path;

use chat_domain::{Operation, Position, Revision, operation};
use chat_ports::clock;
use chat_ports::event_store::{
    EventStore, EventStoreError, LogId, ReadFrom, RecordedEvent, Select, StreamRead,
};
use serde::Serialize;

use super::alteration::Alteration;
use super::checkpoint::Checkpoint;
use super::key::{SigningKey, VerifyingKey};
use super::leaves::{self, Leaf, Leaves, LeavesWriter, Standing};
use super::note::{Note, Signed};
use super::structure::{self, Fault};
use super::tree::{Frontier, Hash};
use super::walk::Walk;
use super::{ProofError, Watch, leaf};
use crate::acts::{self, ActError, Operator};
use crate::audit::Point;
use crate::new_file::{NewFile, Readers};

/// Why no checkpoint was made.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// It could not be made.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// The use of the key could not be recorded.
    #[error("the use of the key can't be recorded, so nothing was signed")]
    Act(#[from] ActError),
}

/// Signs what the log holds up to a point, or to its end, and writes the checkpoint and its leaves. That the key was used is recorded before either
/// is there, behind what was signed.
pub async fn make_checkpoint(
    log: &dyn EventStore,
    until: Option<Point>,
    key: &SigningKey,
    out: &Path,
    by: (&Operator, &str),
    watch: Watch<'_>,
) -> Result<Checkpoint, CheckpointError> {
    let beside = leaves::path_of(out);
    let mut file = NewFile::create(out, Readers::Anybody).map_err(ProofError::file(out))?;
    let leaves = NewFile::create(&beside, Readers::Anybody).map_err(ProofError::file(&beside))?;
    let mut leaves = LeavesWriter::new(leaves);
    let id = log.log_id().await.map_err(ProofError::from)?;
    let end = match until {
        Some(point) => point.resolve(log).await.map_err(ProofError::from)?,
        None => log.head().await.map_err(ProofError::from)?,
    };
    let (mut tree, mut walk) = (Frontier::default(), Walk::new(log, Some(end)));
    let mut position = Position::START;
    while let Some(event) = walk.next().await.map_err(ProofError::from)? {
        position = event.position;
        let leaf = Leaf { position, hash: leaf::hash(&event) };
        leaves.push(leaf).map_err(ProofError::file(&beside))?;
        tree.push(leaf.hash);
        watch(tree.leaves());
    }
    let (leaves, hash) = leaves.finish();
    let (events, root) = (tree.leaves(), tree.root());
    let checkpoint = Checkpoint { log: id, events, root, position, time: clock::now(), leaves: hash };
    let note = Note::sign(checkpoint.to_string(), key);
    let used = operation::SigningKeyUsed {
        key: format!("{}+{}", key.name(), key.verifying_key().id(key.name())),
        position,
        events,
        root: root.to_string(),
        reason: by.1.to_owned(),
    };
    acts::record(log, by.0, &Operation::from(used)).await?;
    leaves.keep().map_err(ProofError::file(&beside))?;
    file.write_all(note.to_string().as_bytes()).map_err(ProofError::file(out))?;
    file.keep().map_err(ProofError::file(out))?;
    Ok(checkpoint)
}

/// What can be said of a checkpoint's signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Signature {
    /// The key signed it.
    Good,
    /// It is not what the key signed.
    Wrong,
    /// Another key signed it.
    ByAnotherKey,
    /// There was no key to check it with.
    NotChecked,
}

/// What a log is like, compared to a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// What was signed.
    pub checkpoint: Checkpoint,
    /// Whether it was.
    pub signature: Signature,
    /// Whether there are leaves to compare with.
    pub leaves: Standing,
    /// Which log this is.
    pub log: LogId,
    /// How many events the log has up to the checkpoint's position.
    pub events: u64,
    /// The root of their tree.
    pub root: Hash,
    /// Whether they are those that were signed.
    pub unaltered: bool,
    /// The first event that is not as it was, where that can be told.
    pub altered: Option<Alteration>,
    /// Which events the removed one may have been, by the gaps that were left. More than one is only possible, none
    /// where the streams don't go on.
    pub missing: Vec<Missing>,
    /// What the log lacks by itself, where it was altered.
    pub faults: Vec<Fault>,
}

/// A place in a stream that nothing stands in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// The stream.
    pub stream: String,
    /// The revision that it lacks.
    pub revision: Revision,
}

impl Verdict {
    /// Whether all of it is as it should be, and the key's owner signed that.
    pub fn is_good(&self) -> bool {
        self.signature == Signature::Good && self.fits()
    }

    /// Whether the log is what the checkpoint says, whoever wrote that.
    pub fn fits(&self) -> bool {
        self.unaltered && self.leaves != Standing::Altered && self.log == self.checkpoint.log
    }
}

/// Whether a note was signed by a key.
pub fn signature_of(note: &Note, key: Option<&VerifyingKey>) -> Signature {
    match key.map(|key| note.signed_by(key)) {
        None => Signature::NotChecked,
        Some(Signed::Right) => Signature::Good,
        Some(Signed::Wrong) => Signature::Wrong,
        Some(Signed::ByOthers) => Signature::ByAnotherKey,
    }
}

/// Compares a log with what was signed about it: the checkpoint in the file `path`, and the leaves beside it.
pub async fn verify(
    log: &dyn EventStore,
    path: &Path,
    key: Option<&VerifyingKey>,
    watch: Watch<'_>,
) -> Result<Verdict, ProofError> {
    let note = read_note(path)?;
    let checkpoint = Checkpoint::parse(note.text())?;
    let beside = leaves::path_of(path);
    let standing = Leaves::check(&beside, &checkpoint)?;
    let mut leaves = match standing {
        Standing::Good => Some(Leaves::open(&beside)?),
        Standing::Missing | Standing::Altered => None,
    };
    let mut tree = Frontier::default();
    // Where leaves and log part: what was there, and what is.
    let mut parting: Option<(Leaf, Found)> = None;
    let mut walk = Walk::new(log, Some(checkpoint.position));
    loop {
        let found = match walk.next().await {
            Ok(Some(event)) => Found::Event(event),
            Ok(None) => Found::End,
            Err(error @ EventStoreError::Damaged(_)) => Found::Unreadable(error),
            Err(error) => return Err(error.into()),
        };
        let hash = match &found {
            Found::Event(event) => Some(leaf::hash(event)),
            Found::End | Found::Unreadable(_) => None,
        };
        if parting.is_none()
            && let Some(leaves) = &mut leaves
            && let Some(leaf) = leaves.read()?
            && hash != Some(leaf.hash)
        {
            parting = Some((leaf, found));
        }
        let Some(hash) = hash else { break };
        tree.push(hash);
        watch(tree.leaves());
    }
    let (events, root) = (tree.leaves(), tree.root());
    let unaltered = (events, root) == (checkpoint.events, checkpoint.root);
    let altered = match parting {
        None => None,
        Some((was, Found::Unreadable(error))) => Some(Alteration::unreadable(was.position, &error)),
        Some((was, Found::End)) => Some(Alteration::name(log, &beside, was, None).await?),
        Some((was, Found::Event(event))) => Some(Alteration::name(log, &beside, was, Some(event)).await?),
    };
    let faults = if unaltered { Vec::new() } else { structure::check(log, None, &mut |_| ()).await?.faults };
    let missing = match &altered {
        Some(Alteration::Removed { position }) => missing(log, *position, &faults).await?,
        _ => Vec::new(),
    };
    Ok(Verdict {
        signature: signature_of(&note, key),
        leaves: standing,
        log: log.log_id().await?,
        events,
        root,
        unaltered,
        altered,
        missing,
        faults,
        checkpoint,
    })
}

/// The gaps around a place that nothing stands in any more: their streams have what comes before before it, and go on
/// after it.
async fn missing(
    log: &dyn EventStore,
    removed: Position,
    faults: &[Fault],
) -> Result<Vec<Missing>, EventStoreError> {
    let mut missing = Vec::new();
    for fault in faults {
        let Fault::Revision { position, stream, expected, found } = fault else { continue };
        // What came next may have moved up.
        if *position < removed || found <= expected {
            continue;
        }
        if let Some(before) = expected.get().checked_sub(1) {
            let from = ReadFrom::Forwards(Revision::new(before));
            let read = StreamRead { stream: stream.as_str().into(), from, select: Select::All, limit: 1 };
            let stands = match log.read_stream(read).await {
                Ok(events) => events
                    .first()
                    .is_some_and(|event| event.revision.get() == before && event.position < removed),
                Err(EventStoreError::Damaged(_)) => false,
                Err(error) => return Err(error),
            };
            if !stands {
                continue;
            }
        }
        missing.push(Missing { stream: stream.clone(), revision: *expected });
    }
    Ok(missing)
}

/// What the log has at some place.
enum Found {
    Event(RecordedEvent),
    End,
    Unreadable(EventStoreError),
}

/// Reads a signed note from a file.
pub fn read_note(path: &Path) -> Result<Note, ProofError> {
    let text = std::fs::read_to_string(path).map_err(ProofError::file(path))?;
    Note::parse(&text)
}
