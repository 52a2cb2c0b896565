//! Figure 8: how long after its 201 a message can be read and found.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::latency::{peak, row};
use crate::compare::figure::{Figure, FigureResults, Goal, Measurements, Table};
use crate::compare::open_loop::paced;
use crate::compare::raw_http::{RawConnection, unexpected_status};
use crate::compare::requests::{Posts, post};
use crate::compare::run_config::RunConfig;
use crate::compare::system_under_test::Stage;
use crate::latency::{Latencies, Percentiles};

/// Connections that post probes.
const PROBE_CONNECTIONS: u32 = 4;
/// Between two probes of a connection.
const PROBE_INTERVAL: Duration = Duration::from_millis(20);
/// Between two looks for messages that can be read; a look takes its time too.
const READ_INTERVAL: Duration = Duration::from_millis(1);
/// Between two looks for messages that can be found.
const SEARCH_INTERVAL: Duration = Duration::from_millis(5);
/// How long after the last probe is looked on.
const OBSERVE_AFTER_LAST_PROBE: Duration = Duration::from_secs(2);

/// Beside a load at half of the peak, probes are posted to a chat of their own, and its newest message is read, and
/// searched for, over and over, without a token: once a message is seen there, so are those before it. A probe counts
/// from when its 201 was there to when an answer that shows it, or a later one, was there.
pub(super) async fn measure(setting: &RunConfig, findings: &mut FigureResults) -> io::Result<()> {
    let stage = Stage::new(setting, setting.chats(), &[]).await?;
    let rate = peak(setting, &stage).await? / 2.0;
    let (watched, others) = stage.paths.split_first().ok_or_else(|| io::Error::other("no chats"))?;
    let (mut read, mut found) = (Vec::new(), Vec::new());
    for _ in 0..setting.rounds {
        let source: Arc<Posts> = setting.endless_posts(others);
        let load =
            paced(&stage.server.address, 201, rate, setting.duration + OBSERVE_AFTER_LAST_PROBE, source);
        let (address, path, duration) = (stage.server.address.clone(), watched.clone(), setting.duration);
        let looks = tokio::task::spawn_blocking(move || run_probes(&address, &path, duration));
        let (loaded, seen) = tokio::join!(load, looks);
        loaded?;
        let seen = seen.map_err(io::Error::other)??;
        read.push(seen.read);
        found.push(seen.found);
        stage.catch_up().await?;
    }
    let millis = |rounds: &[Percentiles]| rounds.iter().map(|of| of.p99 as f64 / 1_000.0).collect();
    for (name, rounds, goal) in [
        ("p99 of the time from 201 until a plain GET shows the message", &read, 20.0),
        ("p99 of the time from 201 until a search finds the message", &found, 250.0),
    ] {
        findings.figures.push(Figure {
            number: 8,
            name: name.to_owned(),
            against: String::new(),
            unit: "ms".to_owned(),
            goal: Goal::AtMost(goal),
            measured: Measurements::Absolute(millis(rounds)),
        });
    }
    let title =
        format!("From 201 to visible at {rate:.0}/s, half of the peak, in µs (medians of the rounds)");
    let mut table = Table::new(title, &["", "p50", "p90", "p99", "p99.9", "max"]);
    table.rows.push(row("read", &read));
    table.rows.push(row("found", &found));
    findings.tables.push(table);
    Ok(())
}

struct ProbeLatencies {
    read: Percentiles,
    found: Percentiles,
}

/// A message's number, and when something was known of it.
type Observation = (u64, Instant);

fn run_probes(address: &str, path: &str, duration: Duration) -> io::Result<ProbeLatencies> {
    let done = AtomicBool::new(false);
    let reads = format!("{path}?limit=1");
    let searches = format!("{path}/search?query=zprobe&sort=newest&limit=1");
    thread::scope(|scope| {
        let read = scope.spawn(|| observe_newest(address, &reads, READ_INTERVAL, &done));
        let found = scope.spawn(|| observe_newest(address, &searches, SEARCH_INTERVAL, &done));
        let probes: Vec<_> = (0..PROBE_CONNECTIONS)
            .map(|turn| {
                scope.spawn(move || {
                    post_probes(address, path, PROBE_INTERVAL / PROBE_CONNECTIONS * turn, duration)
                })
            })
            .collect();
        let panicked = |_| io::Error::other("a thread of the probes has panicked");
        let posted: Vec<_> = probes.into_iter().map(|probe| probe.join().map_err(panicked)).collect();
        thread::sleep(OBSERVE_AFTER_LAST_PROBE);
        done.store(true, Ordering::Relaxed);
        let (read, found) = (read.join().map_err(panicked)??, found.join().map_err(panicked)??);
        let mut all = Vec::new();
        for one in posted {
            all.extend(one??);
        }
        Ok(ProbeLatencies { read: visibility_delays(&all, &read)?, found: visibility_delays(&all, &found)? })
    })
}

#[derive(Deserialize)]
struct NumberedMessage {
    message_number: u64,
}

#[derive(Deserialize)]
struct MessagesPage {
    messages: Vec<NumberedMessage>,
}

/// Posts probes, and notes when each was acknowledged.
fn post_probes(
    address: &str,
    path: &str,
    first: Duration,
    duration: Duration,
) -> io::Result<Vec<Observation>> {
    let mut wire = RawConnection::connect(address)?;
    let mut request = Vec::new();
    post(&mut request, path, r#"{"body":"zprobe"}"#);
    let (mut due, end) = (Instant::now() + first, Instant::now() + duration);
    let mut posted = Vec::new();
    while due < end {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let answer = wire.exchange(&request)?;
        let acknowledged = Instant::now();
        if answer.status != 201 {
            return Err(unexpected_status(answer.status));
        }
        let created: NumberedMessage = serde_json::from_slice(answer.body)?;
        posted.push((created.message_number, acknowledged));
        due += PROBE_INTERVAL;
    }
    Ok(posted)
}

/// Looks at the newest message over and over, and notes when each was first there.
fn observe_newest(
    address: &str,
    path: &str,
    pause: Duration,
    done: &AtomicBool,
) -> io::Result<Vec<Observation>> {
    let mut wire = RawConnection::connect(address)?;
    let mut seen: Vec<Observation> = Vec::new();
    while !done.load(Ordering::Relaxed) {
        let shown: MessagesPage = serde_json::from_slice(wire.get(path)?)?;
        let now = Instant::now();
        if let Some(newest) = shown.messages.first()
            && seen.last().is_none_or(|(last, _)| *last < newest.message_number)
        {
            seen.push((newest.message_number, now));
        }
        thread::sleep(pause);
    }
    Ok(seen)
}

/// How long after it was acknowledged each message, or a later one, was seen.
fn visibility_delays(posted: &[Observation], seen: &[Observation]) -> io::Result<Percentiles> {
    let mut delays = Latencies::new();
    for (number, acknowledged) in posted {
        let first = seen.partition_point(|(shown, _)| shown < number);
        let (_, when) = seen.get(first).ok_or_else(|| io::Error::other("a message was not seen"))?;
        delays.record_latency(when.saturating_duration_since(*acknowledged));
    }
    Ok(delays.response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_counts_as_seen_with_the_first_later_one() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let posted = [(1, at(0)), (2, at(10)), (3, at(20))];
        let seen = [(2, at(15)), (3, at(19))];
        let delays = visibility_delays(&posted, &seen).unwrap();
        assert_eq!((delays.max / 1_000, delays.p50 / 1_000), (15, 5));
    }

    #[test]
    fn a_message_that_is_never_seen_is_an_error() {
        let now = Instant::now();
        assert!(visibility_delays(&[(2, now)], &[(1, now)]).is_err());
    }
}
