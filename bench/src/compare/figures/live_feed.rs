//! Figure 12: the time from the 201 of a message until followers have its event, and the cost of followers.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Barrier, watch};
use tokio::task::JoinSet;

use super::freshness::post_probes;
use super::latency::{peak_rate, percentiles_row};
use crate::compare::figure::{Figure, FigureResults, Goal, Measurements, Table};
use crate::compare::open_loop::run_open_loop;
use crate::compare::requests::Posts;
use crate::compare::rounds::Rounds;
use crate::compare::run_config::RunConfig;
use crate::compare::system_under_test::SystemUnderTest;
use crate::latency::{Latencies, Percentiles};

/// The number of followers in the measurements with many followers.
const MANY_FOLLOWERS: usize = 1_000;

/// The number of followers, and the time between two probes. With many followers this time is longer, because each
/// follower gets every probe.
const PROBE_INTERVALS: [(usize, Duration); 2] =
    [(1, Duration::from_millis(5)), (MANY_FOLLOWERS, Duration::from_millis(200))];

/// The number of followers that only wait.
const IDLE_FOLLOWERS: usize = 10_000;

/// The time for which the cost of waiting is measured. Each follower gets two heartbeats in it.
const IDLE_TIME: Duration = Duration::from_secs(30);

/// The time for which followers read on after the last probe.
const READ_AFTER_LAST_PROBE: Duration = Duration::from_secs(2);

/// The flags that let one client address open all connections, and let all followers follow one app.
const FLAGS: [&str; 6] = [
    "--max-connections",
    "12000",
    "--max-connections-per-address",
    "12000",
    // At most half of the followers can follow the same app.
    "--max-followers",
    "20000",
];

/// Measures how late events arrive during a load at half of the peak, first at one follower and then at many; the
/// effect of many followers on the throughput of posts; and the server's memory and CPU time for followers that wait.
pub(super) async fn measure(config: &RunConfig, results: &mut FigureResults) -> io::Result<()> {
    let system = SystemUnderTest::start(config, config.chats(), &FLAGS).await?;
    let rate = peak_rate(config, &system).await? / 2.0;
    let title =
        format!("From 201 to a follower at {rate:.0}/s, half of the peak, in µs (medians of the rounds)");
    let mut table = Table::new(title, &["followers of the chat", "p50", "p90", "p99", "p99.9", "max"]);
    for (followers, interval) in PROBE_INTERVALS {
        let mut rounds = Vec::new();
        for _ in 0..config.rounds {
            rounds.push(freshness(config, &system, rate, followers, interval).await?);
            system.catch_up().await?;
        }
        let name = |percentile| {
            format!("{percentile} of the time from 201 until {followers} followers have the event")
        };
        let p50 = rounds.iter().map(|round| round.p50 as f64 / 1_000.0).collect();
        let p99 = rounds.iter().map(|round| round.p99 as f64 / 1_000.0).collect();
        results.figures.push(figure_at_most(name("p50"), "ms", 5.0, p50));
        results.figures.push(figure_at_most(name("p99"), "ms", 25.0, p99));
        table.rows.push(percentiles_row(&followers.to_string(), &rounds));
    }
    results.tables.push(table);
    results.figures.push(throughput(config, &system).await?);
    drop(system);
    idle(config, results).await
}

/// Posts probes to a chat with followers while messages are posted to the other chats. Returns the percentiles
/// of the time from a probe's 201 to its arrival at a follower.
async fn freshness(
    config: &RunConfig,
    system: &SystemUnderTest,
    rate: f64,
    followers: usize,
    interval: Duration,
) -> io::Result<Percentiles> {
    let (watched, others) = system.paths.split_first().ok_or_else(|| io::Error::other("no chats"))?;
    let following = Followers::start(system, std::slice::from_ref(watched), followers).await?;
    let source: Arc<Posts> = config.endless_posts(others);
    let load =
        run_open_loop(&system.server.address, 201, rate, config.duration + READ_AFTER_LAST_PROBE, source);
    let (address, path, duration) = (system.server.address.clone(), watched.clone(), config.duration);
    let schedule = (Duration::ZERO, interval);
    let probes = tokio::task::spawn_blocking(move || {
        let mut posted = Vec::new();
        post_probes(&address, &path, schedule, duration, |probe| posted.push(probe)).map(|()| posted)
    });
    let (loaded, posted) = tokio::join!(load, probes);
    loaded?;
    let posted = posted.map_err(io::Error::other)??;
    let mut delays = Latencies::new();
    for seen in following.stop().await? {
        for (number, acknowledged_at) in &posted {
            let arrived_at =
                seen.get(number).ok_or_else(|| io::Error::other("a follower has not seen a message"))?;
            // The event can arrive before the 201.
            delays.record_latency(arrived_at.saturating_duration_since(*acknowledged_at));
        }
    }
    Ok(delays.latency_percentiles())
}

/// Compares the posts per second with many followers, spread over the chats, and without any.
async fn throughput(config: &RunConfig, system: &SystemUnderTest) -> io::Result<Figure> {
    let posts = async || {
        let rate = config.post_for_duration(&system.server.address, &system.paths).await?.rate();
        system.catch_up().await?;
        Ok::<_, io::Error>(rate)
    };
    let rounds = Rounds::measure(
        config.rounds,
        async |_| {
            let following = Followers::start(system, &system.paths, MANY_FOLLOWERS).await?;
            let rate = posts().await?;
            following.stop().await?;
            Ok(rate)
        },
        async |_| posts().await,
    )
    .await?;
    Ok(Figure {
        number: 12,
        name: format!(
            "POST of a message with {MANY_FOLLOWERS} followers, each message to one or a few of them"
        ),
        against: "without followers".to_owned(),
        unit: "posts/s".to_owned(),
        goal: Goal::AtLeast(0.8),
        measured: Measurements::Ratio(rounds),
    })
}

/// Measures the server's memory and CPU time for followers that wait.
async fn idle(config: &RunConfig, results: &mut FigureResults) -> io::Result<()> {
    let system = SystemUnderTest::start(config, config.chats(), &FLAGS).await?;
    let memory_before = system.server.memory()?.resident;
    let following = Followers::start(&system, &system.paths, IDLE_FOLLOWERS).await?;
    let cpu_before = system.server.cpu_time()?;
    tokio::time::sleep(IDLE_TIME).await;
    let cpu = system.server.cpu_time()?.saturating_sub(cpu_before).as_secs_f64() / IDLE_TIME.as_secs_f64();
    let memory = (system.server.memory()?.resident - memory_before) / IDLE_FOLLOWERS as f64;
    following.stop().await?;
    let kibibytes = vec![memory / 1_024.0];
    results.figures.push(figure_at_most(
        format!("memory for each of {IDLE_FOLLOWERS} followers that wait"),
        "KiB",
        32.0,
        kibibytes,
    ));
    let percent = vec![cpu * 100.0];
    results.figures.push(figure_at_most(
        format!("CPU time of {IDLE_FOLLOWERS} followers that wait"),
        "% of a core",
        10.0,
        percent,
    ));
    Ok(())
}

/// Returns a figure whose goal is this value or less.
fn figure_at_most(name: String, unit: &str, goal: f64, values: Vec<f64>) -> Figure {
    Figure {
        number: 12,
        name,
        against: String::new(),
        unit: unit.to_owned(),
        goal: Goal::AtMost(goal),
        measured: Measurements::Absolute(values),
    }
}

/// The time at which each message of a chat arrived, by its number.
type Arrivals = HashMap<u64, Instant>;

/// Connected followers.
struct Followers {
    tasks: JoinSet<io::Result<Arrivals>>,
    stop: watch::Sender<bool>,
}

impl Followers {
    /// Connects followers to chats in turn, and waits until each has a response.
    async fn start(system: &SystemUnderTest, chats: &[String], count: usize) -> io::Result<Self> {
        let stop = watch::Sender::new(false);
        let connected = Arc::new(Barrier::new(count + 1));
        let mut tasks = JoinSet::new();
        for path in chats.iter().cycle().take(count) {
            let address = system.server.address.clone();
            let path = path.replace("/messages", "/events");
            let (connected, stopped) = (Arc::clone(&connected), stop.subscribe());
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            tasks.spawn(follow(stream, path, connected, stopped));
        }
        let mut followers = Self { tasks, stop };
        tokio::select! {
            _ = connected.wait() => Ok(followers),
            // A follower that ends before the stop signal has failed.
            Some(ended) = followers.tasks.join_next() => {
                ended.map_err(io::Error::other)??;
                Err(io::Error::other("a follower has ended"))
            }
        }
    }

    /// Disconnects the followers. Returns the arrivals of each.
    async fn stop(mut self) -> io::Result<Vec<Arrivals>> {
        self.stop.send_replace(true);
        let mut arrivals = Vec::new();
        while let Some(ended) = self.tasks.join_next().await {
            arrivals.push(ended.map_err(io::Error::other)??);
        }
        Ok(arrivals)
    }
}

/// Follows a chat over a connection until the stop signal.
async fn follow(
    mut stream: TcpStream,
    path: String,
    connected: Arc<Barrier>,
    mut stopped: watch::Receiver<bool>,
) -> io::Result<Arrivals> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let (mut buffer, mut arrivals) = (Vec::with_capacity(1_024), Arrivals::new());
    let mut connected = Some(connected);
    loop {
        let read = tokio::select! {
            read = stream.read_buf(&mut buffer) => read?,
            _ = stopped.wait_for(|is_stopped| *is_stopped) => return Ok(arrivals),
        };
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(connected) = connected.take() {
            if !buffer.starts_with(b"HTTP/1.1 200") {
                return Err(io::Error::other(String::from_utf8_lossy(&buffer).into_owned()));
            }
            // The follower reads on while the other followers connect.
            tokio::spawn(async move { connected.wait().await });
        }
        let now = Instant::now();
        let complete = buffer.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        for number in message_numbers(&buffer[..complete]) {
            arrivals.insert(number, now);
        }
        buffer.drain(..complete);
    }
}

/// Returns the numbers of the messages in complete lines of a stream.
fn message_numbers(lines: &[u8]) -> impl Iterator<Item = u64> {
    let text = std::str::from_utf8(lines).unwrap_or_default();
    text.split("\"message_number\":").skip(1).filter_map(|rest| {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..digits].parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_numbers_of_messages() {
        let lines = b"id: v1-2a.1f9\nevent: message.created\ndata: {\"chat_number\":1,\"message_number\":17,\"body\":\"a\"}\n\n";
        assert_eq!(message_numbers(lines).collect::<Vec<_>>(), [17]);
    }
}
