//! Text output of checkpoints, verifications and proofs.

use std::fmt::Write as _;
use std::path::Path;

use chat_domain::Position;
use chat_operations::audit::event::AuditedEvent;
use chat_operations::backup::{BackupComparison, Manifest};
use chat_operations::counted::counted;
use chat_operations::proof::alteration::{Alteration, EventIdentity};
use chat_operations::proof::checkpoint::Checkpoint;
use chat_operations::proof::event_proof::CheckedProof;
use chat_operations::proof::first_difference::FirstDifference;
use chat_operations::proof::leaves_file::LeavesStatus;
use chat_operations::proof::log_integrity::{Fault, IntegrityReport};
use chat_operations::proof::verify::{MissingEvent, RestoredLog, SignatureStatus, Verdict};
use chat_ports::event_store::RecordedEvent;
use serde_json::{Value, json};

use super::super::terminal_text::escaped;
use super::render;

pub(super) fn checkpoint_text(checkpoint: &Checkpoint, file: &Path) -> String {
    let Checkpoint { log, events, root, position, time, .. } = checkpoint;
    format!(
        "log         {}\nevents      {events}\nposition    {position}\nroot        {root}\ntime        {time}\n\
         checkpoint  {file}\nleaves      {file}.leaves\n",
        log.0,
        file = file.display()
    )
}

pub(super) fn integrity_text(report: &IntegrityReport) -> String {
    let IntegrityReport { events, position, root, streams, faults } = report;
    let verdict = match faults.len() {
        0 => "the log is consistent: positions rise, no stream has a gap, ids are unique".to_owned(),
        1 => "the log is inconsistent: 1 fault".to_owned(),
        count => format!("the log is inconsistent: {count} faults"),
    };
    let mut text = format!(
        "{verdict}\nevents    {events}\nstreams   {streams}\nposition  {position}\nroot      {root}\n"
    );
    write_faults(&mut text, faults);
    text
}

pub(super) fn backup_text(comparison: &BackupComparison) -> String {
    let BackupComparison { manifest, altered_copy, holds_backup, difference, log } = comparison;
    let Manifest { events, position, root, created_at, .. } = manifest;
    let mut text = if *holds_backup {
        format!("the log holds every event of the backup, unaltered up to position {position}\n")
    } else {
        "the log does not hold the events of the backup\n".to_owned()
    };
    // Writing to a string never fails.
    if let Some(FirstDifference { position, copy, log }) = difference {
        let describe =
            |event: &Option<EventIdentity>| event.as_ref().map_or("no event".to_owned(), describe_event);
        let _ = writeln!(
            text,
            "first difference at position {position}\nbackup has {}\nlog has    {}",
            describe(copy),
            describe(log)
        );
    }
    if let Some(altered) = altered_copy {
        let _ = writeln!(text, "the backup itself is not as it was made: {altered}");
    }
    let _ = writeln!(text, "backup     {}, {created_at}\n           root {root}", counted(*events, "event"));
    let _ = writeln!(text, "found      {}\n           root {}", counted(log.events, "event"), log.root);
    write_faults(&mut text, &log.faults);
    text
}

/// The end of a log that is known to end before the last signed event although it was not altered.
#[derive(Clone, Copy)]
pub(super) struct EarlyEnd {
    pub(super) head: Position,
    /// Whether the log is that of a backup. Otherwise the log has lost events.
    pub(super) is_backup: bool,
}

/// Describes a verdict. `early_end` is the end of the log if it is known why that comes before the last signed event.
pub(super) fn verdict_text(verdict: &Verdict, early_end: Option<EarlyEnd>) -> String {
    let Verdict {
        checkpoint,
        signature,
        leaves,
        log,
        same_log,
        restored,
        events,
        root,
        unaltered,
        altered,
        missing,
        faults,
    } = verdict;
    let mut text = String::new();
    // Writing to a string never fails.
    if matches!(signature, SignatureStatus::Wrong | SignatureStatus::ByAnotherKey) {
        let _ = writeln!(text, "the checkpoint can't be trusted; compared with it nevertheless:");
    }
    if *signature == SignatureStatus::NotChecked {
        let _ = writeln!(text, "the checkpoint's signature was not checked; if it is good:");
    }
    let _ = match early_end {
        Some(EarlyEnd { head, is_backup: true }) => {
            writeln!(text, "the backup ends at position {head}, before the last signed event")
        }
        Some(EarlyEnd { head, is_backup: false }) => writeln!(
            text,
            "the log has lost events: it ends at position {head}; see docs/operations/lost-events.md"
        ),
        None => Ok(()),
    };
    let _ = match (unaltered, altered, restored) {
        (false, Some(Alteration::Removed { position }), _)
            if early_end.is_some_and(|end| *position > end.head) =>
        {
            writeln!(text, "the events before event {position}, the first one that is missing, are unaltered")
        }
        (false, None, None) if early_end.is_some() => {
            writeln!(
                text,
                "whether the others were altered is unknown: the leaves that would show it are {}",
                leaves_text(*leaves)
            )
        }
        (true, _, _) => writeln!(text, "the log is unaltered up to position {}", checkpoint.position),
        (false, Some(altered), _) => {
            writeln!(text, "the log was altered: {}{}", alteration_text(altered), describe_gaps(missing))
        }
        (false, None, Some(restored)) => {
            writeln!(text, "the log was restored or its loss accepted: {}", kept_text(restored, *leaves))
        }
        (false, None, None) => {
            writeln!(
                text,
                "the log was altered; the leaves that would show the position are {}",
                leaves_text(*leaves)
            )
        }
    };
    if !same_log {
        let _ = writeln!(text, "this is not the log that was signed: {}", log.0);
    }
    let _ = writeln!(text, "signature  {}", signature_text(*signature));
    let _ = writeln!(text, "leaves     {}", leaves_text(*leaves));
    let _ = writeln!(
        text,
        "signed     {}, {}\n           root {}",
        counted(checkpoint.events, "event"),
        checkpoint.time,
        checkpoint.root
    );
    let _ = writeln!(text, "found      {}\n           root {root}", counted(*events, "event"));
    if let Some(RestoredLog { kept_up_to, at, reason, .. }) = restored {
        let _ = writeln!(text, "restored   after position {kept_up_to}, {at}: {}", escaped(reason));
    }
    write_faults(&mut text, faults);
    text
}

pub(super) fn proof_text(proof: &CheckedProof) -> String {
    let CheckedProof { event, index, checkpoint, signature, included } = proof;
    let RecordedEvent {
        position,
        stream,
        revision,
        id,
        event_type,
        schema_version,
        recorded_at,
        data,
        metadata,
    } = event;
    let verdict = if is_proved(proof) {
        "the event was in the log"
    } else if *included {
        "the event is among those of the checkpoint, but the checkpoint was not signed by this key"
    } else {
        "the proof is wrong: the event is not among those that were signed"
    };
    format!(
        "{verdict}\nsignature  {}\nsigned     {}, {}\n           root {}\nnumber     {}\nposition   {position}\n\
         stream     {}\nrevision   {revision}\ntype       {} (version {})\nid         {}\n\
         recorded   {recorded_at}\npayload    {}\nmetadata   {}\n",
        signature_text(*signature),
        counted(checkpoint.events, "event"),
        checkpoint.time,
        checkpoint.root,
        index + 1,
        render::abbreviated_stream(stream),
        escaped(event_type),
        schema_version.0,
        id.uuid(),
        escaped(&String::from_utf8_lossy(data)),
        escaped(&String::from_utf8_lossy(metadata))
    )
}

pub(super) fn proof_as_json(proof: &CheckedProof) -> Value {
    let CheckedProof { event, index, checkpoint, signature, included } = proof;
    json!({
        "proved": is_proved(proof),
        "included": included,
        "signature": signature,
        "index": index,
        "checkpoint": checkpoint,
        "event": AuditedEvent::from(event),
    })
}

/// Whether the proof shows that the event was in the log.
pub(super) fn is_proved(proof: &CheckedProof) -> bool {
    proof.included && proof.signature == SignatureStatus::Good
}

/// Describes what a restored log kept of the signed events.
fn kept_text(restored: &RestoredLog, leaves: LeavesStatus) -> String {
    let RestoredLog { kept_events, missing_events, kept_unaltered, .. } = restored;
    let signed = kept_events + missing_events;
    let missing = match missing_events {
        1 => "1 is missing".to_owned(),
        count => format!("{count} are missing"),
    };
    match (kept_events, kept_unaltered) {
        (0, _) => format!("none of the {} was kept", counted(signed, "signed event")),
        (kept, Some(_)) => format!("events 1–{kept} of the {signed} signed are unaltered; {missing}"),
        (kept, None) => format!(
            "{kept} of the {signed} signed events were kept and {missing}; the leaves that would show whether the kept \
             ones are unaltered are {}",
            leaves_text(leaves)
        ),
    }
}

fn alteration_text(alteration: &Alteration) -> String {
    match alteration {
        Alteration::Changed { position, now } => {
            format!("event {position} was changed; there is now {}", describe_event(now))
        }
        Alteration::Removed { position } => format!("event {position} was removed"),
        Alteration::Inserted { position, now } => {
            format!("event {position} was inserted: {}", describe_event(now))
        }
        Alteration::Moved { position, now, gone_to } => {
            let mut text = format!("events were reordered, first at position {position}");
            if let Some((event, origin)) = now {
                let _ = write!(text, ", which now has {}, before at {origin}", describe_event(event));
            }
            if let Some(gone_to) = gone_to {
                let _ = write!(text, "; the event that was there is now at {gone_to}");
            }
            text
        }
        Alteration::Unreadable { position, because } => {
            format!("event {position} can't be read any more: {}", escaped(because))
        }
    }
}

/// Names the missing events with which gaps in streams begin. One of them may be the first removed event of the log, but
/// need not be: a removed event leaves no gap if its stream has no later events.
fn describe_gaps(missing: &[MissingEvent]) -> String {
    let describe = |missing: &MissingEvent| {
        format!("revision {} of stream {}", missing.revision, render::abbreviated_stream(&missing.stream))
    };
    match missing {
        [] => String::new(),
        [event] => format!("; it may have been {}, where a gap begins", describe(event)),
        events => {
            let candidates: Vec<String> = events.iter().map(describe).collect();
            format!("; it may have been one of these, where gaps begin: {}", candidates.join(", "))
        }
    }
}

fn describe_event(event: &EventIdentity) -> String {
    let EventIdentity { stream, revision, event_type, id } = event;
    let (event_type, stream) = (escaped(event_type), render::abbreviated_stream(stream));
    format!("{event_type} {} in stream {stream}, revision {revision}", id.uuid())
}

fn signature_text(signature: SignatureStatus) -> &'static str {
    match signature {
        SignatureStatus::Good => "good",
        SignatureStatus::Wrong => "wrong: the checkpoint was changed after it was signed",
        SignatureStatus::ByAnotherKey => "by another key",
        SignatureStatus::NotChecked => "not checked",
    }
}

fn leaves_text(leaves: LeavesStatus) -> &'static str {
    match leaves {
        LeavesStatus::Good => "those of the checkpoint",
        LeavesStatus::Missing => "missing",
        LeavesStatus::Altered => "altered: the file does not belong to the checkpoint",
    }
}

fn write_faults(text: &mut String, faults: &[Fault]) {
    for fault in faults {
        let _ = match fault {
            Fault::Position { position, after } => {
                writeln!(text, "fault      event {position} comes after event {after}")
            }
            Fault::Revision { position, stream, expected, found } => writeln!(
                text,
                "fault      event {position} has revision {found} of stream {}, where {expected} should follow",
                render::abbreviated_stream(stream)
            ),
            Fault::Id { position, id } => {
                writeln!(text, "fault      event {position} has the id of an earlier one, {}", id.uuid())
            }
            Fault::Unreadable { after, because } => {
                writeln!(text, "fault      the event after {after} can't be read: {}", escaped(because))
            }
        };
    }
}
