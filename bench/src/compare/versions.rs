//! `chat-bench compare-versions`: measures two builds of the chat API in turn, to find the cost of a change.
//!
//! Both builds keep running, and each round loads first one and then the other, so that other load on the machine
//! affects both. For the memory figures, only the measured build runs. On a busy machine, the CPU time for a request is
//! more reliable than the requests per second.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::closed_loop::RequestSource;
use super::figure::{FigureResults, Measurements};
use super::figures::{memory, reads};
use super::parse_seconds;
use super::requests::Gets;
use super::rounds::median;
use super::run_config::{PAGE_SIZE, RunConfig};
use super::system_under_test::SystemUnderTest;
use super::text_generator::TextGenerator;
use crate::corpus::Corpus;
use crate::error::RunError;
use crate::output::write_stdout;
use crate::verdict::Verdict;

/// The number of messages that are stored for reads: a page in each of 1,000 chats.
const STORED_MESSAGES: u64 = 1_000 * PAGE_SIZE;

/// Arguments of `compare-versions`.
#[derive(Debug, Args)]
pub struct CompareVersionsArgs {
    /// The corpus whose messages are posted: JSON lines of {"app","chat","body"}.
    #[arg(long, value_name = "FILE")]
    corpus: PathBuf,
    /// The program before the change.
    #[arg(long, value_name = "FILE")]
    before: PathBuf,
    /// The program after the change.
    #[arg(long, value_name = "FILE")]
    after: PathBuf,
    /// The folder for the data of the servers, on the disk to measure.
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    folder: PathBuf,
    /// The rounds of each figure.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    rounds: u8,
    /// The seconds for which each program is measured in a round.
    #[arg(long, default_value = "3", value_parser = parse_seconds)]
    seconds: Duration,
}

/// Measures the figures 1, 2, 5 and 10 of `docs/performance.md` for both programs, and prints each.
pub async fn run(arguments: CompareVersionsArgs) -> Result<Verdict, RunError> {
    let corpus = Corpus::read(&arguments.corpus, None)?;
    let texts = TextGenerator::new(corpus.chats.into_iter().flat_map(|chat| chat.bodies).collect());
    let config = |program: PathBuf| {
        Ok(RunConfig {
            program: program.canonicalize()?,
            folder: arguments.folder.canonicalize()?,
            texts: texts.clone(),
            rounds: usize::from(arguments.rounds),
            duration: arguments.seconds,
            messages: STORED_MESSAGES,
            // No figure about growth is measured.
            max_growth_messages: 0,
        })
    };
    let configs = config(arguments.before).and_then(|before| Ok([before, config(arguments.after)?]));
    measure(&configs.map_err(RunError::Environment)?).await.map_err(RunError::Environment)?;
    Ok(Verdict::Passed)
}

async fn measure(configs: &[RunConfig; 2]) -> io::Result<()> {
    posts(configs, "1  POST of messages to 1000 chats", 1_000).await?;
    posts(configs, "2  POST of messages to one chat", 1).await?;
    gets(configs).await?;
    memory(configs).await
}

/// The throughput and CPU time of one program in one round.
struct TurnResult {
    /// Requests per second.
    rate: f64,
    /// CPU time of the server for a request, in microseconds.
    cpu: f64,
}

async fn start(configs: &[RunConfig; 2], chats: u64) -> io::Result<[SystemUnderTest; 2]> {
    Ok([
        SystemUnderTest::start(&configs[0], chats, &[]).await?,
        SystemUnderTest::start(&configs[1], chats, &[]).await?,
    ])
}

async fn posts(configs: &[RunConfig; 2], name: &str, chats: u64) -> io::Result<()> {
    let systems = start(configs, chats).await?;
    let sources = [0, 1].map(|side| configs[side].endless_posts(&systems[side].paths));
    compare(configs, &systems, name, 201, &sources).await
}

async fn gets(configs: &[RunConfig; 2]) -> io::Result<()> {
    let systems = start(configs, configs[0].chats()).await?;
    for (config, system) in configs.iter().zip(&systems) {
        config.post_all(&system.server.address, &system.paths, STORED_MESSAGES).await?;
        system.settle().await?;
    }
    let source = |paths| Arc::new(Gets { paths });
    let sources = [0, 1].map(|side| source(reads::message_paths(&systems[side])));
    compare(configs, &systems, "5  GET of a message", 200, &sources).await?;
    let sources = [0, 1].map(|side| source(reads::page_paths(&systems[side])));
    compare(configs, &systems, "5  GET of a page of 50 messages", 200, &sources).await
}

/// Loads both systems in turn, and prints the medians. The first load of each warms it up and is not measured.
async fn compare<S: RequestSource>(
    configs: &[RunConfig; 2],
    systems: &[SystemUnderTest; 2],
    name: &str,
    expected_status: u16,
    sources: &[Arc<S>; 2],
) -> io::Result<()> {
    let mut results: [Vec<TurnResult>; 2] = [Vec::new(), Vec::new()];
    for round in 0..=configs[0].rounds {
        for side in [0, 1] {
            let server = &systems[side].server;
            let cpu_before = server.cpu_time()?;
            let source = Arc::clone(&sources[side]) as Arc<dyn RequestSource>;
            let outcome = configs[side].run_closed_loop(&server.address, expected_status, source).await?;
            // The CPU time of a post includes its projections, and the merges of index segments that happen later.
            systems[side].settle().await?;
            let cpu = server.cpu_time()?.saturating_sub(cpu_before);
            if round > 0 {
                let cpu = cpu.as_secs_f64() * 1e6 / outcome.succeeded as f64;
                results[side].push(TurnResult { rate: outcome.rate(), cpu });
            }
        }
    }
    let rate = row(&results, |result| result.rate);
    let cpu = row(&results, |result| result.cpu);
    write_stdout(&format!("{name}\n   requests/s      {rate}\n   us CPU/request  {cpu}\n"))
}

/// Returns a line with the median of each side, and with the median, the lowest and the highest ratio. The ratio of a
/// round is its value after the change divided by its value before.
fn row(results: &[Vec<TurnResult>; 2], value: impl Fn(&TurnResult) -> f64) -> String {
    let [before, after] = [0, 1].map(|side| results[side].iter().map(&value).collect::<Vec<f64>>());
    let mut ratios: Vec<f64> = before.iter().zip(&after).map(|(before, after)| after / before).collect();
    ratios.sort_unstable_by(f64::total_cmp);
    format!(
        "before {:>9.1}  after {:>9.1}  ratio {:.2} ({:.2}-{:.2})",
        median(&before),
        median(&after),
        median(&ratios),
        ratios.first().copied().unwrap_or_default(),
        ratios.last().copied().unwrap_or_default()
    )
}

/// Measures the memory of both programs, one after the other, and prints it.
async fn memory(configs: &[RunConfig; 2]) -> io::Result<()> {
    let mut results = [FigureResults::default(), FigureResults::default()];
    for (config, results) in configs.iter().zip(&mut results) {
        memory::measure(config, results).await?;
    }
    let [before, after] = results;
    for (before, after) in before.figures.iter().zip(&after.figures) {
        if let (Measurements::Absolute(before_values), Measurements::Absolute(after_values)) =
            (&before.measured, &after.measured)
        {
            let (old, new) = (median(before_values), median(after_values));
            write_stdout(&format!(
                "10 {}\n   {:<15} before {old:>9.1}  after {new:>9.1}  ratio {:.2}\n",
                before.name,
                before.unit,
                new / old
            ))?;
        }
    }
    Ok(())
}
