//! Figure 9: the latency of a post at half of the peak load.

use std::cell::RefCell;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::compare::figure::{Figure, FigureResults, Goal, Measurements, Table};
use crate::compare::open_loop::run_open_loop;
use crate::compare::rounds::{Rounds, median};
use crate::compare::run_config::RunConfig;
use crate::compare::server_process::ServerProcess;
use crate::compare::system_under_test::SystemUnderTest;
use crate::latency::{Latencies, Percentiles};

/// Compares the p99 of a post at half of the peak load with the p99 of one fsync. The baseline under the same load
/// shows how much of a post's latency comes from the machine and the load generator.
pub(super) async fn measure(config: &RunConfig, results: &mut FigureResults) -> io::Result<()> {
    let system = SystemUnderTest::start(config, config.chats(), &[]).await?;
    let baseline = ServerProcess::start_baseline(None)?;
    let rate = peak_rate(config, &system).await? / 2.0;
    let post = async |address: &str| {
        let source = config.endless_posts(&system.paths);
        let latencies = run_open_loop(address, 201, rate, config.duration, source).await?;
        Ok::<_, io::Error>(latencies.latency_percentiles())
    };
    let [posts, syncs, baseline_posts] = [const { RefCell::new(Vec::new()) }; 3];
    let rounds = Rounds::measure(
        config.rounds,
        async |_| {
            let percentiles = post(&system.server.address).await?;
            system.catch_up().await?;
            posts.borrow_mut().push(percentiles);
            Ok::<_, io::Error>(percentiles.p99 as f64)
        },
        async |_| {
            let percentiles = fsync_percentiles(config).await?;
            syncs.borrow_mut().push(percentiles);
            let baseline_percentiles = post(&baseline.address).await?;
            baseline_posts.borrow_mut().push(baseline_percentiles);
            Ok(percentiles.p99 as f64)
        },
    )
    .await?;
    let title = format!("Latency of a POST at {rate:.0}/s, half of the peak, in µs (medians of the rounds)");
    let mut table = Table::new(title, &["", "p50", "p90", "p99", "p99.9", "max"]);
    table.rows.push(percentiles_row("POST of a message", &posts.take()));
    table.rows.push(percentiles_row("the same to the bare handler", &baseline_posts.take()));
    table.rows.push(percentiles_row("write of 4 KiB and fsync, without other load", &syncs.take()));
    results.tables.push(table);
    results.figures.push(Figure {
        number: 9,
        name: "p99 of a POST at half of the peak load".to_owned(),
        against: "p99 of one fsync on the same file system".to_owned(),
        unit: "µs".to_owned(),
        goal: Goal::AtMost(3.0),
        measured: Measurements::Ratio(rounds),
    });
    Ok(())
}

/// Measures the posts per second of a closed loop on a warm server.
pub(super) async fn peak_rate(config: &RunConfig, system: &SystemUnderTest) -> io::Result<f64> {
    config.post_for_duration(&system.server.address, &system.paths).await?;
    system.catch_up().await?;
    let peak = config.post_for_duration(&system.server.address, &system.paths).await?.rate();
    system.catch_up().await?;
    Ok(peak)
}

/// Returns a table row of the median of each percentile over the rounds.
pub(super) fn percentiles_row(name: &str, rounds: &[Percentiles]) -> Vec<String> {
    let median_of = |percentile: fn(&Percentiles) -> u64| {
        let values: Vec<f64> = rounds.iter().map(|round| percentile(round) as f64).collect();
        format!("{:.0}", median(&values))
    };
    vec![
        name.to_owned(),
        median_of(|p| p.p50),
        median_of(|p| p.p90),
        median_of(|p| p.p99),
        median_of(|p| p.p99_9),
        median_of(|p| p.max),
    ]
}

/// Measures how long it takes to append 4 KiB to a file and sync it.
async fn fsync_percentiles(config: &RunConfig) -> io::Result<Percentiles> {
    let (folder, duration) = (config.folder().to_owned(), config.duration);
    let syncs = tokio::task::spawn_blocking(move || sync_repeatedly(&folder, duration));
    syncs.await.map_err(io::Error::other)?
}

/// Appends 4 KiB to a file and syncs it, repeatedly until the time is over.
fn sync_repeatedly(folder: &Path, duration: Duration) -> io::Result<Percentiles> {
    let file = tempfile::tempfile_in(folder)?;
    let (page, mut latencies) = ([7_u8; 4_096], Latencies::new());
    let start = Instant::now();
    let mut end = 0;
    while start.elapsed() < duration {
        let sync_start = Instant::now();
        file.write_all_at(&page, end)?;
        file.sync_data()?;
        latencies.record_latency(sync_start.elapsed());
        end += page.len() as u64;
    }
    Ok(latencies.latency_percentiles())
}
