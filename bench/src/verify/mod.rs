//! `chat-bench verify`: reads back everything a manifest lists, and searches for words of it.

mod normalize;
mod query_sampling;
mod read_back;
mod search;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Args;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::Serialize;
use tokio::sync::Semaphore;

use crate::client::Server;
use crate::manifest::{App, Manifest};
use crate::progress::Progress;
use crate::report::{self, OutputFormat};
use crate::retrying_client::RetryingClient;
use crate::{Failure, Verdict};

/// What to verify.
#[derive(Debug, Args)]
pub struct Arguments {
    /// What was posted, as `chat-bench load --manifest` wrote it.
    #[arg(long, value_name = "FILE")]
    manifest: PathBuf,
    /// The server.
    #[arg(long, default_value = "http://127.0.0.1:8000")]
    url: String,
    /// Connections, each with one app at a time.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    #[command(flatten)]
    sampling: Sampling,
    /// How to print the result.
    #[arg(short, long, value_enum, default_value_t)]
    output: OutputFormat,
}

/// Which words to search for.
#[derive(Clone, Debug, Args)]
pub struct Sampling {
    /// How many whole words, starts and insides of words to search for in each app.
    #[arg(long, default_value_t = 8, value_name = "N")]
    pub samples: usize,
    /// What the choice of words depends on (and the order of --shuffle).
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// What came of verifying.
#[derive(Clone, Debug, Default, Serialize)]
pub struct VerifyReport {
    /// One for each app, in the manifest's order.
    pub apps: Vec<AppReport>,
}

/// What came of verifying one app.
#[derive(Clone, Debug, Default, Serialize)]
pub struct AppReport {
    /// The app's name.
    pub app: String,
    /// Chats read back.
    pub chats: usize,
    /// Messages read back.
    pub messages: usize,
    /// Pages of messages read, in both directions.
    pub pages: usize,
    /// Whole words searched for, in each spelling and scope.
    pub words: usize,
    /// Starts of words searched for.
    pub starts: usize,
    /// Insides of words searched for.
    pub insides: usize,
    /// Hits read.
    pub hits: usize,
    /// What is wrong, in sentences.
    pub findings: Vec<String>,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    pub fn verdict(&self) -> Verdict {
        if self.apps.iter().all(|app| app.findings.is_empty()) {
            Verdict::Fine
        } else {
            Verdict::FigureResults
        }
    }
}

/// Reads the manifest and verifies it.
pub async fn run(arguments: Arguments) -> Result<Verdict, Failure> {
    let manifest = Manifest::read(&arguments.manifest)?;
    let server = Arc::new(Server::parse(&arguments.url)?);
    server.probe().await?;
    let report = check(manifest, &server, &arguments.sampling, arguments.connections).await;
    report::print_verification(&report, arguments.output).map_err(Failure::Output)?;
    Ok(report.verdict())
}

/// Verifies everything that a manifest lists.
pub async fn check(
    manifest: Manifest,
    server: &Arc<Server>,
    sampling: &Sampling,
    connections: u16,
) -> VerifyReport {
    let progress = Progress::start("messages verified", manifest.messages() as u64);
    let turns = Arc::new(Semaphore::new(usize::from(connections)));
    let tasks: Vec<_> = manifest
        .apps
        .into_iter()
        .map(|app| {
            let task =
                verify_app(app, Arc::clone(server), sampling.clone(), Arc::clone(&turns), progress.counter());
            tokio::spawn(task)
        })
        .collect();
    let mut report = VerifyReport::default();
    for task in tasks {
        report.apps.push(task.await.unwrap_or_else(|panic| AppReport {
            findings: vec![format!("verifying failed: {panic}")],
            ..AppReport::default()
        }));
    }
    report
}

async fn verify_app(
    app: App,
    server: Arc<Server>,
    sampling: Sampling,
    turns: Arc<Semaphore>,
    done: Arc<AtomicU64>,
) -> AppReport {
    let mut report = AppReport { app: app.name.clone(), ..AppReport::default() };
    // The semaphore is never closed.
    let Ok(_turn) = turns.acquire().await else { return report };
    let mut caller = RetryingClient::new(server);
    read_back::check(&app, &mut caller, &mut report).await;
    let random = StdRng::seed_from_u64(sampling.seed);
    search::check(&app, &mut caller, random, sampling.samples, &mut report).await;
    let messages: usize = app.chats.values().map(|chat| chat.messages.len()).sum();
    done.fetch_add(messages as u64, Ordering::Relaxed);
    report
}
