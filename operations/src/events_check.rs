//! Checks that this program can decode every event of the log. Read-only; useful before a rebuild.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use chat_domain::event::DecodeError;
use chat_domain::{Event, Metadata, OperatorAction, Position, Revision, StreamId, operator_action};
use chat_ports::event_store::{EventStore, EventStoreError, RecordedEvent};
use chat_projector::dead_letters::DeadLetterReason;
use serde::Serialize;
use utoipa::ToSchema;

use crate::envelope;

/// The most events per read.
const PAGE_EVENTS: usize = 1_024;
/// Streams whose next revision is tracked to detect gaps. In a log with more streams, some gaps are not detected.
const MAX_TRACKED_STREAMS: usize = 65_536;
/// Event types that are counted individually.
const MAX_COUNTED_TYPES: usize = 256;
/// The name under which all further types are counted.
const OTHER_TYPES: &str = "(others)";

/// Options of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckOptions {
    /// Checks events after this position.
    pub after: Position,
    /// The most findings that are listed. All are counted.
    pub max_findings: usize,
    /// The approximate number of events after which the check ends.
    pub max_events: u64,
}

/// The result of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = EventsCheck)]
pub struct EventsCheck {
    /// The position up to which the log was checked: its head when the check began, unless the limit was reached before.
    #[schema(value_type = u64)]
    pub position: Position,
    /// The number of events that were checked.
    pub events: u64,
    /// The number of events by type.
    #[schema(value_type = Object)]
    pub types: BTreeMap<String, u64>,
    /// The number of findings by problem.
    #[schema(value_type = Object)]
    pub problems: BTreeMap<EventProblem, u64>,
    /// The first findings.
    pub findings: Vec<EventFinding>,
}

/// A problem with one event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = EventFinding)]
pub struct EventFinding {
    /// The event's position in the log.
    #[schema(value_type = u64)]
    pub position: Position,
    /// The kind of problem.
    pub problem: EventProblem,
    /// A description, which does not quote the payload.
    pub detail: String,
    /// The event's stream.
    pub stream: String,
    /// Its revision in the stream.
    #[schema(value_type = u64)]
    pub revision: Revision,
    /// Its type.
    pub event_type: String,
    /// The schema version of its payload.
    pub schema_version: u32,
}

/// Kinds of problems.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = EventProblem)]
pub enum EventProblem {
    /// The stream does not belong to an app, a chat or the operators.
    UnknownStream,
    /// The event type is unknown.
    UnknownType,
    /// The schema version is unknown, so a newer program wrote the event.
    UnknownVersion,
    /// The payload does not match its schema version.
    BrokenPayload,
    /// The metadata can't be parsed.
    BrokenMetadata,
    /// Revisions are missing before the event in its stream.
    Gap,
}

impl EventProblem {
    /// The name of the problem in reports.
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
    /// The number of findings.
    pub fn finding_count(&self) -> u64 {
        self.problems.values().sum()
    }
}

/// Checks the log from a position up to its head. `on_progress` receives the number of events checked so far.
pub async fn check(
    log: &dyn EventStore,
    options: CheckOptions,
    mut on_progress: impl FnMut(u64),
) -> Result<EventsCheck, EventStoreError> {
    let head = log.head().await?;
    let mut checked = EventsCheck { position: options.after, ..EventsCheck::default() };
    let mut next_revisions =
        NextRevisions { from_start: options.after == Position::START, revisions: HashMap::new() };
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
            let problems =
                [decoding_problem(event), metadata_problem(event), next_revisions.gap_before(event)];
            for (problem, detail) in problems.into_iter().flatten() {
                checked.report(options.max_findings, event, problem, detail);
            }
        }
        on_progress(checked.events);
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

/// The reason why an event can't be decoded.
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
    // Only the location, because serde's message may quote the metadata.
    let detail = format!("its metadata can't be read (line {}, column {})", error.line(), error.column());
    Some((EventProblem::BrokenMetadata, detail))
}

/// The next revision of each tracked stream.
struct NextRevisions {
    /// Whether a stream that is not tracked yet must begin with its first revision.
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
