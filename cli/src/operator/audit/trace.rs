//! `audit trace`: shows the requests of a correlation id and their events as a tree.

use std::fmt::Write as _;

use chat_operations::audit::{Trace, trace};
use clap::Args;

use super::super::answer::Answer;
use super::super::filter::warn_of_unmatched_names;
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
    arguments.filter.check()?;
    let context = CommandContext::open(&arguments.common).await?;
    let filter = arguments.filter.parse(&*context.event_store).await?;
    let max_scanned_events = u64::MAX;
    let trace = trace(&*context.event_store, &arguments.correlation_id, filter.clone(), max_scanned_events)
        .await
        .map_err(event_store_failure)?;
    let answer = Answer::from_report(&trace, trace_text(&trace))?;
    if !trace.requests.is_empty() {
        return Ok(answer);
    }
    warn_of_unmatched_names(answer, &*context.event_store, &filter).await
}

fn trace_text(trace: &Trace) -> String {
    if trace.requests.is_empty() {
        return format!("no event has the correlation id {}\n", escaped(&trace.correlation_id));
    }
    let mut text = format!("{}\n", escaped(&trace.correlation_id));
    for (index, request) in trace.requests.iter().enumerate() {
        let is_last_request = index + 1 == trace.requests.len();
        let (branch, stem) = if is_last_request { ("└─", "   ") } else { ("├─", "│  ") };
        let (id, command) = (escaped(&request.request_id), escaped(&request.command));
        let actor = render::actor_label(Some(&request.actor));
        // Writing to a String can't fail.
        let _ = writeln!(text, "{branch} request {id}, {command} by {actor}");
        for (event_index, event) in request.events.iter().enumerate() {
            let twig = if event_index + 1 == request.events.len() { "└─" } else { "├─" };
            let _ = writeln!(text, "{stem}{twig} {}", render::event_line(event));
        }
    }
    text
}
