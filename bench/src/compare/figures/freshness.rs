//! Figure 8: the time from the 201 of a message until it can be read and found.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::latency::{peak_rate, percentiles_row};
use crate::compare::figure::{Figure, FigureResults, Goal, Measurements, Table};
use crate::compare::open_loop::run_open_loop;
use crate::compare::raw_http::{RawConnection, unexpected_status};
use crate::compare::requests::{Posts, write_post};
use crate::compare::run_config::RunConfig;
use crate::compare::system_under_test::SystemUnderTest;
use crate::latency::{Latencies, Percentiles};

/// The number of connections that post probes.
const PROBE_CONNECTIONS: u32 = 4;
/// The time between two probes of a connection.
const PROBE_INTERVAL: Duration = Duration::from_millis(20);
/// The pause between two reads.
const READ_PAUSE: Duration = Duration::from_millis(1);
/// The pause between two searches.
const SEARCH_PAUSE: Duration = Duration::from_millis(5);
/// The time from the 201 of a probe to the single search that should find it.
const SEARCH_DELAY: Duration = Duration::from_millis(25);
/// The shortest time for which reads and searches continue after the last probe.
const OBSERVE_AFTER_LAST_PROBE: Duration = Duration::from_secs(2);
/// The time after the last probe within which it must be seen.
const VISIBILITY_TIMEOUT: Duration = Duration::from_mins(1);

/// Measures probes during a load at half of the peak.
///
/// Probes are posted to a chat of their own. The newest message of this chat is read and searched for repeatedly,
/// without a token. A probe is visible when a response contains it or a later one. Its latency is the time from its 201
/// to that response. In addition, each probe is searched for once, 25 ms after its 201.
pub(super) async fn measure(config: &RunConfig, results: &mut FigureResults) -> io::Result<()> {
    let system = SystemUnderTest::start(config, config.chats(), &[]).await?;
    let rate = peak_rate(config, &system).await? / 2.0;
    let (watched, others) = system.paths.split_first().ok_or_else(|| io::Error::other("no chats"))?;
    let (mut read, mut found, mut found_after_delay) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..config.rounds {
        let source: Arc<Posts> = config.endless_posts(others);
        let load = run_open_loop(
            &system.server.address,
            201,
            rate,
            config.duration + OBSERVE_AFTER_LAST_PROBE,
            source,
        );
        let (address, path, duration) = (system.server.address.clone(), watched.clone(), config.duration);
        let probes = tokio::task::spawn_blocking(move || run_probes(&address, &path, duration));
        let (loaded, visibility) = tokio::join!(load, probes);
        loaded?;
        let visibility = visibility.map_err(io::Error::other)??;
        read.push(visibility.read);
        found.push(visibility.found);
        found_after_delay.push(visibility.found_by_search_after_delay * 100.0);
        system.catch_up().await?;
    }
    let millis = |rounds: &[Percentiles]| rounds.iter().map(|round| round.p99 as f64 / 1_000.0).collect();
    for (name, rounds, goal) in [
        ("p99 of the time from 201 until a plain GET shows the message", &read, 20.0),
        ("p99 of the time from 201 until a search finds the message", &found, 250.0),
    ] {
        results.figures.push(Figure {
            number: 8,
            name: name.to_owned(),
            against: String::new(),
            unit: "ms".to_owned(),
            goal: Goal::AtMost(goal),
            measured: Measurements::Absolute(millis(rounds)),
        });
    }
    results.figures.push(Figure {
        number: 8,
        name: "searches sent 25 ms after a message's 201 that find it".to_owned(),
        against: String::new(),
        unit: "%".to_owned(),
        goal: Goal::AtLeast(99.0),
        measured: Measurements::Absolute(found_after_delay),
    });
    let title =
        format!("From 201 to visible at {rate:.0}/s, half of the peak, in µs (medians of the rounds)");
    let mut table = Table::new(title, &["", "p50", "p90", "p99", "p99.9", "max"]);
    table.rows.push(percentiles_row("read", &read));
    table.rows.push(percentiles_row("found", &found));
    results.tables.push(table);
    Ok(())
}

struct ProbeLatencies {
    /// The time from a probe's 201 until a read showed the probe.
    read: Percentiles,
    /// The time from a probe's 201 until a search found the probe.
    found: Percentiles,
    /// The share of the probes that a search finds if it is sent [`SEARCH_DELAY`] after the probe's 201.
    found_by_search_after_delay: f64,
}

/// A message's number and the time at which the message was acknowledged or first observed.
pub(super) type Observation = (u64, Instant);

fn run_probes(address: &str, path: &str, duration: Duration) -> io::Result<ProbeLatencies> {
    let is_finished = AtomicBool::new(false);
    let newest_seen = [const { AtomicU64::new(0) }; 2];
    let [newest_read, newest_found] = &newest_seen;
    let read_path = format!("{path}?limit=1");
    let search_path = format!("{path}/search?query=zprobe&sort=newest&limit=1");
    thread::scope(|scope| {
        let read = scope.spawn(|| observe_newest(address, &read_path, READ_PAUSE, newest_read, &is_finished));
        let found =
            scope.spawn(|| observe_newest(address, &search_path, SEARCH_PAUSE, newest_found, &is_finished));
        let search_path = &search_path;
        let probes: Vec<_> = (0..PROBE_CONNECTIONS)
            .map(|turn| {
                let schedule = (PROBE_INTERVAL / PROBE_CONNECTIONS * turn, PROBE_INTERVAL);
                let (acknowledgements, acknowledged) = mpsc::channel();
                let searches = scope.spawn(move || search_after_delay(address, search_path, &acknowledged));
                // The thread of the searches receives nothing more after a failure. Its error is returned below.
                let on_acknowledged = move |probe| {
                    let _ = acknowledgements.send(probe);
                };
                (
                    scope.spawn(move || post_probes(address, path, schedule, duration, on_acknowledged)),
                    searches,
                )
            })
            .collect();
        let panicked = |_| io::Error::other("a thread of the probes panicked");
        let joined = probes
            .into_iter()
            .map(|(posts, searches)| (posts.join().map_err(panicked), searches.join().map_err(panicked)));
        let joined: Vec<_> = joined.collect();
        let acknowledged = joined.iter().filter_map(|(_, searches)| searches.as_ref().ok()?.as_ref().ok());
        let last_number = acknowledged.flatten().map(|((number, _), _)| *number).max().unwrap_or_default();
        let deadline = Instant::now() + VISIBILITY_TIMEOUT;
        thread::sleep(OBSERVE_AFTER_LAST_PROBE);
        let is_behind = || newest_seen.iter().any(|newest| newest.load(Ordering::Relaxed) < last_number);
        while is_behind() && !read.is_finished() && !found.is_finished() && Instant::now() < deadline {
            thread::sleep(SEARCH_PAUSE);
        }
        is_finished.store(true, Ordering::Relaxed);
        let (read, found) = (read.join().map_err(panicked)??, found.join().map_err(panicked)??);
        let (mut acknowledged, mut found_after_delay) = (Vec::new(), 0);
        for (posts, searches) in joined {
            posts??;
            for (probe, is_found) in searches?? {
                acknowledged.push(probe);
                found_after_delay += u32::from(is_found);
            }
        }
        Ok(ProbeLatencies {
            read: visibility_delays(&acknowledged, &read)?,
            found: visibility_delays(&acknowledged, &found)?,
            found_by_search_after_delay: f64::from(found_after_delay) / acknowledged.len() as f64,
        })
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

/// Posts one probe in each interval, the first after the delay, until `duration` after the call. Reports each
/// acknowledgement.
pub(super) fn post_probes(
    address: &str,
    path: &str,
    (delay, interval): (Duration, Duration),
    duration: Duration,
    mut on_acknowledged: impl FnMut(Observation),
) -> io::Result<()> {
    let mut connection = RawConnection::connect(address)?;
    let mut request = Vec::new();
    write_post(&mut request, path, r#"{"body":"zprobe"}"#);
    let (mut due, end) = (Instant::now() + delay, Instant::now() + duration);
    while due < end {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let response = connection.exchange(&request)?;
        let acknowledged_at = Instant::now();
        if response.status != 201 {
            return Err(unexpected_status(response.status));
        }
        let created: NumberedMessage = serde_json::from_slice(response.body)?;
        on_acknowledged((created.message_number, acknowledged_at));
        due += interval;
    }
    Ok(())
}

/// Sends one search for each probe, [`SEARCH_DELAY`] after its 201. Returns each probe, and whether the search found
/// the probe or a later one.
fn search_after_delay(
    address: &str,
    path: &str,
    acknowledged: &Receiver<Observation>,
) -> io::Result<Vec<(Observation, bool)>> {
    let mut connection = RawConnection::connect(address)?;
    let mut results = Vec::new();
    for (number, acknowledged_at) in acknowledged {
        thread::sleep((acknowledged_at + SEARCH_DELAY).saturating_duration_since(Instant::now()));
        let page: MessagesPage = serde_json::from_slice(connection.get(path)?)?;
        let is_found = page.messages.first().is_some_and(|newest| newest.message_number >= number);
        results.push(((number, acknowledged_at), is_found));
    }
    Ok(results)
}

/// Requests the newest message repeatedly, until `is_finished`. Returns each message that was the newest, with the time
/// of the first response that contained it. Keeps the number of the last of these messages in `newest_seen`.
fn observe_newest(
    address: &str,
    path: &str,
    pause: Duration,
    newest_seen: &AtomicU64,
    is_finished: &AtomicBool,
) -> io::Result<Vec<Observation>> {
    let mut connection = RawConnection::connect(address)?;
    let mut seen: Vec<Observation> = Vec::new();
    while !is_finished.load(Ordering::Relaxed) {
        let page: MessagesPage = serde_json::from_slice(connection.get(path)?)?;
        let now = Instant::now();
        if let Some(newest) = page.messages.first()
            && seen.last().is_none_or(|(last, _)| *last < newest.message_number)
        {
            seen.push((newest.message_number, now));
            newest_seen.store(newest.message_number, Ordering::Relaxed);
        }
        thread::sleep(pause);
    }
    Ok(seen)
}

/// Returns the percentiles of the time from a message's acknowledgement until this message or a later one was first
/// observed.
fn visibility_delays(posted: &[Observation], seen: &[Observation]) -> io::Result<Percentiles> {
    let mut delays = Latencies::new();
    for (number, acknowledged_at) in posted {
        let first = seen.partition_point(|(seen_number, _)| seen_number < number);
        let (_, first_seen) = seen.get(first).ok_or_else(|| io::Error::other("a message was not seen"))?;
        delays.record_latency(first_seen.saturating_duration_since(*acknowledged_at));
    }
    Ok(delays.latency_percentiles())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_counts_as_seen_when_a_later_one_is_seen() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let posted = [(1, at(0)), (2, at(10)), (3, at(20))];
        let seen = [(2, at(15)), (3, at(19))];
        let delays = visibility_delays(&posted, &seen).unwrap();
        assert_eq!((delays.max / 1_000, delays.p50 / 1_000), (15, 5));
    }

    #[test]
    fn fails_for_a_message_that_is_never_seen() {
        let now = Instant::now();
        assert!(visibility_delays(&[(2, now)], &[(1, now)]).is_err());
    }
}
