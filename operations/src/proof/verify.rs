//! Making checkpoints, and checking the log against them.

use std::io::Write as _;
use std::path::Path;

use chat_domain::{OperatorAction, Position, Revision, operator_action};
use chat_ports::clock;
use chat_ports::event_store::{
    EventStore, EventStoreError, EventTypeFilter, LogId, ReadStart, RecordedEvent, StreamRead,
};
use serde::Serialize;

use super::alteration::Alteration;
use super::checkpoint::Checkpoint;
use super::key::{SigningKey, VerifyingKey};
use super::leaves_file::{self, Leaf, LeavesReader, LeavesStatus, LeavesWriter};
use super::log_integrity::{self, Fault};
use super::log_walk::LogWalk;
use super::note::{Note, SignatureCheck};
use super::tree::{Frontier, Hash};
use super::{ProgressCallback, ProofError, leaf};
use crate::atomic_file::{FileAccess, NewFile};
use crate::audit::LogPoint;
use crate::operator_actions::{self, Operator, OperatorActionError};

/// Why no checkpoint was made.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// It could not be made.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// The use of the key could not be recorded.
    #[error("the use of the key can't be recorded, so nothing was signed")]
    OperatorAction(#[from] OperatorActionError),
}

/// Signs what the log holds up to a point, or to its end, and writes the checkpoint and its leaves. That the key was used is recorded before either
/// is there, behind what was signed.
pub async fn make_checkpoint(
    log: &dyn EventStore,
    until: Option<LogPoint>,
    key: &SigningKey,
    out: &Path,
    signed_by: (&Operator, &str),
    on_progress: ProgressCallback<'_>,
) -> Result<Checkpoint, CheckpointError> {
    let beside = leaves_file::leaves_path(out);
    let mut file = NewFile::create(out, FileAccess::UmaskDefault).map_err(ProofError::file_error(out))?;
    let leaves =
        NewFile::create(&beside, FileAccess::UmaskDefault).map_err(ProofError::file_error(&beside))?;
    let mut leaves = LeavesWriter::new(leaves);
    let id = log.log_id().await.map_err(ProofError::from)?;
    let end = match until {
        Some(point) => point.resolve(log).await.map_err(ProofError::from)?,
        None => log.head().await.map_err(ProofError::from)?,
    };
    let (mut tree, mut walk) = (Frontier::default(), LogWalk::new(log, Some(end)));
    let mut position = Position::START;
    while let Some(event) = walk.next_event().await.map_err(ProofError::from)? {
        position = event.position;
        let leaf = Leaf { position, hash: leaf::hash(&event) };
        leaves.push(leaf).map_err(ProofError::file_error(&beside))?;
        tree.push(leaf.hash);
        on_progress(tree.leaves());
    }
    let (leaves, hash) = leaves.finish();
    let (events, root) = (tree.leaves(), tree.root());
    let checkpoint = Checkpoint { log: id, events, root, position, time: clock::now(), leaves: hash };
    let note = Note::sign(checkpoint.to_string(), key);
    let used = operator_action::SigningKeyUsed {
        key: format!("{}+{}", key.name(), key.verifying_key().id(key.name())),
        position,
        events,
        root: root.to_string(),
        reason: signed_by.1.to_owned(),
    };
    operator_actions::record_action(log, signed_by.0, &OperatorAction::from(used)).await?;
    leaves.persist().map_err(ProofError::file_error(&beside))?;
    file.write_all(note.to_string().as_bytes()).map_err(ProofError::file_error(out))?;
    file.persist().map_err(ProofError::file_error(out))?;
    Ok(checkpoint)
}

/// What can be said of a checkpoint's signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SignatureStatus {
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
    pub signature: SignatureStatus,
    /// Whether there are leaves to compare with.
    pub leaves: LeavesStatus,
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
    pub missing: Vec<MissingEvent>,
    /// What the log lacks by itself, where it was altered.
    pub faults: Vec<Fault>,
}

/// A place in a stream that nothing stands in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MissingEvent {
    /// The stream.
    pub stream: String,
    /// The revision that it lacks.
    pub revision: Revision,
}

impl Verdict {
    /// Whether all of it is as it should be, and the key's owner signed that.
    pub fn is_valid(&self) -> bool {
        self.signature == SignatureStatus::Good && self.matches_checkpoint()
    }

    /// Whether the log is what the checkpoint says, whoever wrote that.
    pub fn matches_checkpoint(&self) -> bool {
        self.unaltered && self.leaves != LeavesStatus::Altered && self.log == self.checkpoint.log
    }
}

/// Whether a note was signed by a key.
pub fn signature_status(note: &Note, key: Option<&VerifyingKey>) -> SignatureStatus {
    match key.map(|key| note.check_signature(key)) {
        None => SignatureStatus::NotChecked,
        Some(SignatureCheck::Valid) => SignatureStatus::Good,
        Some(SignatureCheck::Invalid) => SignatureStatus::Wrong,
        Some(SignatureCheck::NotByKey) => SignatureStatus::ByAnotherKey,
    }
}

/// Compares a log with what was signed about it: the checkpoint in the file `path`, and the leaves beside it.
pub async fn verify(
    log: &dyn EventStore,
    path: &Path,
    key: Option<&VerifyingKey>,
    on_progress: ProgressCallback<'_>,
) -> Result<Verdict, ProofError> {
    let note = read_note(path)?;
    let checkpoint = Checkpoint::parse(note.text())?;
    let beside = leaves_file::leaves_path(path);
    let standing = LeavesReader::check(&beside, &checkpoint)?;
    let mut leaves = match standing {
        LeavesStatus::Good => Some(LeavesReader::open(&beside)?),
        LeavesStatus::Missing | LeavesStatus::Altered => None,
    };
    let mut tree = Frontier::default();
    // Where leaves and log part: what was there, and what is.
    let mut divergence: Option<(Leaf, WalkStep)> = None;
    let mut walk = LogWalk::new(log, Some(checkpoint.position));
    loop {
        let found = match walk.next_event().await {
            Ok(Some(event)) => WalkStep::Event(event),
            Ok(None) => WalkStep::End,
            Err(error @ EventStoreError::Damaged(_)) => WalkStep::Unreadable(error),
            Err(error) => return Err(error.into()),
        };
        let hash = match &found {
            WalkStep::Event(event) => Some(leaf::hash(event)),
            WalkStep::End | WalkStep::Unreadable(_) => None,
        };
        if divergence.is_none()
            && let Some(leaves) = &mut leaves
            && let Some(leaf) = leaves.read()?
            && hash != Some(leaf.hash)
        {
            divergence = Some((leaf, found));
        }
        let Some(hash) = hash else { break };
        tree.push(hash);
        on_progress(tree.leaves());
    }
    let (events, root) = (tree.leaves(), tree.root());
    let unaltered = (events, root) == (checkpoint.events, checkpoint.root);
    let altered = match divergence {
        None => None,
        Some((was, WalkStep::Unreadable(error))) => Some(Alteration::unreadable(was.position, &error)),
        Some((was, WalkStep::End)) => Some(Alteration::classify(log, &beside, was, None).await?),
        Some((was, WalkStep::Event(event))) => {
            Some(Alteration::classify(log, &beside, was, Some(event)).await?)
        }
    };
    let faults =
        if unaltered { Vec::new() } else { log_integrity::check(log, None, &mut |_| ()).await?.faults };
    let missing = match &altered {
        Some(Alteration::Removed { position }) => find_missing(log, *position, &faults).await?,
        _ => Vec::new(),
    };
    Ok(Verdict {
        signature: signature_status(&note, key),
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
async fn find_missing(
    log: &dyn EventStore,
    removed: Position,
    faults: &[Fault],
) -> Result<Vec<MissingEvent>, EventStoreError> {
    let mut missing = Vec::new();
    for fault in faults {
        let Fault::Revision { position, stream, expected, found } = fault else { continue };
        // What came next may have moved up.
        if *position < removed || found <= expected {
            continue;
        }
        if let Some(before) = expected.get().checked_sub(1) {
            let from = ReadStart::Forwards(Revision::new(before));
            let read = StreamRead {
                stream: stream.as_str().into(),
                start: from,
                filter: EventTypeFilter::All,
                limit: 1,
            };
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
        missing.push(MissingEvent { stream: stream.clone(), revision: *expected });
    }
    Ok(missing)
}

/// What the log has at some place.
enum WalkStep {
    Event(RecordedEvent),
    End,
    Unreadable(EventStoreError),
}

/// Reads a signed note from a file.
pub fn read_note(path: &Path) -> Result<Note, ProofError> {
    let text = std::fs::read_to_string(path).map_err(ProofError::file_error(path))?;
    Note::parse(&text)
}
