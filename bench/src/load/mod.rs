//! `chat-bench load`: posts a corpus and measures the server.

mod report;
mod schedule;
mod setup;
mod visibility;
mod worker;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::client::Server;
use crate::corpus::Corpus;
use crate::error::RunError;
use crate::latency::Latencies;
use crate::manifest::Manifest;
use crate::output::OutputFormat;
use crate::progress::Progress;
use crate::tally::Tally;
use crate::verdict::Verdict;
use crate::verify::{self, SamplingArgs};
use report::LoadReport;
use schedule::{Order, Rate, Schedule};
use setup::Targets;
use visibility::Visibility;
use worker::{Worker, WorkerOutcome};

/// Arguments of `load`.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// The corpus: JSON lines of {"app","chat","body"}.
    #[arg(long, value_name = "FILE")]
    corpus: PathBuf,
    /// The server.
    #[arg(long, default_value = "http://127.0.0.1:8000")]
    url: String,
    /// Connections, each with one request at a time.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    /// Messages per second, such as 500/s. Without a rate, each connection posts as fast as it is answered.
    ///
    /// The messages of a chat are posted one after another, so a corpus of few chats may not reach a high rate without
    /// --shuffle.
    #[arg(long, value_name = "N/s")]
    rate: Option<Rate>,
    /// Post only the first N messages of the corpus.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Post the messages in random order, and several messages of one chat at once.
    #[arg(long)]
    shuffle: bool,
    /// Write the posted messages to a file for `chat-bench verify`. The file holds the apps' tokens.
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// Verify all messages after the load, as `chat-bench verify` does.
    #[arg(long)]
    verify: bool,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// The format of the result.
    #[arg(short, long, value_enum, default_value_t)]
    output: OutputFormat,
}

/// Posts the corpus, waits until every message is visible, and prints the result.
pub async fn run(arguments: LoadArgs) -> Result<Verdict, RunError> {
    let limit = arguments.limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let corpus = Arc::new(Corpus::read(&arguments.corpus, limit)?);
    let server = Arc::new(Server::parse(&arguments.url)?);
    server.probe().await?;

    let targets = Arc::new(setup::create_targets(&corpus, &server).await?);
    let order = if arguments.shuffle {
        Order::Shuffled { seed: arguments.sampling.seed }
    } else {
        Order::InOrderPerChat
    };
    let load_run = post(&corpus, &targets, &server, order, &arguments).await;

    let visibility =
        visibility::measure(&load_run.outcomes, load_run.last_acknowledged_at, &corpus, &targets, &server)
            .await;
    let manifest = build_manifest(&corpus, &targets, &load_run.outcomes);
    if let Some(path) = &arguments.manifest {
        manifest.write(path)?;
    }
    let report = build_report(&corpus, &load_run, arguments.rate, visibility);
    let mut verdict = report.verdict();
    let verification = if arguments.verify {
        let verification = verify::check(manifest, &server, &arguments.sampling, arguments.connections).await;
        verdict = verdict.and(verification.verdict());
        Some(verification)
    } else {
        None
    };
    report.print(verification.as_ref(), arguments.output).map_err(RunError::Output)?;
    Ok(verdict)
}

/// The outcome of posting a corpus.
struct LoadRun {
    outcomes: Vec<WorkerOutcome>,
    /// The time from the start to the last acknowledgement.
    duration: Duration,
    last_acknowledged_at: Instant,
}

async fn post(
    corpus: &Arc<Corpus>,
    targets: &Arc<Targets>,
    server: &Arc<Server>,
    order: Order,
    arguments: &LoadArgs,
) -> LoadRun {
    let progress = Progress::start("messages", corpus.message_count() as u64);
    let start = Instant::now();
    let schedule = Arc::new(Schedule::start(corpus, order, arguments.rate, start));
    let mut workers = JoinSet::new();
    for _ in 0..arguments.connections {
        let worker =
            Worker::new(Arc::clone(corpus), Arc::clone(targets), Arc::clone(server), Arc::clone(&schedule));
        workers.spawn(worker.run(progress.counter()));
    }
    let mut outcomes = Vec::with_capacity(workers.len());
    while let Some(outcome) = workers.join_next().await {
        outcomes.push(outcome.unwrap_or_else(|_| {
            // The worker panicked and has blocked a lane, on which the other workers would wait. The worker's messages
            // and those that are left are reported as not sent.
            schedule.stop();
            WorkerOutcome::new()
        }));
    }
    let acknowledgements = outcomes.iter().filter_map(|outcome| outcome.last_acknowledgement.as_ref());
    let last_acknowledged_at =
        acknowledgements.map(|acknowledgement| acknowledgement.received_at).max().unwrap_or(start);
    LoadRun { outcomes, duration: last_acknowledged_at - start, last_acknowledged_at }
}

fn build_manifest(corpus: &Corpus, targets: &Targets, outcomes: &[WorkerOutcome]) -> Manifest {
    let mut manifest = targets.manifest(corpus);
    for outcome in outcomes {
        for (index, number) in &outcome.posted {
            let (app, chat_number) = (corpus.chats[index.chat].app, targets.chat_numbers[index.chat]);
            let body = corpus.chats[index.chat].bodies[index.message].clone();
            manifest.apps[app].chats.entry(chat_number).or_default().add(*number, body);
        }
    }
    manifest
}

fn build_report(
    corpus: &Corpus,
    load_run: &LoadRun,
    rate: Option<Rate>,
    visibility: Visibility,
) -> LoadReport {
    let (mut latencies, mut retried, mut failed) = (Latencies::new(), Tally::default(), Tally::default());
    for outcome in &load_run.outcomes {
        latencies.add(&outcome.latencies);
        retried.add(&outcome.retried);
        failed.add(&outcome.failed);
    }
    let acknowledged: usize = load_run.outcomes.iter().map(WorkerOutcome::acknowledged_count).sum();
    let unsent = (corpus.message_count() - acknowledged) as u64 - failed.total();
    failed.count_many("not sent", unsent);
    LoadReport {
        messages: corpus.message_count(),
        acknowledged,
        seconds: load_run.duration.as_secs_f64(),
        latency: rate.map(|_| latencies.latency_percentiles()),
        service_time: latencies.service_time_percentiles(),
        retried,
        failed,
        visibility,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::Chat;

    #[tokio::test]
    async fn a_worker_that_panics_ends_the_load() {
        let chats = vec![Chat { app: 0, bodies: vec!["a".to_owned(), "b".to_owned()] }];
        let corpus = Arc::new(Corpus { apps: vec!["an app".to_owned()], chats });
        // The first worker panics because its chat has no target. The second one waits for the chat meanwhile.
        let targets = Arc::new(Targets { app_tokens: Vec::new(), chat_numbers: Vec::new() });
        let server = Arc::new(Server::parse("http://127.0.0.1:1").unwrap());
        let arguments = LoadArgs {
            corpus: PathBuf::new(),
            url: String::new(),
            connections: 2,
            rate: None,
            limit: None,
            shuffle: false,
            manifest: None,
            verify: false,
            sampling: SamplingArgs { samples: 0, seed: 0 },
            output: OutputFormat::default(),
        };
        let load = post(&corpus, &targets, &server, Order::InOrderPerChat, &arguments);
        let load_run = tokio::time::timeout(Duration::from_secs(30), load).await.unwrap();
        let report = build_report(&corpus, &load_run, None, Visibility::default());
        assert_eq!(report.failed.total(), 2);
        assert_eq!(report.verdict(), Verdict::Failed);
    }
}
