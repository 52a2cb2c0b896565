//! `chat-api audit`: what happened, and the proof of it.

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
}

pub(super) async fn run(command: Command) -> ExitCode {
    match command {
        Command::Head(common) => answer::print(common.output, head(&common).await),
    }
}

async fn head(common: &Common) -> Result<Answer, Failure> {
    let stage = Stage::open(common).await?;
    let head = stage.log.head().await;
    let head = head.map_err(|error| Failure::because("the event log can't be read", &error))?;
    Answer::new(&serde_json::json!({ "position": head }), head.to_string())
}
