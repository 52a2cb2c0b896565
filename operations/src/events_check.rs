//! Whether this program can read every event of the log. Touches nothing: to be asked before anything is folded anew.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use chat_domain::event::DecodeError;
use chat_domain::{Event, Metadata, OperatorAction, Position, Revision, StreamId, operator_action};
use chat_ports::event_store::{EventStore, EventStoreError, RecordedEvent};
use chat_projector::dead_letters::DeadLetterReason;
use serde::Serialize;
use utoipa::ToSchema;

use crate::envelope;

/// Events that are read at once, at most.
const PAGE_EVENTS: usize = 1_024;
/// Streams whose ends are remembered, to see that nothing is missing in them. Of more of them, some are not checked for
/// that.
const MAX_TRACKED_STREAMS: usize = 65_536;
/// Types that are counted each for itself.
const MAX_COUNTED_TYPES: usize = 256;
/// Types beyond these.
const OTHER_TYPES: &str = "(others)";

/// What to check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckOptions {
    /// Events after this position.
    pub after: Position,
    /// Findings that are listed; the others are counted.
    pub max_findings: usize,
    /// About how many events to read at most.
    pub max_events: u64,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = EventsCheck)]
pub struct EventsCheck {
    /// Up to where the log was read: its end when the check began, unless that was too far.
    #[schema(value_type = u64)]
    pub position: Position,
    /// Events that were read.
    pub events: u64,
    /// How many of each type.
    #[schema(value_type = Object)]
    pub types: BTreeMap<String, u64>,
    /// How many findings there are, by problem.
    #[schema(value_type = Object)]
    pub problems: BTreeMap<EventProblem, u64>,
    /// The first of them.
    pub findings: Vec<EventFinding>,
}

/// Something that is not as this program would have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = EventFinding)]
pub struct EventFinding {
    /// The event's place in the log.
    #[schema(value_type = u64)]
    pub position: Position,
    /// What is wrong.
    pub problem: EventProblem,
    /// The same as a sentence, which quotes nothing of the payload.
    pub detail: String,
    /// The event's stream.
    pub stream: String,
    /// Its place in the stream.
    #[schema(value_type = u64)]
    pub revision: Revision,
    /// Its type.
    pub event_type: String,
    /// The version of its payload's shape.
    pub schema_version: u32,
}

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = EventProblem)]
pub enum EventProblem {
    /// The stream is neither an app's nor a chat's nor the operators'.
    UnknownStream,
    /// No event has this type.
    UnknownType,
    /// A newer program wrote it.
    UnknownVersion,
    /// The payload is not what its version says.
    BrokenPayload,
    /// The circumstances can't be read.
    BrokenMetadata,
    /// Revisions are missing before it in its stream.
    Gap,
}

impl EventProblem {
    /// As answers show it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownStream => "unknown_stream",
            Self::UnknownType => "unknown_type",
            Self::UnknownVersion => "unknown_version",
            Self::BrokenPayload => "broken_payload",
            Self::BrokenMetadata => "broken_metadata",
            Self::Gap => "gap",
        }
    }
}

impl envelope::Report for EventsCheck {
    fn has_findings(&self) -> bool {
        self.finding_count() > 0
    }
}

impl EventsCheck {
    /// How many findings there are.
    pub fn finding_count(&self) -> u64 {
        self.problems.values().sum()
    }
}

/// Reads the log from after a position, to its end at most. `progress` is told now and then how many events were read.
pub async fn check(
    log: &dyn EventStore,
    options: CheckOptions,
    mut progress: impl FnMut(u64),
) -> Result<EventsCheck, EventStoreError> {
    let head = log.head().await?;
    let mut checked = EventsCheck { position: options.after, ..EventsCheck::default() };
    let mut ends = NextRevisions { from_start: options.after == Position::START, revisions: HashMap::new() };
    loop {
        let events = log.read_all(checked.position, PAGE_EVENTS).await?;
        let events: Vec<_> = events.into_iter().filter(|event| event.position <= head).collect();
        let Some(last) = events.last() else {
            checked.position = checked.position.max(head);
            return Ok(checked);
        };
        checked.position = last.position;
        for event in &events {
            checked.count(event);
            let problems = [decoding_problem(event), metadata_problem(event), ends.gap_before(event)];
            for (problem, detail) in problems.into_iter().flatten() {
                checked.report(options.max_findings, event, problem, detail);
            }
        }
        progress(checked.events);
        if checked.events >= options.max_events {
            return Ok(checked);
        }
    }
}

impl EventsCheck {
    fn count(&mut self, event: &RecordedEvent) {
        self.events += 1;
        if let Some(count) = self.types.get_mut(&event.event_type) {
            *count += 1;
            return;
        }
        let name = if self.types.len() < MAX_COUNTED_TYPES { event.event_type.as_str() } else { OTHER_TYPES };
        *self.types.entry(name.to_owned()).or_default() += 1;
    }

    fn report(&mut self, limit: usize, event: &RecordedEvent, problem: EventProblem, detail: String) {
        *self.problems.entry(problem).or_default() += 1;
        if self.findings.len() < limit {
            self.findings.push(EventFinding {
                position: event.position,
                problem,
                detail,
                stream: event.stream.to_string(),
                revision: event.revision,
                event_type: event.event_type.clone(),
                schema_version: event.schema_version.0,
            });
        }
    }
}

/// What keeps this program from reading an event.
fn decoding_problem(event: &RecordedEvent) -> Option<(EventProblem, String)> {
    let RecordedEvent { event_type, schema_version, data, .. } = event;
    let error = if *event.stream == *operator_action::STREAM {
        OperatorAction::decode(event_type, *schema_version, data).err()
    } else if StreamId::parse(&event.stream).is_err() {
        return Some((EventProblem::UnknownStream, DeadLetterReason::UNKNOWN_STREAM.as_str().to_owned()));
    } else {
        Event::decode(event_type, *schema_version, data).err()
    }?;
    let problem = match &error {
        DecodeError::UnknownType => EventProblem::UnknownType,
        DecodeError::UnknownVersion(_) => EventProblem::UnknownVersion,
        DecodeError::InvalidPayload(_) => EventProblem::BrokenPayload,
    };
    Some((problem, DeadLetterReason::from(&error).as_str().to_owned()))
}

fn metadata_problem(event: &RecordedEvent) -> Option<(EventProblem, String)> {
    let error = serde_json::from_slice::<Metadata>(&event.metadata).err()?;
    // What serde says may quote it.
    let place = format!("its metadata can't be read (line {}, column {})", error.line(), error.column());
    Some((EventProblem::BrokenMetadata, place))
}

/// The next revisions of streams.
struct NextRevisions {
    /// Whether a stream that is not among them starts here.
    from_start: bool,
    revisions: HashMap<Arc<str>, Revision>,
}

impl NextRevisions {
    fn gap_before(&mut self, event: &RecordedEvent) -> Option<(EventProblem, String)> {
        let next = event.revision.next();
        let expected = if let Some(expected) = self.revisions.get_mut(&event.stream) {
            std::mem::replace(expected, next)
        } else {
            if self.revisions.len() >= MAX_TRACKED_STREAMS {
                self.revisions.clear();
                self.from_start = false;
            }
            self.revisions.insert(Arc::clone(&event.stream), next);
            self.from_start.then_some(Revision::FIRST)?
        };
        let (found, expected) = (event.revision.get(), expected.get());
        (found != expected).then(|| {
            (EventProblem::Gap, DeadLetterReason::unexpected_revision(found, expected).as_str().to_owned())
        })
    }
}
