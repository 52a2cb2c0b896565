//! What an append to the SQLite event log costs: `cargo run --release -p chat-infra --example append_speed -- FOLDER`.
//!
//! Appends messages of about 80 bytes to one and to many streams, in batches of several sizes, each waiting for the one
//! before, and prints events a second, how long a batch takes, and the CPU time of an event.

#![expect(clippy::print_stdout, reason = "its purpose")]
#![expect(clippy::cast_precision_loss, reason = "rates are rough")]

use std::error::Error;
use std::time::{Duration, Instant};

use chat_domain::event::SchemaVersion;
use chat_domain::metadata::EventId;
use chat_domain::{ExpectedRevision, Revision, Timestamp};
use chat_infra::event_store::{EventStore, NewEvent, SqliteEventStore, StreamAppend};
use uuid::Uuid;

const EVENTS: usize = 200_000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| ".".to_owned());
    for streams in [1, 1_000] {
        for batch in [16, 64, 512] {
            let folder = tempfile::tempdir_in(&folder)?;
            let log = SqliteEventStore::open(&folder.path().join("events.db"))?;
            let (mut ends, mut took) = (vec![None; streams], Vec::new());
            let (started, cpu) = (Instant::now(), cpu()?);
            for first in (0..EVENTS).step_by(batch) {
                let appends = appends(first, batch, &mut ends);
                let started = Instant::now();
                for outcome in log.append(appends).await {
                    outcome?;
                }
                took.push(started.elapsed());
            }
            let rate = EVENTS as f64 / started.elapsed().as_secs_f64();
            let each = (self::cpu()? - cpu).as_secs_f64() * 1e6 / EVENTS as f64;
            took.sort_unstable();
            let percentile = |of: usize| took[took.len() * of / 100].as_micros();
            println!(
                "{streams:>5} streams, batches of {batch:>3}: {rate:>7.0}/s, {each:>5.1} us of CPU an event, \
                 a batch {} us p50, {} us p99",
                percentile(50),
                percentile(99),
            );
        }
    }
    Ok(())
}

/// One append for each stream that the batch touches: streams take turns.
fn appends(first: usize, batch: usize, ends: &mut [Option<Revision>]) -> Vec<StreamAppend> {
    let streams = ends.len();
    let mut appends: Vec<StreamAppend> = Vec::new();
    for nth in first..first + batch {
        let stream = nth * 7 % streams;
        if streams > 1 || appends.is_empty() {
            appends.push(StreamAppend {
                stream: format!("chat-{:064}-{stream}", 0).into(),
                expected: ExpectedRevision::after(ends[stream]),
                events: Vec::new(),
            });
        }
        if let Some(append) = appends.last_mut() {
            append.events.push(event());
        }
        ends[stream] = Some(ExpectedRevision::after(ends[stream]).next());
    }
    appends
}

fn event() -> NewEvent {
    NewEvent {
        id: EventId::new(Uuid::now_v7()),
        event_type: "MessageCreated",
        schema_version: SchemaVersion::CURRENT,
        recorded_at: Timestamp::from_millis(1_700_000_000_000),
        data: format!("{{\"message_number\":1,\"body\":\"{}\"}}", "a word or two ".repeat(6)),
        metadata: "x".repeat(220).into(),
    }
}

/// The CPU time of this process so far.
fn cpu() -> Result<Duration, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(Duration::from_millis(ticks * 10))
}
