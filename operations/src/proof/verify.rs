//! Creates checkpoints, and verifies the log against them.

use std::io::Write as _;
use std::path::Path;

use chat_domain::{OperatorAction, Position, Revision, Timestamp, operator_action};
use chat_ports::clock;
use chat_ports::event_store::{
    EventStore, EventStoreError, LogId, LogMismatch, ReadStart, RecordedEvent, StreamRead,
};
use serde::{Serialize, Serializer};

use super::alteration::{Alteration, EventIdentity};
use super::checkpoint::Checkpoint;
use super::key::{SigningKey, VerifyingKey};
use super::leaves_file::{self, LeafRecord, LeavesReader, LeavesStatus, LeavesWriter};
use super::log_integrity::{self, Fault};
use super::log_walk::LogWalk;
use super::note::{Note, SignatureCheck};
use super::tree::{Frontier, Hash};
use super::{ProgressCallback, ProofError, leaf};
use crate::atomic_file::{FileAccess, NewFile};
use crate::audit::LogPoint;
use crate::operator_actions::{self, LogClosed, Operator, OperatorActionError};

/// Why a checkpoint could not be created.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The log, a file or the key failed.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// The log takes no appends, so the use of the key can't be recorded.
    #[error(transparent)]
    LogClosed(#[from] LogClosed),
    /// The use of the key could not be recorded.
    #[error("the use of the key can't be recorded, so no checkpoint was written")]
    OperatorAction(#[from] OperatorActionError),
}

/// Signs the content of the log up to a point, or to the head, and writes the checkpoint and its leaves file.
///
/// An event records the use of the key before the files appear. This event comes after the signed events, so the
/// checkpoint does not cover it. `signed_by` is the operator with the reason for the signature.
pub async fn make_checkpoint(
    log: &dyn EventStore,
    until: Option<LogPoint>,
    key: &SigningKey,
    out: &Path,
    signed_by: (&Operator, &str),
    on_progress: ProgressCallback<'_>,
) -> Result<Checkpoint, CheckpointError> {
    operator_actions::ensure_takes_appends(log)?;
    let (operator, reason) = signed_by;
    let leaves_path = leaves_file::leaves_path(out);
    let mut file = NewFile::create(out, FileAccess::UmaskDefault).map_err(ProofError::file_error(out))?;
    let leaves = NewFile::create(&leaves_path, FileAccess::UmaskDefault)
        .map_err(ProofError::file_error(&leaves_path))?;
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
        let leaf = LeafRecord { position, hash: leaf::hash(&event) };
        leaves.push(leaf).map_err(ProofError::file_error(&leaves_path))?;
        tree.push(leaf.hash);
        on_progress(tree.leaf_count());
    }
    let (leaves, hash) = leaves.finish();
    let (events, root) = (tree.leaf_count(), tree.root());
    let checkpoint = Checkpoint { log: id, events, root, position, time: clock::now(), leaves: hash };
    let note = Note::sign(checkpoint.to_string(), key);
    let action = operator_action::SigningKeyUsed {
        key: format!("{}+{}", key.name(), key.verifying_key().id(key.name())),
        position,
        events,
        root: root.to_string(),
        reason: reason.to_owned(),
    };
    operator_actions::record_action(log, operator, &OperatorAction::from(action)).await?;
    leaves.persist().map_err(ProofError::file_error(&leaves_path))?;
    file.write_all(note.to_string().as_bytes()).map_err(ProofError::file_error(out))?;
    file.persist().map_err(ProofError::file_error(out))?;
    Ok(checkpoint)
}

/// The status of the signature of a checkpoint, checked with the key that the caller gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SignatureStatus {
    /// The key signed the checkpoint.
    Good,
    /// A signature names the key, but the key did not make it.
    Wrong,
    /// No signature names the key.
    ByAnotherKey,
    /// No key was given.
    NotChecked,
}

/// The result of verifying a log against a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// The status of its signature.
    pub signature: SignatureStatus,
    /// The status of its leaves file.
    pub leaves: LeavesStatus,
    /// The id of this log.
    pub log: LogId,
    /// Whether the checkpoint belongs to this log, to an earlier incarnation of it, or to a log that this log
    /// replaces. Always `true` for a checkpoint without events.
    pub same_log: bool,
    /// Set if this log gave up signed events: it was restored to an earlier state, or went on after a loss that an
    /// operator accepted. Then only the events that it kept are compared with the checkpoint.
    pub restored: Option<RestoredLog>,
    /// The number of events in this log up to the checkpoint's position; in a restored log, up to
    /// [`RestoredLog::kept_up_to`]. Events after one that can't be read are not counted.
    pub events: u64,
    /// The root of the tree of these events.
    pub root: Hash,
    /// Whether the number of events and the root are equal to those in the checkpoint.
    pub unaltered: bool,
    /// The first alteration, if the leaves file allows finding it.
    pub altered: Option<Alteration>,
    /// The events that may have been removed, if the first alteration is a removal; otherwise empty. Has the first
    /// missing revision of each stream with a gap around the position of the removal. The removal of the last events
    /// of a stream leaves no gap.
    pub missing: Vec<MissingEvent>,
    /// The faults that an integrity check without the checkpoint finds, if `unaltered` is `false`.
    pub faults: Vec<Fault>,
}

/// The events of a checkpoint that a log kept after a restore or an accepted loss.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RestoredLog {
    /// The position up to which events were kept.
    pub kept_up_to: Position,
    /// The number of signed events that were kept.
    pub kept_events: u64,
    /// The number of signed events that were not kept.
    pub missing_events: u64,
    /// Whether the kept events are unaltered. `None` without a leaves file that matches the checkpoint, because the
    /// checkpoint itself has only one hash for all signed events.
    pub kept_unaltered: Option<bool>,
    /// When an operator restored the log or accepted the loss.
    #[serde(serialize_with = "as_text")]
    pub at: Timestamp,
    /// The operator's reason.
    pub reason: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
fn as_text<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

/// The first missing revision of a gap in a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MissingEvent {
    /// The stream.
    pub stream: String,
    /// The first missing revision.
    pub revision: Revision,
}

impl Verdict {
    /// Whether [`Self::matches_checkpoint`] holds, and the signature was checked and is valid.
    pub fn is_valid(&self) -> bool {
        self.signature == SignatureStatus::Good && self.matches_checkpoint()
    }

    /// Whether the log and the leaves file, if it exists, match the checkpoint, regardless of the signature.
    pub fn matches_checkpoint(&self) -> bool {
        self.unaltered && self.leaves != LeavesStatus::Altered && self.same_log
    }
}

/// Checks the signature of a note.
pub fn signature_status(note: &Note, key: Option<&VerifyingKey>) -> SignatureStatus {
    match key.map(|key| note.check_signature(key)) {
        None => SignatureStatus::NotChecked,
        Some(SignatureCheck::Valid) => SignatureStatus::Good,
        Some(SignatureCheck::Invalid) => SignatureStatus::Wrong,
        Some(SignatureCheck::NotByKey) => SignatureStatus::ByAnotherKey,
    }
}

/// Verifies a log against the checkpoint in the file `path`, and the leaves file beside it.
pub async fn verify(
    log: &dyn EventStore,
    path: &Path,
    key: Option<&VerifyingKey>,
    on_progress: ProgressCallback<'_>,
) -> Result<Verdict, ProofError> {
    let note = read_note(path)?;
    let checkpoint = Checkpoint::parse(note.text())?;
    let leaves_path = leaves_file::leaves_path(path);
    let leaves_status = LeavesReader::check(&leaves_path, &checkpoint)?;
    let mut leaves = match leaves_status {
        LeavesStatus::Good => Some(LeavesReader::open(&leaves_path)?),
        LeavesStatus::Missing | LeavesStatus::Altered => None,
    };
    let lineage = log.lineage().await?;
    let given_up = lineage.given_up_by(checkpoint.log, checkpoint.position);
    // A restored log has other events after those that it kept.
    let end = given_up.map_or(checkpoint.position, |(_, kept_up_to)| kept_up_to);
    let mut tree = Frontier::default();
    // The first leaf that the log does not match, and the step of the walk at that leaf.
    let mut divergence: Option<(LeafRecord, WalkStep)> = None;
    // The insertion of an event after the leaves: the log matches all leaves up to `end`, and has another event.
    let mut added: Option<Alteration> = None;
    let mut walk = LogWalk::new(log, Some(end));
    loop {
        let step = match walk.next_event().await {
            Ok(Some(event)) => WalkStep::Event(event),
            Ok(None) => WalkStep::End,
            Err(error @ EventStoreError::Damaged(_)) => WalkStep::Unreadable(error),
            Err(error) => return Err(error.into()),
        };
        let hash = match &step {
            WalkStep::Event(event) => Some(leaf::hash(event)),
            WalkStep::End | WalkStep::Unreadable(_) => None,
        };
        if divergence.is_none()
            && added.is_none()
            && let Some(leaves) = &mut leaves
        {
            match leaves.read()?.filter(|leaf| leaf.position <= end) {
                Some(leaf) if hash != Some(leaf.hash) => divergence = Some((leaf, step)),
                None => added = step.into_insertion(),
                Some(_) => {}
            }
        }
        let Some(hash) = hash else { break };
        tree.push(hash);
        on_progress(tree.leaf_count());
    }
    let (events, root) = (tree.leaf_count(), tree.root());
    let unaltered = (events, root) == (checkpoint.events, checkpoint.root);
    let altered = match divergence {
        None => added,
        Some((expected, WalkStep::Unreadable(error))) => {
            Some(Alteration::unreadable(expected.position, &error))
        }
        Some((expected, WalkStep::End)) => {
            Some(Alteration::classify(log, &leaves_path, expected, None).await?)
        }
        Some((expected, WalkStep::Event(event))) => {
            Some(Alteration::classify(log, &leaves_path, expected, Some(event)).await?)
        }
    };
    let faults =
        if unaltered { Vec::new() } else { log_integrity::check(log, None, &mut |_| ()).await?.faults };
    let missing = match &altered {
        Some(Alteration::Removed { position }) => find_missing(log, *position, &faults).await?,
        _ => Vec::new(),
    };
    let restored = given_up.map(|(incarnation, kept_up_to)| RestoredLog {
        kept_up_to,
        kept_events: events,
        missing_events: checkpoint.events.saturating_sub(events),
        kept_unaltered: (leaves_status == LeavesStatus::Good).then_some(altered.is_none()),
        at: incarnation.began_at,
        reason: incarnation.reason.clone(),
    });
    // The checkpoint's position stands in for the head: a log that ends before that position is still the same log,
    // and is reported as altered.
    let lineage_check = lineage.check(checkpoint.log, checkpoint.position, checkpoint.position);
    Ok(Verdict {
        same_log: !matches!(lineage_check, Err(LogMismatch::OtherLog { .. })),
        restored,
        log: lineage.current(),
        signature: signature_status(&note, key),
        leaves: leaves_status,
        events,
        root,
        unaltered,
        altered,
        missing,
        faults,
        checkpoint,
    })
}

/// Finds the gaps in the revisions of streams around the position of a removed event. A gap counts if the stream's
/// event before the gap has a lower position than the removed event, and the event after the gap has the same position
/// or a higher one.
async fn find_missing(
    log: &dyn EventStore,
    removed: Position,
    faults: &[Fault],
) -> Result<Vec<MissingEvent>, EventStoreError> {
    let mut missing = Vec::new();
    for fault in faults {
        let Fault::Revision { position, stream, expected, found } = fault else { continue };
        // Not `<=`: the event after the gap may now have the position of the removed event.
        if *position < removed || found <= expected {
            continue;
        }
        if let Some(before) = expected.get().checked_sub(1) {
            let start = ReadStart::Forwards(Revision::new(before));
            let read = StreamRead::all(stream.as_str(), start, 1);
            let precedes = match log.read_stream(read).await {
                Ok(events) => events
                    .first()
                    .is_some_and(|event| event.revision.get() == before && event.position < removed),
                Err(EventStoreError::Damaged(_) | EventStoreError::StreamTruncated(_)) => false,
                Err(error) => return Err(error),
            };
            if !precedes {
                continue;
            }
        }
        missing.push(MissingEvent { stream: stream.clone(), revision: *expected });
    }
    Ok(missing)
}

/// The next step of a walk over the log.
enum WalkStep {
    Event(RecordedEvent),
    End,
    Unreadable(EventStoreError),
}

impl WalkStep {
    /// Interprets a step at which the log should have ended: an event there was inserted.
    fn into_insertion(self) -> Option<Alteration> {
        match self {
            Self::Event(event) => {
                let position = event.position;
                Some(Alteration::Inserted { position, now: EventIdentity::from_event(&event) })
            }
            Self::End | Self::Unreadable(_) => None,
        }
    }
}

/// Reads a signed note from a file.
pub fn read_note(path: &Path) -> Result<Note, ProofError> {
    let text = std::fs::read_to_string(path).map_err(ProofError::file_error(path))?;
    Note::parse(&text)
}
