//! Statistics of the log: events by type, app, actor and hour, and the largest and fastest growing streams.

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
use crate::counted::counted;
use crate::envelope::{Diagnostic, Report};

/// The number of different keys up to which counts are exact. With more keys, counts are approximate.
const MAX_COUNTED_KEYS: usize = 4_096;

/// The number of hours that have a count of their own: the newest ones with events.
const MAX_HOURS: usize = 24 * 7;

const HOUR_MS: i64 = 3_600_000;

/// Statistics of the log.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = EventStatistics)]
pub struct Stats {
    /// The number of events counted.
    pub events: u64,
    /// The size in bytes of their payloads and metadata.
    pub bytes: u64,
    /// The earliest time of recording.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub first_at: Option<String>,
    /// The latest time of recording.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_at: Option<String>,
    /// Events by type.
    pub types: Counts,
    /// Events by app.
    pub apps: Counts,
    /// Events by actor: its kind, and its name or address.
    pub actors: Counts,
    /// Events by hour, oldest first: the newest 168 hours that have events.
    pub hours: Vec<HourCount>,
    /// The number of events of earlier hours.
    pub earlier: u64,
    /// The streams with the most events.
    pub biggest_streams: Counts,
    /// The streams with the most events in the last hour before the newest event.
    pub fastest_growing_streams: Counts,
    /// The number of scanned events.
    pub looked_at: u64,
    /// The position before which the scan can continue; `null` if the scan is complete.
    #[schema(value_type = Option<u64>)]
    pub next: Option<Position>,
    #[serde(skip)]
    unknown_types: Vec<String>,
}

/// The most frequent keys.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = TopCounts)]
pub struct Counts {
    /// The most frequent keys, the most frequent first.
    pub most: Vec<KeyCount>,
    /// The number of keys that `most` leaves out. A lower bound, because at most 4,096 keys are tracked.
    pub others: usize,
}

/// The number of events of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct KeyCount {
    /// The key.
    pub key: String,
    /// The number of events.
    pub events: u64,
    /// By how much the count may be too high. Counts are exact up to 4,096 different keys.
    #[serde(skip_serializing_if = "is_zero")]
    pub at_most_too_high: u64,
}

/// The number of events of an hour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct HourCount {
    /// The start of the hour.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub hour: Timestamp,
    /// The number of events recorded in it.
    pub events: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Counts the events that match a filter, newest first. Scans at most about `max_scanned_events` events, and lists the
/// `max_keys` most frequent keys of each kind. `on_progress` receives the number of scanned events.
pub async fn stats(
    log: &dyn EventStore,
    filter: EventFilter,
    max_keys: usize,
    max_scanned_events: u64,
    mut on_progress: impl FnMut(u64),
) -> Result<Stats, EventStoreError> {
    let unknown_types = filter.unknown_types().map(str::to_owned).collect();
    let mut stats = StatsAccumulator::default();
    let (mut scanned, mut next) = (0, None);
    let mut scan = Scan::new(filter, Order::NewestFirst);
    while let Some(batch) = scan.next_batch(log).await? {
        scanned += batch.scanned_events;
        for event in &batch.events {
            stats.count(event);
        }
        on_progress(scanned);
        if scanned >= max_scanned_events {
            next = Some(batch.last_scanned);
            break;
        }
    }
    Ok(stats.finish(max_keys, scanned, next, unknown_types))
}

struct StatsAccumulator {
    events: u64,
    bytes: u64,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
    types: FrequentKeys<String>,
    apps: FrequentKeys<String>,
    actors: FrequentKeys<String>,
    /// Events by hour since 1970.
    hours: BTreeMap<i64, u64>,
    earlier: u64,
    streams: FrequentKeys<String>,
    last_hour_streams: FrequentKeys<String>,
}

impl Default for StatsAccumulator {
    fn default() -> Self {
        let keys = || FrequentKeys::with_capacity(MAX_COUNTED_KEYS);
        Self {
            events: 0,
            bytes: 0,
            first: None,
            last: None,
            types: keys(),
            apps: keys(),
            actors: keys(),
            hours: BTreeMap::new(),
            earlier: 0,
            streams: keys(),
            last_hour_streams: keys(),
        }
    }
}

impl StatsAccumulator {
    fn count(&mut self, event: &RecordedEvent) {
        self.events += 1;
        self.bytes += (event.data.len() + event.metadata.len()) as u64;
        let time = event.recorded_at;
        self.first = Some(self.first.map_or(time, |first| first.min(time)));
        let newest = self.last.map_or(time, |last| last.max(time));
        self.last = Some(newest);
        self.types.count(&event.event_type);
        if let Ok(stream) = StreamId::parse(&event.stream) {
            self.apps.count(&stream.app().expose().to_owned());
        }
        self.actors.count(&actor_label(event));
        self.count_hour(time);
        let stream = event.stream.to_string();
        self.streams.count(&stream);
        if time.millis() > newest.millis().saturating_sub(HOUR_MS) {
            self.last_hour_streams.count(&stream);
        }
    }

    fn count_hour(&mut self, time: Timestamp) {
        *self.hours.entry(time.millis().div_euclid(HOUR_MS)).or_default() += 1;
        if self.hours.len() > MAX_HOURS
            && let Some((_, events)) = self.hours.pop_first()
        {
            self.earlier += events;
        }
    }

    fn finish(
        self,
        max_keys: usize,
        looked_at: u64,
        next: Option<Position>,
        unknown_types: Vec<String>,
    ) -> Stats {
        let to_hour_count = |(hour, events): (i64, u64)| HourCount {
            hour: Timestamp::from_millis(hour.saturating_mul(HOUR_MS)),
            events,
        };
        Stats {
            events: self.events,
            bytes: self.bytes,
            first_at: self.first.map(|time| time.to_string()),
            last_at: self.last.map(|time| time.to_string()),
            types: to_counts(self.types, max_keys),
            apps: to_counts(self.apps, max_keys),
            actors: to_counts(self.actors, max_keys),
            hours: self.hours.into_iter().map(to_hour_count).collect(),
            earlier: self.earlier,
            biggest_streams: to_counts(self.streams, max_keys),
            fastest_growing_streams: to_counts(self.last_hour_streams, max_keys),
            looked_at,
            next,
            unknown_types,
        }
    }
}

fn to_counts(keys: FrequentKeys<String>, max_keys: usize) -> Counts {
    let (most, others) = keys.most_frequent(max_keys);
    let most = most.into_iter().map(|(key, counted)| KeyCount {
        key,
        events: counted.count,
        at_most_too_high: counted.max_overcount,
    });
    Counts { most: most.collect(), others }
}

/// Describes the actor of an event by its kind, and its name or address. Only operators have names, so an app as actor
/// is described by the client's address; [`Stats::apps`] counts events by app.
fn actor_label(event: &RecordedEvent) -> String {
    let Ok(Metadata { actor, .. }) = serde_json::from_slice::<Metadata>(&event.metadata) else {
        return "unknown".to_owned();
    };
    match actor.name.or(actor.address) {
        Some(name) => format!("{} {name}", actor_kind_name(actor.kind)),
        None => actor_kind_name(actor.kind).to_owned(),
    }
}

impl Report for Stats {
    fn diagnostics(&self) -> Vec<Diagnostic> {
        let mut diagnostics = unknown_type_diagnostics(&self.unknown_types);
        if let Some(next) = self.next {
            diagnostics.push(Diagnostic::note(format!(
                "scanned only {}, back to position {next}",
                counted(self.looked_at, "event")
            )));
        }
        diagnostics
    }
}
