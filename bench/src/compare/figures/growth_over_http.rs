//! Figure 14: messages that were all posted over HTTP, in one run, ten million by default. Tables without goals.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::rebuild::time_rebuild;
use super::search::queries::{Query, QueryKind, RequestedResult, Scope};
use super::search::query_chat_api;
use crate::compare::closed_loop::{RequestSource, run_closed_loop};
use crate::compare::disk_usage::DiskUsage;
use crate::compare::figure::{FigureResults, Table};
use crate::compare::raw_http::RawConnection;
use crate::compare::requests::{cycled, write_post};
use crate::compare::run_config::{CONNECTIONS, PAGE_SIZE, RunConfig};
use crate::compare::seeded_log::SeededLog;
use crate::compare::system_under_test::SystemUnderTest;
use crate::compare::text_generator::TextGenerator;
use crate::latency::Latencies;

/// The number of steps in which the messages are posted. Reads and searches are measured after each.
const STEPS: u64 = 10;

/// The columns of the table of steps.
const COLUMNS: [&str; 9] = [
    "stored",
    "posts/s",
    "catch-up after the last post, s",
    "anonymous memory, MiB",
    "disk, bytes a message",
    "GET of a message, p50 / p99",
    "GET of a page, p50 / p99",
    "search: word in a chat, p50 / p99",
    "search: word in an app, p50 / p99",
];

/// Posts generated texts to chats in turn.
struct GeneratedPosts {
    paths: Vec<String>,
    texts: TextGenerator,
    /// The numbers of the texts to post.
    range: Range<u64>,
}

impl RequestSource for GeneratedPosts {
    fn write(&self, nth: u64, request: &mut Vec<u8>) -> bool {
        let nth = self.range.start + nth;
        if nth >= self.range.end {
            return false;
        }
        write_post(
            request,
            cycled(&self.paths, nth),
            &serde_json::json!({ "body": self.texts.text(nth) }).to_string(),
        );
        true
    }
}

/// Posts the messages in steps, measures after each, and at the end restarts the server and rebuilds both projections.
pub(super) async fn measure(config: &RunConfig, results: &mut FigureResults) -> io::Result<()> {
    let messages = config.max_growth_messages;
    let mut system = SystemUnderTest::start(config, config.chats(), &[]).await?;
    let title = "All messages posted over HTTP, in steps (times in µs, one request at a time)";
    let mut steps = Table::new(title, &COLUMNS);
    for step in 1..=STEPS {
        let range = messages * (step - 1) / STEPS..messages * step / STEPS;
        steps.rows.push(measure_step(config, &system, range).await?);
        // If a later step fails, the results keep the earlier ones.
        results.tables = vec![steps.clone()];
    }
    let mut end = Table::new(format!("With {messages} messages posted over HTTP"), &["", "s"]);
    let mut row = |name: &str, time: Duration| {
        end.rows.push(vec![name.to_owned(), format!("{:.2}", time.as_secs_f64())]);
    };
    let restarted_at = Instant::now();
    let first_post;
    (system, first_post) = system.time_restart(config).await?;
    row("restart: from the start of the process to the first 201", first_post);
    row("restart: from the signal to stop until all projections are live", restarted_at.elapsed());
    let head = system.position().await?;
    let folder = system.stop_and_keep().await?;
    for (name, projection) in
        [("rebuild of the read model", "read-model"), ("rebuild of the search index", "search-index")]
    {
        row(name, time_rebuild(config, folder.path(), projection, &[], head).await?);
    }
    results.tables.push(end);
    Ok(())
}

/// Posts the texts of a range, waits until the projections have folded them, and measures reads and searches. Returns
/// the step's row of the table.
async fn measure_step(
    config: &RunConfig,
    system: &SystemUnderTest,
    range: Range<u64>,
) -> io::Result<Vec<String>> {
    let stored = range.end;
    let source = GeneratedPosts { paths: system.paths.clone(), texts: config.texts.clone(), range };
    let address = &system.server.address;
    let load = run_closed_loop(address, 201, CONNECTIONS, Duration::MAX, Arc::new(source)).await?;
    if load.refused > 0 {
        return Err(io::Error::other(format!("{} posts were refused", load.refused)));
    }
    let posted_at = Instant::now();
    system.catch_up().await?;
    let catch_up_time = posted_at.elapsed();
    let chats = system.paths.len() as u64;
    // Never written: it only describes the messages that were posted, so that queries can be taken from them.
    let seeded_log = SeededLog::new(&config.texts, chats, stored);
    let words: Arc<[Query]> = Query::sample(&seeded_log, QueryKind::Word, config.query_count())?.into();
    // Messages from all parts of the log, in an order that the page cache does not favour.
    let path_and_number = |sample: u64| {
        let nth = sample * 7_919 % stored;
        (cycled(&system.paths, nth), nth / chats + 1)
    };
    let samples = (0..config.query_count() as u64 * 10).map(path_and_number);
    let message_paths = samples.clone().map(|(path, number)| format!("{path}/{number}"));
    let page_path = |(path, number)| format!("{path}?limit={PAGE_SIZE}&before={}", number + PAGE_SIZE);
    let page_paths = samples.map(page_path);
    let message_times = time_gets(address, message_paths.collect()).await?;
    let page_times = time_gets(address, page_paths.collect()).await?;
    let usage = DiskUsage::of_data_folder(system.folder())?;
    let mut row = vec![
        stored.to_string(),
        format!("{:.0}", load.rate()),
        format!("{:.1}", catch_up_time.as_secs_f64()),
        format!("{:.0}", system.server.memory()?.anonymous / 1_048_576.0),
        format!("{:.0}", (usage.log + usage.read_model + usage.index) / stored as f64),
        message_times,
        page_times,
    ];
    for scope in Scope::ALL {
        let searched =
            query_chat_api(address, &system.app_token, &words, scope, RequestedResult::Page).await?;
        row.push(format!("{} / {}", searched.latencies.p50, searched.latencies.p99));
    }
    Ok(row)
}

/// Sends GET requests one at a time, and returns the table cell of their latencies: `p50 / p99`, in µs.
async fn time_gets(address: &str, paths: Vec<String>) -> io::Result<String> {
    let mut connection = RawConnection::connect(address)?;
    let run = move || {
        let mut latencies = Latencies::new();
        for path in &paths {
            let sent = Instant::now();
            connection.get(path)?;
            latencies.record_latency(sent.elapsed());
        }
        let times = latencies.latency_percentiles();
        Ok(format!("{} / {}", times.p50, times.p99))
    };
    tokio::task::spawn_blocking(run).await.map_err(io::Error::other)?
}
