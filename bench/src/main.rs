//! `chat-bench`: posts a corpus of conversations to a chat API over HTTP, measures the server, and checks that the
//! messages can be read and found. It also compares the chat API with other programs, and two builds of the chat API.
//!
//! Data goes to stdout, everything else to stderr. Exit codes: 0 fine, 1 a finding (such as a message that was not
//! acknowledged or that reads back differently), 2 usage or environment.

mod client;
mod compare;
mod corpus;
mod error;
mod latency;
mod load;
mod manifest;
mod output;
mod progress;
mod retrying_client;
mod tally;
mod verdict;
mod verify;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use error::RunError;
use verdict::Verdict;

// The baseline server runs in this program, and must have the same allocator as the chat API to be comparable.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Loads a chat API with a corpus of conversations, and checks the result.
///
/// Example: chat-bench load --corpus conversations.jsonl --rate 500/s --verify
#[derive(Debug, Parser)]
#[command(name = "chat-bench", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Post a corpus as apps, chats and messages, and measure the server.
    Load(load::LoadArgs),
    /// Read all messages that a manifest lists, and search for a sample of their words.
    Verify(verify::VerifyArgs),
    /// Compare the chat API with a bare handler, Postgres and SQLite.
    Compare(compare::CompareArgs),
    /// Compare two builds of the chat API, measured in turn: posts, reads and memory.
    CompareVersions(compare::CompareVersionsArgs),
    /// Serve the bare handler that `compare` measures as its baseline.
    #[command(name = "bare", hide = true)]
    Baseline(compare::BaselineArgs),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments.command) {
        Ok(Verdict::Passed) => ExitCode::SUCCESS,
        Ok(Verdict::Failed) => ExitCode::from(1),
        Err(error) => {
            // If stderr is closed too, the exit code alone reports the failure.
            let _ = writeln!(std::io::stderr(), "chat-bench: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(command: Command) -> Result<Verdict, RunError> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(RunError::Runtime)?;
    let outcome = runtime.block_on(async {
        match command {
            Command::Load(arguments) => load::run(arguments).await,
            Command::Verify(arguments) => verify::run(arguments).await,
            Command::Compare(arguments) => compare::run(arguments).await,
            Command::CompareVersions(arguments) => compare::run_versions(arguments).await,
            Command::Baseline(arguments) => compare::run_baseline(arguments).await,
        }
    });
    // After Ctrl-C, blocking tasks may still run. The process does not wait for them.
    runtime.shutdown_background();
    outcome
}
