//! Figure 9: how long a post takes while the server has time to spare.

use std::cell::RefCell;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::compare::figure::{Figure, FigureResults, Goal, Measurements, Table};
use crate::compare::open_loop::paced;
use crate::compare::rounds::{Rounds, median};
use crate::compare::run_config::RunConfig;
use crate::compare::server_process::Server;
use crate::compare::system_under_test::Stage;
use crate::latency::{Latencies, Percentiles};

/// The 99th percentile of a post's latency at half of the peak load, against that of one fsync. The bare handler, under
/// the same load, shows what of it is the machine's and the generator's own.
pub(super) async fn measure(setting: &RunConfig, findings: &mut FigureResults) -> io::Result<()> {
    let (stage, bare) = (Stage::new(setting, setting.chats(), &[]).await?, Server::bare(None)?);
    let rate = peak(setting, &stage).await? / 2.0;
    let post = async |address: &str| {
        let source = setting.endless_posts(&stage.paths);
        let latencies = paced(address, 201, rate, setting.duration, source).await?;
        Ok::<_, io::Error>(latencies.response())
    };
    let [posts, syncs, floor] = [const { RefCell::new(Vec::new()) }; 3];
    let rounds = Rounds::measure(
        setting.rounds,
        async |_| {
            let latencies = post(&stage.server.address).await?;
            stage.catch_up().await?;
            posts.borrow_mut().push(latencies);
            Ok::<_, io::Error>(latencies.p99 as f64)
        },
        async |_| {
            let latencies = fsync_latencies(setting).await?;
            syncs.borrow_mut().push(latencies);
            let bare = post(&bare.address).await?;
            floor.borrow_mut().push(bare);
            Ok(latencies.p99 as f64)
        },
    )
    .await?;
    let title = format!("Latency of a POST at {rate:.0}/s, half of the peak, in µs (medians of the rounds)");
    let mut table = Table::new(title, &["", "p50", "p90", "p99", "p99.9", "max"]);
    table.rows.push(row("POST of a message", &posts.take()));
    table.rows.push(row("the same to the bare handler", &floor.take()));
    table.rows.push(row("write of 4 KiB and fsync, with nothing else going on", &syncs.take()));
    findings.tables.push(table);
    findings.figures.push(Figure {
        number: 9,
        name: "p99 of a POST at half of the peak load".to_owned(),
        against: "p99 of one fsync on the same file system".to_owned(),
        unit: "µs".to_owned(),
        goal: Goal::AtMost(3.0),
        measured: Measurements::Ratio(rounds),
    });
    Ok(())
}

/// Posts a second at full speed, once the server is warm.
pub(super) async fn peak(setting: &RunConfig, stage: &Stage) -> io::Result<f64> {
    setting.posts(&stage.server.address, &stage.paths).await?;
    stage.catch_up().await?;
    let peak = setting.posts(&stage.server.address, &stage.paths).await?.rate();
    stage.catch_up().await?;
    Ok(peak)
}

/// A row of percentiles: of each, the rounds' median.
pub(super) fn row(name: &str, rounds: &[Percentiles]) -> Vec<String> {
    let of = |percentile: fn(&Percentiles) -> u64| {
        let values: Vec<f64> = rounds.iter().map(|round| percentile(round) as f64).collect();
        format!("{:.0}", median(&values))
    };
    vec![name.to_owned(), of(|p| p.p50), of(|p| p.p90), of(|p| p.p99), of(|p| p.p99_9), of(|p| p.max)]
}

/// How long it takes to sync a file to the disk.
pub(super) async fn fsync_latencies(setting: &RunConfig) -> io::Result<Percentiles> {
    let (folder, duration) = (setting.folder().to_owned(), setting.duration);
    let syncs = tokio::task::spawn_blocking(move || sync_repeatedly(&folder, duration));
    syncs.await.map_err(io::Error::other)?
}

/// Writes 4 KiB to the end of a file and syncs it, again and again.
fn sync_repeatedly(folder: &Path, duration: Duration) -> io::Result<Percentiles> {
    let file = tempfile::tempfile_in(folder)?;
    let (page, mut latencies) = ([7_u8; 4_096], Latencies::new());
    let started = Instant::now();
    let mut end = 0;
    while started.elapsed() < duration {
        let since = Instant::now();
        file.write_all_at(&page, end)?;
        file.sync_data()?;
        latencies.record_latency(since.elapsed());
        end += page.len() as u64;
    }
    Ok(latencies.response())
}
