//! `chat-api audit`: what happened, and the proof of it.

mod proof;
mod proof_text;

use std::process::ExitCode;

use clap::Subcommand;

use super::answer::{self, Answer};
use super::{Common, Stage};
use crate::failure::Failure;

/// The verbs.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Show where the log ends
    #[command(after_help = "Example:\n  chat-api audit head --data-dir ./data")]
    Head(Common),
    /// Make a key that signs statements about the log
    #[command(after_help = "Example:\n  chat-api audit keygen --out audit.key --name example.com/chat-audit")]
    Keygen(proof::Keygen),
    /// Sign what the log holds, so that it can be told later whether it was altered
    #[command(
        after_help = "Example:\n  chat-api audit checkpoint --key audit.key --out 2026-11-24.checkpoint \\\n    \
        --reason 'the daily checkpoint'"
    )]
    Checkpoint(proof::MakeCheckpoint),
    /// Tell whether the log was altered, and which event first
    #[command(
        after_help = "Examples:\n  chat-api audit verify --checkpoint 2026-11-24.checkpoint --public-key \
        audit.key.pub\n  chat-api audit verify          whether the log holds together by itself"
    )]
    Verify(proof::Verify),
    /// Write a proof that an event was in the log, which can be checked without the log
    #[command(after_help = "Example:\n  chat-api audit prove 1204 --checkpoint 2026-11-24.checkpoint --out \
        1204.tlog-proof")]
    Prove(proof::Prove),
    /// Check a proof, without the log
    #[command(
        after_help = "Example:\n  chat-api audit verify-proof 1204.tlog-proof --public-key audit.key.pub"
    )]
    VerifyProof(proof::VerifyProof),
}

pub(super) async fn run(command: Command) -> ExitCode {
    match command {
        Command::Head(common) => answer::print(common.output, head(&common).await),
        Command::Keygen(arguments) => answer::print(arguments.output, proof::keygen(&arguments)),
        Command::Checkpoint(arguments) => {
            answer::print(arguments.common.output, proof::checkpoint(&arguments).await)
        }
        Command::Verify(arguments) => answer::print(arguments.common.output, proof::verify(&arguments).await),
        Command::Prove(arguments) => answer::print(arguments.common.output, proof::prove(&arguments).await),
        Command::VerifyProof(arguments) => answer::print(arguments.output, proof::verify_proof(&arguments)),
    }
}

async fn head(common: &Common) -> Result<Answer, Failure> {
    let stage = Stage::open(common).await?;
    let head = stage.log.head().await;
    let head = head.map_err(|error| Failure::because("the event log can't be read", &error))?;
    Answer::new(&serde_json::json!({ "position": head }), head.to_string())
}
