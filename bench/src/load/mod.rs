//! `chat-bench load`: posts a corpus and measures it.

mod schedule;
mod setup;
pub mod visibility;
mod worker;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use clap::Args;
use tokio::time::Instant;

use crate::client::Server;
use crate::corpus::Corpus;
use crate::latency::Latencies;
use crate::manifest::Manifest;
use crate::progress::Progress;
use crate::report::{self, LoadReport, OutputFormat};
use crate::tally::Tally;
use crate::verify::{self, Sampling};
use crate::{Failure, Verdict};

use schedule::{Order, Rate, Schedule};
use worker::{Worker, WorkerOutcome};

/// What to post, and how.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The corpus: JSON lines of {"app","chat","body"}.
    #[arg(long, value_name = "FILE")]
    corpus: PathBuf,
    /// The server.
    #[arg(long, default_value = "http://127.0.0.1:8000")]
    url: String,
    /// Connections, each with one request at a time.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    /// Messages a second, such as 500/s. At full speed without.
    ///
    /// The messages of a chat follow one another, so a corpus of few chats may not reach a high rate; --shuffle does.
    #[arg(long, value_name = "N/s")]
    rate: Option<Rate>,
    /// Post only the first N messages of the corpus.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Post the messages in random order, those of one chat at the same time.
    #[arg(long)]
    shuffle: bool,
    /// Write down what was posted, for `chat-bench verify`. The file holds the apps' tokens.
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// Verify everything afterwards, as `chat-bench verify` does.
    #[arg(long)]
    verify: bool,
    #[command(flatten)]
    sampling: Sampling,
    /// How to print the result.
    #[arg(short, long, value_enum, default_value_t)]
    output: OutputFormat,
}

/// Posts, measures, reports.
pub async fn run(arguments: Arguments) -> Result<Verdict, Failure> {
    let limit = arguments.limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let corpus = Arc::new(Corpus::read(&arguments.corpus, limit)?);
    let server = Arc::new(Server::parse(&arguments.url)?);
    server.probe().await?;

    let targets = Arc::new(setup::create_targets(&corpus, &server).await?);
    let order = if arguments.shuffle {
        Order::Shuffled { seed: arguments.sampling.seed }
    } else {
        Order::Conversations
    };
    let run = post(&corpus, &targets, &server, order, &arguments).await;

    let visibility =
        visibility::measure(&run.outcomes, run.last_acknowledged, &corpus, &targets, &server).await;
    let manifest = build_manifest(&corpus, &targets, &run.outcomes);
    if let Some(path) = &arguments.manifest {
        manifest.write(path)?;
    }
    let report = build_report(&corpus, &run, arguments.rate, visibility);
    let mut verdict = report.verdict();
    let verified = if arguments.verify {
        let verified = verify::check(manifest, &server, &arguments.sampling, arguments.connections).await;
        verdict = verdict.and(verified.verdict());
        Some(verified)
    } else {
        None
    };
    report::print_load(&report, verified.as_ref(), arguments.output).map_err(Failure::Output)?;
    Ok(verdict)
}

/// What came of posting.
struct LoadRun {
    outcomes: Vec<WorkerOutcome>,
    duration: Duration,
    last_acknowledged: Instant,
}

async fn post(
    corpus: &Arc<Corpus>,
    targets: &Arc<setup::Targets>,
    server: &Arc<Server>,
    order: Order,
    arguments: &Arguments,
) -> LoadRun {
    let progress = Progress::start("messages", corpus.messages() as u64);
    let counter: Arc<AtomicU64> = progress.counter();
    let start = Instant::now();
    let schedule = Arc::new(Schedule::start(corpus, order, arguments.rate, start));
    let workers: Vec<_> = (0..arguments.connections)
        .map(|_| {
            let worker = Worker::new(
                Arc::clone(corpus),
                Arc::clone(targets),
                Arc::clone(server),
                Arc::clone(&schedule),
            );
            tokio::spawn(worker.run(Arc::clone(&counter)))
        })
        .collect();
    let mut outcomes = Vec::with_capacity(workers.len());
    for worker in workers {
        // A worker that panicked counts as one that did nothing: its messages show as not sent.
        outcomes.push(worker.await.unwrap_or_else(|_| WorkerOutcome::new()));
    }
    let last_acknowledged = outcomes
        .iter()
        .filter_map(|outcome| outcome.last.as_ref())
        .map(|mark| mark.at)
        .max()
        .unwrap_or(start);
    LoadRun { outcomes, duration: last_acknowledged - start, last_acknowledged }
}

fn build_manifest(corpus: &Corpus, targets: &setup::Targets, outcomes: &[WorkerOutcome]) -> Manifest {
    let mut manifest = targets.manifest(corpus);
    for outcome in outcomes {
        for (item, number) in &outcome.posted {
            let (app, chat) = (corpus.chats[item.chat].app, targets.chats[item.chat]);
            let body = corpus.chats[item.chat].bodies[item.message].clone();
            manifest.apps[app].chats.entry(chat).or_default().add(*number, body);
        }
    }
    manifest
}

fn build_report(
    corpus: &Corpus,
    run: &LoadRun,
    rate: Option<Rate>,
    visibility: visibility::Visibility,
) -> LoadReport {
    let (mut latencies, mut retried, mut failed) = (Latencies::new(), Tally::default(), Tally::default());
    for outcome in &run.outcomes {
        latencies.add(&outcome.latencies);
        retried.add(&outcome.retried);
        failed.add(&outcome.failed);
    }
    let acknowledged: usize = run.outcomes.iter().map(WorkerOutcome::acknowledged).sum();
    let unsent = (corpus.messages() - acknowledged) as u64 - failed.total();
    failed.count_many("not sent", unsent);
    LoadReport {
        messages: corpus.messages(),
        acknowledged,
        seconds: run.duration.as_secs_f64(),
        latency: rate.map(|_| latencies.response()),
        service_time: latencies.service_times(),
        retried,
        failed,
        visibility,
    }
}
