//! `chat-bench verify`: reads all messages that a manifest lists, and searches for a sample of their words.

mod normalize;
mod query_sampling;
mod read_back;
pub mod report;
mod search;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Args;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::Semaphore;

use crate::client::Server;
use crate::error::RunError;
use crate::manifest::{App, Manifest};
use crate::output::OutputFormat;
use crate::progress::Progress;
use crate::retrying_client::RetryingClient;
use crate::verdict::Verdict;
use report::{AppReport, VerifyReport};

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The manifest, as `chat-bench load --manifest` wrote it.
    #[arg(long, value_name = "FILE")]
    manifest: PathBuf,
    /// The server.
    #[arg(long, default_value = "http://127.0.0.1:8000")]
    url: String,
    /// Connections, each with one app at a time.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// The format of the result.
    #[arg(short, long, value_enum, default_value_t)]
    output: OutputFormat,
}

/// Arguments that select the queries of a verification.
#[derive(Clone, Debug, Args)]
pub struct SamplingArgs {
    /// Whole words, prefixes and substrings to search for in each app: up to this many of each.
    #[arg(long, default_value_t = 8, value_name = "N")]
    pub samples: usize,
    /// The seed of the random choice of words (and of the order of `load --shuffle`).
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// Reads the manifest, compares the server's content with it, and prints the result.
pub async fn run(arguments: VerifyArgs) -> Result<Verdict, RunError> {
    let manifest = Manifest::read(&arguments.manifest)?;
    let server = Arc::new(Server::parse(&arguments.url)?);
    server.probe().await?;
    let report = check(manifest, &server, &arguments.sampling, arguments.connections).await;
    report.print(arguments.output).map_err(RunError::Output)?;
    Ok(report.verdict())
}

/// Verifies every app of a manifest, over this many connections.
pub async fn check(
    manifest: Manifest,
    server: &Arc<Server>,
    sampling: &SamplingArgs,
    connections: u16,
) -> VerifyReport {
    let progress = Progress::start("messages verified", manifest.acknowledged_count() as u64);
    let permits = Arc::new(Semaphore::new(usize::from(connections)));
    let tasks: Vec<_> = manifest
        .apps
        .into_iter()
        .map(|app| {
            let (server, permits) = (Arc::clone(server), Arc::clone(&permits));
            tokio::spawn(verify_app(app, server, sampling.clone(), permits, progress.counter()))
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
    sampling: SamplingArgs,
    permits: Arc<Semaphore>,
    verified_messages: Arc<AtomicU64>,
) -> AppReport {
    let mut report = AppReport { app: app.name.clone(), ..AppReport::default() };
    // The semaphore is never closed.
    let Ok(_permit) = permits.acquire().await else { return report };
    let mut client = RetryingClient::new(server);
    read_back::check(&app, &mut client, &mut report).await;
    let random = StdRng::seed_from_u64(sampling.seed);
    search::check(&app, &mut client, random, sampling.samples, &mut report).await;
    let messages: usize = app.chats.values().map(|chat| chat.messages.len()).sum();
    verified_messages.fetch_add(messages as u64, Ordering::Relaxed);
    report
}
