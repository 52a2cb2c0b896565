//! `audit trace`: shows the requests of a correlation id and their events as a tree.

use std::fmt::Write as _;

use chat_operations::audit::{Trace, trace};
use clap::Args;

use super::super::answer::Answer;
use super::super::terminal_text::escaped;
use super::filter::AuditFilterArgs;
use super::render;
use crate::failure::Failure;
use crate::operator::common_args::CommonArgs;
use crate::operator::context::{CommandContext, event_store_failure};

/// Arguments of `audit trace`.
#[derive(Args)]
pub(crate) struct TraceArgs {
    /// The trace id of traceparent, or the X-Request-Id of a request
    #[arg(value_name = "CORRELATION_ID")]
    correlation_id: String,
    #[command(flatten)]
    pub(super) common: CommonArgs,
    #[command(flatten)]
    filter: AuditFilterArgs,
}

pub(super) async fn run(arguments: &TraceArgs) -> Result<Answer, Failure> {
    let filter = arguments.filter.parse()?;
    let context = CommandContext::open(&arguments.common).await?;
    let trace = trace(&*context.event_store, &arguments.correlation_id, filter, u64::MAX)
        .await
        .map_err(event_store_failure)?;
    Answer::from_report(&trace, trace_text(&trace))
}

fn trace_text(trace: &Trace) -> String {
    if trace.requests.is_empty() {
        return format!("no event has the correlation id {}\n", escaped(&trace.correlation_id));
    }
    let mut text = format!("{}\n", escaped(&trace.correlation_id));
    for (index, request) in trace.requests.iter().enumerate() {
        let last = index + 1 == trace.requests.len();
        let (branch, stem) = if last { ("└─", "   ") } else { ("├─", "│  ") };
        let (id, command) = (escaped(&request.request_id), escaped(&request.command));
        let actor = render::actor_label(Some(&request.actor));
        // Writing to a String can't fail.
        let _ = writeln!(text, "{branch} request {id}, {command} by {actor}");
        let table = render::events_table(&request.events);
        let lines: Vec<&str> = table.lines().skip(1).collect();
        for (index, line) in lines.iter().enumerate() {
            let twig = if index + 1 == lines.len() { "└─" } else { "├─" };
            let _ = writeln!(text, "{stem}{twig} {line}");
        }
    }
    text
}
