//! What proofs and checks come to, as lines for people.

use std::fmt::Write as _;
use std::path::Path;

use chat_infra::event_store::RecordedEvent;
use chat_operations::proof::alteration::{Alteration, Stands};
use chat_operations::proof::bundle::Shown;
use chat_operations::proof::checkpoint::Checkpoint;
use chat_operations::proof::leaves::Standing;
use chat_operations::proof::structure::{Fault, Structure};
use chat_operations::proof::verify::{Signature, Verdict};
use serde_json::{Value, json};

pub(super) fn checkpoint(checkpoint: &Checkpoint, file: &Path) -> String {
    let Checkpoint { log, events, root, position, time, .. } = checkpoint;
    format!(
        "log         {}\nevents      {events}\nposition    {position}\nroot        {root}\ntime        {time}\n\
         checkpoint  {file}\nleaves      {file}.leaves\n",
        log.0,
        file = file.display()
    )
}

pub(super) fn structure(found: &Structure) -> String {
    let Structure { events, position, root, streams, faults } = found;
    let verdict = match faults.len() {
        0 => "the log holds together: positions rise, no stream has a gap, ids are unique".to_owned(),
        1 => "the log does not hold together: 1 fault".to_owned(),
        more => format!("the log does not hold together: {more} faults"),
    };
    let mut text = format!(
        "{verdict}\nevents    {events}\nstreams   {streams}\nposition  {position}\nroot      {root}\n"
    );
    write_faults(&mut text, faults);
    text
}

pub(super) fn verdict(verdict: &Verdict) -> String {
    let Verdict { checkpoint, signature, leaves, log, events, root, unaltered, altered, faults } = verdict;
    let mut text = String::new();
    // Writing to a string never fails.
    let _ = match (unaltered, altered) {
        (true, _) => writeln!(text, "the log is unaltered up to position {}", checkpoint.position),
        (false, Some(altered)) => writeln!(text, "the log was altered: {}", alteration(altered)),
        (false, None) => {
            writeln!(text, "the log was altered; the leaves that would tell where are {}", standing(*leaves))
        }
    };
    if *log != checkpoint.log {
        let _ = writeln!(text, "this is another log than the one that was signed: {}", log.0);
    }
    let _ = writeln!(text, "signature  {}", signature_text(*signature));
    let _ = writeln!(text, "leaves     {}", standing(*leaves));
    let _ = writeln!(
        text,
        "signed     {} events, root {}, {}",
        checkpoint.events, checkpoint.root, checkpoint.time
    );
    let _ = writeln!(text, "found      {events} events, root {root}");
    write_faults(&mut text, faults);
    text
}

pub(super) fn shown(shown: &Shown) -> String {
    let Shown { event, index, checkpoint, signature, included } = shown;
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
    let verdict = if proves(shown) {
        "the event was in the log"
    } else if *included {
        "the event is among those of the checkpoint, but it was not the key's owner who signed that"
    } else {
        "the proof is wrong: the event is not among those that were signed"
    };
    format!(
        "{verdict}\nsignature  {}\nsigned     {} events, root {}, {}\nnumber     {}\nposition   {position}\n\
         stream     {stream}\nrevision   {revision}\ntype       {event_type} (version {})\nid         {}\n\
         recorded   {recorded_at}\npayload    {}\nmetadata   {}\n",
        signature_text(*signature),
        checkpoint.events,
        checkpoint.root,
        checkpoint.time,
        index + 1,
        schema_version.0,
        id.uuid(),
        String::from_utf8_lossy(data),
        String::from_utf8_lossy(metadata)
    )
}

pub(super) fn shown_as_json(shown: &Shown) -> Value {
    let Shown { event, index, checkpoint, signature, included } = shown;
    // What is no JSON is shown as text.
    let parsed = |bytes: &[u8]| {
        serde_json::from_slice(bytes).unwrap_or_else(|_| Value::from(String::from_utf8_lossy(bytes)))
    };
    json!({
        "proved": proves(shown),
        "included": included,
        "signature": signature,
        "index": index,
        "checkpoint": checkpoint,
        "event": {
            "position": event.position,
            "stream": &*event.stream,
            "revision": event.revision,
            "id": event.id,
            "type": event.event_type,
            "schema_version": event.schema_version,
            "recorded_at": event.recorded_at.to_string(),
            "data": parsed(&event.data),
            "metadata": parsed(&event.metadata),
        },
    })
}

/// Whether a proof shows that the event was there, as far as it could be checked.
pub(super) fn proves(shown: &Shown) -> bool {
    shown.included && matches!(shown.signature, Signature::Good | Signature::NotChecked)
}

fn alteration(alteration: &Alteration) -> String {
    match alteration {
        Alteration::Changed { position, now } => {
            format!("event {position} was changed; there is now {}", stands(now))
        }
        Alteration::Removed { position } => format!("event {position} was removed"),
        Alteration::Inserted { position, now } => {
            format!("event {position} was inserted: {}", stands(now))
        }
        Alteration::Moved { position, now, gone_to } => {
            let mut text = format!("events were reordered, first at position {position}");
            if let Some((now, origin)) = now {
                let _ = write!(text, ", where there is now {}, which stood at {origin}", stands(now));
            }
            if let Some(gone_to) = gone_to {
                let _ = write!(text, "; what stood there is at {gone_to}");
            }
            text
        }
        Alteration::Unreadable { position, because } => {
            format!("event {position} can't be read any more: {because}")
        }
    }
}

fn stands(now: &Stands) -> String {
    let Stands { stream, revision, event_type, id } = now;
    format!("{event_type} {} in stream {stream}, revision {revision}", id.uuid())
}

fn signature_text(signature: Signature) -> &'static str {
    match signature {
        Signature::Good => "good",
        Signature::Wrong => "wrong: the checkpoint is not what the key signed",
        Signature::ByAnotherKey => "by another key",
        Signature::NotChecked => "not checked",
    }
}

fn standing(leaves: Standing) -> &'static str {
    match leaves {
        Standing::Good => "those of the checkpoint",
        Standing::Missing => "missing",
        Standing::Altered => "altered: the file is not the one that the checkpoint was made with",
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
                "fault      event {position} has revision {found} of stream {stream}, where {expected} should follow"
            ),
            Fault::Id { position, id } => {
                writeln!(text, "fault      event {position} has the id of an earlier one, {}", id.uuid())
            }
            Fault::Unreadable { after, because } => {
                writeln!(text, "fault      the event after {after} can't be read: {because}")
            }
        };
    }
}
