//! `chat-bench`: posts a corpus of conversations to a chat API over HTTP, measures how it does, and checks that
//! everything can be read and found again.
//!
//! Data goes to stdout, everything else to stderr. Exit codes: 0 fine, 1 a finding (a message that was not
//! acknowledged, or that reads back wrong), 2 usage or environment.

mod client;
mod compare;
mod corpus;
mod latency;
mod load;
mod manifest;
mod progress;
mod report;
mod retrying_client;
mod tally;
mod verify;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use thiserror::Error;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Loads a chat API with a corpus of conversations, and checks what became of it.
#[derive(Debug, Parser)]
#[command(name = "chat-bench", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Post a corpus as apps, chats and messages, and measure it.
    Load(load::Arguments),
    /// Read back everything a manifest lists, and search for words of it.
    Verify(verify::Arguments),
    /// Compare the chat API with what the machine can do, and write a report.
    Compare(compare::Arguments),
    /// Serve a bare handler: what `compare` compares with.
    #[command(hide = true)]
    Bare(compare::BareArguments),
}

/// Why there is no result at all: exit code 2.
#[derive(Debug, Error)]
enum Failure {
    #[error(transparent)]
    Corpus(#[from] corpus::CorpusError),
    #[error(transparent)]
    Manifest(#[from] manifest::ManifestError),
    #[error(transparent)]
    Server(#[from] client::ServerError),
    #[error("can't start the runtime: {0}")]
    Runtime(#[source] std::io::Error),
    #[error("{0}")]
    Environment(#[source] std::io::Error),
    #[error("can't write the result: {0}")]
    Output(#[source] std::io::Error),
}

/// Whether everything was as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Fine,
    FigureResults,
}

impl Verdict {
    fn and(self, other: Self) -> Self {
        if self == Self::Fine { other } else { self }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments.command) {
        Ok(Verdict::Fine) => ExitCode::SUCCESS,
        Ok(Verdict::FigureResults) => ExitCode::from(1),
        Err(failure) => {
            // Where stderr is gone too, the exit code is all there is to say.
            let _ = writeln!(std::io::stderr(), "chat-bench: {failure}");
            ExitCode::from(2)
        }
    }
}

fn run(command: Command) -> Result<Verdict, Failure> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::Runtime)?;
    let done = runtime.block_on(async {
        match command {
            Command::Load(arguments) => load::run(arguments).await,
            Command::Verify(arguments) => verify::run(arguments).await,
            Command::Compare(arguments) => compare::run(arguments).await,
            Command::Bare(arguments) => compare::run_bare(arguments).await,
        }
    });
    // After Ctrl-C, threads may still be at work on what nobody waits for.
    runtime.shutdown_background();
    done
}

/// Writes to standard output, at once.
fn write_stdout(text: &str) -> std::io::Result<()> {
    let mut output = std::io::stdout();
    output.write_all(text.as_bytes())?;
    output.flush()
}
