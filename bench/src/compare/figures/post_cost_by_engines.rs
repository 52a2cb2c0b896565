//! Figure 13: the cost of a POST on each line-up of engines. A table without goals.

use std::cell::RefCell;
use std::io;
use std::iter::repeat_n;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chat_testing::kurrentdb::FakeKurrentDb;
use chat_testing::redis::Redis;

use super::latency::peak_rate;
use super::postgres_and_redis::CrudApplication;
use crate::compare::closed_loop::RequestSource as _;
use crate::compare::figure::{FigureResults, Table};
use crate::compare::open_loop::run_open_loop;
use crate::compare::postgres;
use crate::compare::raw_http::{RawConnection, unexpected_status};
use crate::compare::requests::Posts;
use crate::compare::rounds::median;
use crate::compare::run_config::RunConfig;
use crate::compare::system_under_test::SystemUnderTest;
use crate::latency::{Latencies, Percentiles};

/// The columns of the table.
const COLUMNS: [&str; 8] = [
    "line-up",
    "posts/s",
    "alone: p50",
    "alone: p99",
    "half of the peak: p50",
    "half of the peak: p99",
    "CPU time of chat-api a message",
    "bytes of the log an event",
];

/// Measures posts on each line-up, and pgbench in the same Postgres instance.
pub(super) async fn measure(config: &RunConfig, results: &mut FigureResults) -> io::Result<()> {
    let server = postgres::start(config).await?;
    let folder = config.folder().to_owned();
    let redis = tokio::task::spawn_blocking(move || Redis::start_in(&folder, "everysec"));
    let redis = redis.await.map_err(io::Error::other)??;
    let fake = FakeKurrentDb::start().map_err(io::Error::other)?;
    let log_url = postgres::create_database(&server).await?;
    let at_scale = async |name: &'static str, log: Log| {
        let read_model = postgres::create_database(&server).await?;
        let mut flags = vec!["--redis-url".to_owned(), redis.url(), "--database-url".to_owned(), read_model];
        match &log {
            Log::SqliteFile => {}
            Log::Postgres(url) | Log::FakeKurrentDb(url) => {
                flags.extend(["--event-store-url".to_owned(), url.clone()]);
            }
        }
        LineUp::start(config, name, log, &flags).await
    };
    let line_ups = [
        LineUp::start(config, "embedded engines", Log::SqliteFile, &[]).await?,
        at_scale("log in a SQLite file; Redis, Postgres", Log::SqliteFile).await?,
        at_scale("log in Postgres; Redis, Postgres", Log::Postgres(log_url)).await?,
        at_scale("log in the fake KurrentDB of the tests; Redis, Postgres", Log::FakeKurrentDb(fake.url()))
            .await?,
    ];
    let crud = CrudApplication::new(config, &server).await?;
    crud.insert(config).await?;
    let mut inserts = Vec::new();
    for _ in 0..config.rounds {
        for line_up in &line_ups {
            line_up.measure_round(config).await?;
        }
        inserts.push(crud.insert(config).await?);
    }
    let title = "POST of a message on each line-up (times in µs, medians of the rounds)";
    let mut table = Table::new(title, &COLUMNS);
    for line_up in line_ups {
        table.rows.push(line_up.into_row().await?);
    }
    let pgbench = "pgbench that takes the next number of a chat's row and inserts the message".to_owned();
    let values = [pgbench, format!("{:.0}", median(&inserts))];
    let empty_cells = repeat_n("–".to_owned(), COLUMNS.len() - values.len());
    table.rows.push(values.into_iter().chain(empty_cells).collect());
    results.tables.push(table);
    Ok(())
}

/// The engine of a line-up's log.
enum Log {
    SqliteFile,
    /// A database of its own at this URL.
    Postgres(String),
    /// The fake at this URL, in the memory of this process.
    FakeKurrentDb(String),
}

/// A chat API that runs with one combination of engines, and its measurements.
struct LineUp {
    name: &'static str,
    log: Log,
    system: SystemUnderTest,
    measured: RefCell<Vec<Round>>,
}

/// The measurements of a round.
struct Round {
    posts_per_second: f64,
    /// The CPU time of the chat API for each message, its projectors included.
    cpu_micros_a_message: f64,
    /// Latencies of posts over one connection, without other load.
    alone: Percentiles,
    /// Latencies at half of `posts_per_second`.
    at_half: Percentiles,
}

impl LineUp {
    async fn start(config: &RunConfig, name: &'static str, log: Log, flags: &[String]) -> io::Result<Self> {
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let system = SystemUnderTest::start(config, config.chats(), &flags).await?;
        // Only warms up the server. The peak of each round is measured in the round.
        peak_rate(config, &system).await?;
        Ok(Self { name, log, system, measured: RefCell::new(Vec::new()) })
    }

    async fn measure_round(&self, config: &RunConfig) -> io::Result<()> {
        let (server, paths) = (&self.system.server, &self.system.paths);
        let before = server.cpu_time()?;
        let load = config.post_for_duration(&server.address, paths).await?;
        // The time of the projectors counts too.
        self.system.catch_up().await?;
        let spent = server.cpu_time()?.saturating_sub(before);
        let source = config.endless_posts(paths);
        let at_half = run_open_loop(&server.address, 201, load.rate() / 2.0, config.duration, source).await?;
        self.system.catch_up().await?;
        let (address, source, duration) =
            (server.address.clone(), config.endless_posts(paths), config.duration);
        let alone = tokio::task::spawn_blocking(move || post_alone(&address, &source, duration));
        let alone = alone.await.map_err(io::Error::other)??;
        self.measured.borrow_mut().push(Round {
            posts_per_second: load.rate(),
            cpu_micros_a_message: spent.as_secs_f64() * 1e6 / load.succeeded as f64,
            alone,
            at_half: at_half.latency_percentiles(),
        });
        Ok(())
    }

    /// Stops the chat API, and returns its row of the table.
    async fn into_row(self) -> io::Result<Vec<String>> {
        let events = self.system.position().await? as f64;
        let usage = self.system.stop().await?;
        let bytes = match &self.log {
            Log::SqliteFile => Some(usage.log),
            Log::Postgres(url) => Some(postgres::database_size(url).await?),
            Log::FakeKurrentDb(_) => None,
        };
        let rounds = self.measured.take();
        let median_of = |value: fn(&Round) -> f64| {
            format!("{:.0}", median(&rounds.iter().map(value).collect::<Vec<_>>()))
        };
        Ok(vec![
            self.name.to_owned(),
            median_of(|round| round.posts_per_second),
            median_of(|round| round.alone.p50 as f64),
            median_of(|round| round.alone.p99 as f64),
            median_of(|round| round.at_half.p50 as f64),
            median_of(|round| round.at_half.p99 as f64),
            median_of(|round| round.cpu_micros_a_message),
            bytes.map_or_else(|| "–".to_owned(), |bytes| format!("{:.0}", bytes / events)),
        ])
    }
}

/// Posts one message after the other over one connection.
fn post_alone(address: &str, source: &Arc<Posts>, duration: Duration) -> io::Result<Percentiles> {
    let mut connection = RawConnection::connect(address)?;
    let (mut latencies, mut request) = (Latencies::new(), Vec::new());
    let start = Instant::now();
    for nth in 0.. {
        if start.elapsed() >= duration {
            break;
        }
        request.clear();
        source.write(nth, &mut request);
        let sent = Instant::now();
        let status = connection.exchange(&request)?.status;
        if status != 201 {
            return Err(unexpected_status(status));
        }
        latencies.record_latency(sent.elapsed());
    }
    Ok(latencies.latency_percentiles())
}
