//! Checks that every event of the log can be read and decoded by this program, and that none is missing. Read-only;
//! useful before a rebuild.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::error::Error;
use std::sync::Arc;

use chat_domain::event::DecodeError;
use chat_domain::{Event, Metadata, OperatorAction, Position, Revision, StreamId, operator_action};
use chat_ports::error_chain;
use chat_ports::event_store::stream_reader::DiscardedEvents;
use chat_ports::event_store::{EventStore, EventStoreError, RecordedEvent};
use chat_projector::dead_letters::DeadLetterReason;
use serde::Serialize;
use utoipa::ToSchema;

use crate::envelope;

/// The most events per read.
const PAGE_EVENTS: usize = 256;
/// The most streams whose next revision is tracked to detect gaps. In a log with more streams, some gaps are not
/// detected.
const MAX_TRACKED_STREAMS: usize = 65_536;
/// The most event types that are counted individually.
const MAX_COUNTED_TYPES: usize = 256;
/// The name under which all further types are counted.
const OTHER_TYPES: &str = "(others)";

/// Options of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckOptions {
    /// Checks events after this position.
    pub after: Position,
    /// The most findings that are listed; the first loss of events is listed in addition. All findings are counted.
    pub max_findings: usize,
    /// The approximate number of events after which the check ends.
    pub max_events: u64,
}

/// The result of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = EventsCheck)]
pub struct EventsCheck {
    /// The position up to which the log was checked: its head when the check began, unless the check ended before that
    /// head.
    #[schema(value_type = u64)]
    pub position: Position,
    /// The number of events that were checked.
    pub events: u64,
    /// The number of events by type.
    #[schema(value_type = Object)]
    pub types: BTreeMap<String, u64>,
    /// The number of events that can't be decoded and that an operator has discarded. They are no findings.
    pub discarded: u64,
    /// The number of findings by problem.
    #[schema(value_type = Object)]
    pub problems: BTreeMap<EventProblem, u64>,
    /// The first findings, and the first loss of events.
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
    #[serde(rename = "type")]
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
    /// Positions before the event have no event.
    Missing,
    /// The event, or an index entry of it, can't be read. The finding has an empty stream and type, and the revision
    /// and schema version 0.
    Unreadable,
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
            Self::Missing => "missing",
            Self::Unreadable => "unreadable",
        }
    }

    /// All kinds.
    pub const ALL: [Self; 8] = [
        Self::UnknownStream,
        Self::UnknownType,
        Self::UnknownVersion,
        Self::BrokenPayload,
        Self::BrokenMetadata,
        Self::Gap,
        Self::Missing,
        Self::Unreadable,
    ];

    /// Whether the log has lost events, as opposed to having an event that this program can't decode.
    pub const fn is_loss(self) -> bool {
        matches!(self, Self::Gap | Self::Missing | Self::Unreadable)
    }

    /// Whether the event itself can't be decoded, which a discard settles.
    const fn is_undecodable(self) -> bool {
        matches!(self, Self::UnknownStream | Self::UnknownType | Self::UnknownVersion | Self::BrokenPayload)
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

    /// Removes the listed findings about events that can't be decoded and that operators have discarded since the
    /// check. Returns whether there were any.
    pub(crate) fn remove_discarded(&mut self, discarded: &DiscardedEvents) -> bool {
        let is_settled = |finding: &&EventFinding| {
            finding.problem.is_undecodable() && discarded.contains(finding.position)
        };
        let settled: HashSet<Position> =
            self.findings.iter().filter(is_settled).map(|finding| finding.position).collect();
        let Self { findings, problems, .. } = self;
        findings.retain(|finding| {
            let is_kept = finding.problem.is_loss() || !settled.contains(&finding.position);
            if !is_kept && let Some(count) = problems.get_mut(&finding.problem) {
                *count -= 1;
            }
            is_kept
        });
        self.discarded += settled.len() as u64;
        !settled.is_empty()
    }
}

/// Checks the events after `options.after`, up to the head of the log or to about `options.max_events` events.
/// `on_progress` receives the number of events checked so far, unreadable ones included.
pub async fn check(
    log: &dyn EventStore,
    options: CheckOptions,
    mut on_progress: impl FnMut(u64),
) -> Result<EventsCheck, EventStoreError> {
    let mut checker = EventsChecker::new(log, options.after, options.max_findings).await?;
    while checker.check_page().await? && checker.scanned < options.max_events {
        on_progress(checker.scanned);
    }
    Ok(checker.checked)
}

/// A check of the log, page by page.
pub struct EventsChecker<'a> {
    log: &'a dyn EventStore,
    max_findings: usize,
    /// The events that operators had discarded when the check began.
    discarded_events: DiscardedEvents,
    /// The head when the check began; `None` if it can't be read.
    head: Option<Position>,
    /// The number of events per read. It is 1 after a page that could not be read, so that the events before
    /// the damaged one are checked, too.
    page_events: usize,
    next_revisions: NextRevisions,
    checked: EventsCheck,
    /// The number of events that were checked, and of positions that can't be read.
    scanned: u64,
    /// The first position of the current run of unreadable positions; `None` outside of such a run.
    unreadable_since: Option<Position>,
}

impl<'a> EventsChecker<'a> {
    /// Begins a check after a position. Lists at most `max_findings`, and the first loss of events.
    pub async fn new(
        log: &'a dyn EventStore,
        after: Position,
        max_findings: usize,
    ) -> Result<Self, EventStoreError> {
        let head = match log.head().await {
            Ok(head) => Some(head),
            Err(EventStoreError::Damaged(_)) => None,
            Err(error) => return Err(error),
        };
        let discarded_events = match DiscardedEvents::load(log).await {
            Ok(discarded) => discarded,
            Err(EventStoreError::Damaged(_) | EventStoreError::StreamTruncated(_)) => {
                DiscardedEvents::default()
            }
            Err(error) => return Err(error),
        };
        Ok(Self {
            log,
            max_findings,
            discarded_events,
            head,
            page_events: PAGE_EVENTS,
            next_revisions: NextRevisions { from_start: after == Position::START, revisions: HashMap::new() },
            checked: EventsCheck { position: after, ..EventsCheck::default() },
            scanned: 0,
            unreadable_since: None,
        })
    }

    /// The result so far.
    pub fn checked(&self) -> &EventsCheck {
        &self.checked
    }

    /// Checks the next page. Returns `false` at the end of the check. After an error, the same page can be tried again.
    pub async fn check_page(&mut self) -> Result<bool, EventStoreError> {
        let after = self.checked.position;
        if self.head.is_some_and(|head| after >= head) {
            return Ok(false);
        }
        let events = match self.log.read_all_checked(after, self.page_events).await {
            Ok(events) => events,
            Err(EventStoreError::Damaged(_)) if self.page_events > 1 => {
                self.page_events = 1;
                return Ok(true);
            }
            Err(EventStoreError::Damaged(error)) => return Ok(self.pass_over_unreadable(&*error)),
            Err(error) => return Err(error),
        };
        self.page_events = (self.page_events * 2).min(PAGE_EVENTS);
        let is_in_check = |event: &RecordedEvent| self.head.is_none_or(|head| event.position <= head);
        let events: Vec<_> = events.into_iter().filter(is_in_check).collect();
        if events.is_empty() {
            if let Some(head) = self.head {
                self.report_lost_end(head);
            }
            return Ok(false);
        }
        for event in &events {
            let missing = self.missing_before(event);
            let mut undecodable = decoding_problem(event);
            let mut broken_metadata = metadata_problem(event);
            let gap = self.next_revisions.gap_before(event);
            if undecodable.is_some() && self.discarded_events.contains(event.position) {
                // The discard settles problems of the event itself, but not events that are missing before it.
                (undecodable, broken_metadata) = (None, None);
                self.checked.discarded += 1;
            }
            self.checked.count(event);
            self.checked.position = event.position;
            self.unreadable_since = None;
            for (problem, detail) in [missing, undecodable, broken_metadata, gap].into_iter().flatten() {
                self.checked.report(self.max_findings, event, problem, detail);
            }
        }
        self.scanned += events.len() as u64;
        Ok(true)
    }

    /// Returns [`EventProblem::Missing`] if the positions directly before an event have no event. In a log whose
    /// positions are not contiguous, this is no problem.
    fn missing_before(&self, event: &RecordedEvent) -> Option<(EventProblem, String)> {
        let expected = next_position(self.checked.position);
        if !self.log.has_contiguous_positions() || event.position <= expected {
            return None;
        }
        let last = event.position.get() - 1;
        Some((EventProblem::Missing, format!("there are no events at the positions {expected} to {last}")))
    }

    /// Ends the check at the head although the log has no event between the checked position and the head. If positions
    /// count events, reports that the event at the head can't be read.
    fn report_lost_end(&mut self, head: Position) {
        let next = next_position(self.checked.position);
        self.checked.position = head;
        if !self.log.has_contiguous_positions() {
            return;
        }
        *self.checked.problems.entry(EventProblem::Unreadable).or_default() += 1;
        if self.checked.lists_next(self.max_findings, EventProblem::Unreadable) {
            let detail = format!("up to position {head}, the head of the log: there are no events");
            self.checked.findings.push(EventFinding::unreadable(next, detail));
        }
    }

    /// Reports that the next position can't be read. Returns whether the check can go on after it.
    fn pass_over_unreadable(&mut self, error: &(dyn Error + Send + Sync + 'static)) -> bool {
        let position = next_position(self.checked.position);
        // The streams of the events that are passed over are not known.
        self.next_revisions.forget();
        self.scanned += 1;
        // Each unreadable position is counted. A run of them is listed as one finding.
        *self.checked.problems.entry(EventProblem::Unreadable).or_default() += 1;
        let first = *self.unreadable_since.get_or_insert(position);
        let detail = format!("up to position {position}: {}", error_chain(error));
        let is_listed = self.checked.lists_next(self.max_findings, EventProblem::Unreadable);
        match self.checked.findings.last_mut() {
            Some(last) if last.problem == EventProblem::Unreadable && last.position == first => {
                last.detail = detail;
            }
            _ if is_listed => self.checked.findings.push(EventFinding::unreadable(first, detail)),
            _ => {}
        }
        // Without a head there is no end to the positions that can't be read.
        let goes_on = self.log.has_contiguous_positions() && self.head.is_some();
        if goes_on {
            self.checked.position = position;
        }
        goes_on
    }
}

fn next_position(position: Position) -> Position {
    Position::new(position.get().saturating_add(1))
}

impl EventFinding {
    fn unreadable(position: Position, detail: String) -> Self {
        Self {
            position,
            problem: EventProblem::Unreadable,
            detail,
            stream: String::new(),
            revision: Revision::FIRST,
            event_type: String::new(),
            schema_version: 0,
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

    /// Whether the next finding is listed. At most `limit` findings are listed, and the first loss of events in
    /// addition, because it is the reason for which the log is closed to appends.
    fn lists_next(&self, limit: usize, problem: EventProblem) -> bool {
        let has_loss = || self.findings.iter().any(|finding| finding.problem.is_loss());
        self.findings.len() < limit || (problem.is_loss() && !has_loss())
    }

    fn report(&mut self, limit: usize, event: &RecordedEvent, problem: EventProblem, detail: String) {
        *self.problems.entry(problem).or_default() += 1;
        if self.lists_next(limit, problem) {
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
        DecodeError::UnknownVersion { .. } => EventProblem::UnknownVersion,
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
    fn forget(&mut self) {
        self.revisions.clear();
        self.from_start = false;
    }

    fn gap_before(&mut self, event: &RecordedEvent) -> Option<(EventProblem, String)> {
        let next = event.revision.next();
        let expected = if let Some(expected) = self.revisions.get_mut(&event.stream) {
            std::mem::replace(expected, next)
        } else {
            if self.revisions.len() >= MAX_TRACKED_STREAMS {
                self.forget();
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
