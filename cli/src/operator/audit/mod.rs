//! `chat-api audit`: reads the history of the log, and proves that it is unaltered.

mod explain;
mod export;
mod filter;
mod history;
mod list;
mod proof;
mod render;
mod render_proof;
mod show;
mod stats;
mod subject;
mod tail;
mod trace;

use std::process::ExitCode;

use clap::Subcommand;

use super::answer::{self, Answer};
use crate::failure::Failure;
use crate::operator::common_args::CommonArgs;
use crate::operator::context::{CommandContext, event_store_failure};
use crate::operator::interruption::unless_interrupted;

/// The audit commands.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Show the last position of the log
    #[command(after_help = "Example:\n  chat-api audit head --data-dir ./data")]
    Head(CommonArgs),
    /// List events, by default newest first
    #[command(after_help = "Examples:\n  chat-api audit list --type MessageDeleted --since 2h\n  \
        chat-api audit list --app 9vFR --chat 1 --text fox\n  \
        chat-api audit list --actor operator --order oldest -o json")]
    List(Box<list::ListArgs>),
    /// Show the last events, and with -f also new ones
    #[command(after_help = "Examples:\n  chat-api audit tail -f\n  \
        chat-api audit tail -f -o json --type MessageDeleted | jq '.data.events[]'\n\n\
        With -o json, events that arrive together are one line of JSON.")]
    Tail(Box<tail::TailArgs>),
    /// Show one event with its neighbours, its causes and its effects
    #[command(after_help = "Examples:\n  chat-api audit show 17\n  \
        chat-api audit show 0199f3a2-5d3c-7c4e-9f6d-2b1a0c9e8f70")]
    Show(show::ShowArgs),
    /// Show the requests of a correlation id and the events that each of them caused, across streams
    #[command(after_help = "Example:\n  chat-api audit trace 4bf92f3577b34da6a3ce929d0e0e4736 --since 1d")]
    Trace(Box<trace::TraceArgs>),
    /// Explain a row: each field with the event that set it; or list the rows that an event changed
    #[command(
        subcommand,
        after_help = "Examples:\n  \
        chat-api audit explain message 9vFR 1 17\n  \
        chat-api audit explain event 204"
    )]
    Explain(explain::ExplainCommand),
    /// Show an app, a chat or a message as it was at a position or time
    #[command(after_help = "Examples:\n  \
        chat-api audit at 204 message 9vFR 1 17\n  \
        chat-api audit at 2026-09-21T14:00:00Z app 9vFR")]
    At(history::AtArgs),
    /// Show the changes between two points, and the events that made them
    #[command(after_help = "Example:\n  \
        chat-api audit diff 2026-09-21 2026-09-22 chat 9vFR 1")]
    Diff(history::DiffArgs),
    /// Count events by type, app, actor and hour, and name the streams that grow fastest
    #[command(after_help = "Example:\n  chat-api audit stats --since 1d --top 5\n\n\
        Up to 4,096 different apps, actors and streams are counted exactly. Beyond that, the frequent ones are never missed, \
        and a count that may be too high is marked.")]
    Stats(Box<stats::StatsArgs>),
    /// Write any number of events for other programs
    #[command(
        after_help = "Examples:\n  chat-api audit export --format jsonl --since 1d | jq -c .metadata.actor\n  \
        chat-api audit export --format csv --out day.csv --since 1d"
    )]
    Export(Box<export::ExportArgs>),
    /// Make a key that signs statements about the log
    #[command(after_help = "Example:\n  chat-api audit keygen --out audit.key --name example.com/chat-audit")]
    Keygen(proof::KeygenArgs),
    /// Sign the log's contents, so that later alterations can be detected
    #[command(
        after_help = "Example:\n  chat-api audit checkpoint --key audit.key --out 2026-11-24.checkpoint \\\n    \
        --reason 'the daily checkpoint'"
    )]
    Checkpoint(proof::CheckpointArgs),
    /// Check whether the log was altered, and name the first altered event
    #[command(
        after_help = "Examples:\n  chat-api audit verify --checkpoint log.checkpoint --public-key audit.key.pub\n  \
        chat-api audit verify         checks only that the log is consistent in itself"
    )]
    Verify(proof::VerifyArgs),
    /// Write a proof that an event was in the log, which can be checked without the log
    #[command(
        after_help = "Example:\n  chat-api audit prove 1204 --checkpoint log.checkpoint --out 1204.tlog-proof"
    )]
    Prove(proof::ProveArgs),
    /// Check a proof, without the log
    #[command(
        after_help = "Example:\n  chat-api audit verify-proof 1204.tlog-proof --public-key audit.key.pub"
    )]
    VerifyProof(proof::VerifyProofArgs),
}

pub(super) async fn run(command: Command) -> ExitCode {
    match command {
        Command::Head(common) => answer::print(common.output, show_head(&common).await),
        Command::List(arguments) => answer::print(arguments.common.output, list::run(&arguments).await),
        Command::Tail(arguments) => tail::run(&arguments).await,
        Command::Show(arguments) => answer::print(arguments.common.output, show::run(&arguments).await),
        Command::Trace(arguments) => answer::print(arguments.common.output, trace::run(&arguments).await),
        Command::Explain(arguments) => answer::print(arguments.output(), explain::run(&arguments).await),
        Command::At(arguments) => {
            answer::print(arguments.subject.common().output, history::state_at(&arguments).await)
        }
        Command::Diff(arguments) => {
            answer::print(arguments.subject.common().output, history::diff(&arguments).await)
        }
        Command::Stats(arguments) => answer::print(arguments.common.output, stats::run(&arguments).await),
        Command::Export(arguments) => export::run(&arguments).await,
        Command::Keygen(arguments) => answer::print(arguments.output, proof::keygen(&arguments)),
        Command::Checkpoint(arguments) => {
            let unfinished = "the checkpoint was not made";
            let answer = unless_interrupted(unfinished, Box::pin(proof::checkpoint(&arguments))).await;
            answer::print(arguments.common.output, answer)
        }
        Command::Verify(arguments) => answer::print(arguments.common.output, proof::verify(&arguments).await),
        Command::Prove(arguments) => {
            let answer =
                unless_interrupted("the proof was not made", Box::pin(proof::prove(&arguments))).await;
            answer::print(arguments.common.output, answer)
        }
        Command::VerifyProof(arguments) => answer::print(arguments.output, proof::verify_proof(&arguments)),
    }
}

async fn show_head(common: &CommonArgs) -> Result<Answer, Failure> {
    let context = CommandContext::open(common).await?;
    let head = context.event_store.head().await;
    let head = head.map_err(event_store_failure)?;
    Answer::new(&serde_json::json!({ "position": head }), head.to_string())
}
