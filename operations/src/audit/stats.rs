//! How much happens: by type, app, actor and hour, and which streams grow.

use std::collections::BTreeMap;

use chat_domain::{Metadata, Position, StreamId, Timestamp};
use chat_ports::event_store::{EventStore, EventStoreError, RecordedEvent};
use serde::Serialize;
use utoipa::ToSchema;

use super::filter::{EventFilter, actor_kind_name};
use super::frequent_keys::FrequentKeys;
use super::list::unknown_type_diagnostics;
use super::scan::{Order, Scan};
use super::time::rfc3339;
use crate::envelope::{Diagnostic, Report};

/// Different keys of one kind that are counted at a time; beyond, the rarest give way.
const MAX_COUNTED_KEYS: usize = 4_096;

/// Hours that are told apart, the latest ones.
const MAX_HOURS: usize = 24 * 7;

const HOUR_MS: i64 = 3_600_000;

/// How much happens.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Stats {
    /// Events counted.
    pub events: u64,
    /// Bytes of their payloads and metadata.
    pub bytes: u64,
    /// When the first of them was recorded.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub first_at: Option<String>,
    /// When the last of them was recorded.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_at: Option<String>,
    /// By type, the most frequent first.
    pub types: Counts,
    /// By app.
    pub apps: Counts,
    /// By actor: its kind, and its name or address.
    pub actors: Counts,
    /// By hour, oldest first: those of the last week that have any.
    pub hours: Vec<HourCount>,
    /// Events of earlier hours.
    pub earlier: u64,
    /// The streams with most of the events counted.
    pub biggest_streams: Counts,
    /// The streams with most of the events counted in the hour before the last of them.
    pub fastest_growing_streams: Counts,
    /// How many events of the log were looked at, from its end.
    pub looked_at: u64,
    /// Where the rest begins, before this position, if not all of the log was looked at.
    #[schema(value_type = Option<u64>)]
    pub next: Option<Position>,
    #[serde(skip)]
    unknown_types: Vec<String>,
}

/// The most frequent keys.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Counts {
    /// These, the most frequent first.
    pub most: Vec<KeyCount>,
    /// How many more there are at least.
    pub others: usize,
}

/// How often something occurs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct KeyCount {
    /// What.
    pub key: String,
    /// How often.
    pub events: u64,
    /// By how much the count may be too high: more than 4,096 different keys are not counted exactly.
    #[serde(skip_serializing_if = "is_zero")]
    pub at_most_too_high: u64,
}

/// How much happened in an hour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct HourCount {
    /// The hour's first moment.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub hour: Timestamp,
    /// Events recorded in it.
    pub events: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Counts events from the log's end, looking at so many at most, and names the `most` frequent of each kind.
pub async fn stats(
    log: &dyn EventStore,
    filter: EventFilter,
    most: usize,
    max_scanned_events: u64,
    mut progress: impl FnMut(u64),
) -> Result<Stats, EventStoreError> {
    let unknown_types = filter.unknown_types().map(str::to_owned).collect();
    let mut counting = StatsAccumulator::default();
    let (mut looked_at, mut next) = (0, None);
    let mut scan = Scan::new(filter, Order::NewestFirst);
    while let Some(found) = scan.next_batch(log).await? {
        looked_at += found.scanned_events;
        for event in &found.events {
            counting.count(event);
        }
        progress(looked_at);
        if looked_at >= max_scanned_events {
            next = Some(found.last_scanned);
            break;
        }
    }
    Ok(counting.finish(most, looked_at, next, unknown_types))
}

struct StatsAccumulator {
    events: u64,
    bytes: u64,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
    types: FrequentKeys<String>,
    apps: FrequentKeys<String>,
    actors: FrequentKeys<String>,
    hours: BTreeMap<i64, u64>,
    earlier: u64,
    streams: FrequentKeys<String>,
    growing: FrequentKeys<String>,
}

impl Default for StatsAccumulator {
    fn default() -> Self {
        let top = || FrequentKeys::with_capacity(MAX_COUNTED_KEYS);
        Self {
            events: 0,
            bytes: 0,
            first: None,
            last: None,
            types: top(),
            apps: top(),
            actors: top(),
            hours: BTreeMap::new(),
            earlier: 0,
            streams: top(),
            growing: top(),
        }
    }
}

impl StatsAccumulator {
    fn count(&mut self, event: &RecordedEvent) {
        self.events += 1;
        self.bytes += (event.data.len() + event.metadata.len()) as u64;
        let at = event.recorded_at;
        self.first = Some(self.first.map_or(at, |first| first.min(at)));
        let last = self.last.map_or(at, |last| last.max(at));
        self.last = Some(last);
        self.types.count(&event.event_type);
        if let Ok(stream) = StreamId::parse(&event.stream) {
            self.apps.count(&stream.app().expose().to_owned());
        }
        self.actors.count(&actor_label(event));
        self.count_hour(at);
        let stream = event.stream.to_string();
        self.streams.count(&stream);
        if at.millis() > last.millis().saturating_sub(HOUR_MS) {
            self.growing.count(&stream);
        }
    }

    fn count_hour(&mut self, at: Timestamp) {
        *self.hours.entry(at.millis().div_euclid(HOUR_MS)).or_default() += 1;
        if self.hours.len() > MAX_HOURS
            && let Some((_, events)) = self.hours.pop_first()
        {
            self.earlier += events;
        }
    }

    fn finish(
        self,
        most: usize,
        looked_at: u64,
        next: Option<Position>,
        unknown_types: Vec<String>,
    ) -> Stats {
        let hour = |(hour, events): (i64, u64)| HourCount {
            hour: Timestamp::from_millis(hour.saturating_mul(HOUR_MS)),
            events,
        };
        Stats {
            events: self.events,
            bytes: self.bytes,
            first_at: self.first.map(|at| at.to_string()),
            last_at: self.last.map(|at| at.to_string()),
            types: to_counts(self.types, most),
            apps: to_counts(self.apps, most),
            actors: to_counts(self.actors, most),
            hours: self.hours.into_iter().map(hour).collect(),
            earlier: self.earlier,
            biggest_streams: to_counts(self.streams, most),
            fastest_growing_streams: to_counts(self.growing, most),
            looked_at,
            next,
            unknown_types,
        }
    }
}

fn to_counts(top: FrequentKeys<String>, most: usize) -> Counts {
    let (most, others) = top.most_frequent(most);
    let most = most.into_iter().map(|(key, counted)| KeyCount {
        key,
        events: counted.count,
        at_most_too_high: counted.max_overcount,
    });
    Counts { most: most.collect(), others }
}

/// An actor in a few words. Apps are told apart by themselves: here their addresses count.
fn actor_label(event: &RecordedEvent) -> String {
    let Ok(Metadata { actor, .. }) = serde_json::from_slice::<Metadata>(&event.metadata) else {
        return "unknown".to_owned();
    };
    match actor.name.or(actor.address) {
        Some(who) => format!("{} {who}", actor_kind_name(actor.kind)),
        None => actor_kind_name(actor.kind).to_owned(),
    }
}

impl Report for Stats {
    fn diagnostics(&self) -> Vec<Diagnostic> {
        let mut said = unknown_type_diagnostics(&self.unknown_types);
        if let Some(next) = self.next {
            said.push(Diagnostic::note(format!(
                "only the newest {} events were looked at, back to position {next}",
                self.looked_at
            )));
        }
        said
    }
}
