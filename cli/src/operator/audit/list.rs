//! `audit list`: lists a page of the events that match a filter.

use chat_operations::audit::{ListRequest, Order, list};
use clap::{Args, ValueEnum};

use super::super::answer::{Answer, Severity};
use super::super::filter::warn_of_unmatched_names;
use super::filter::AuditFilterArgs;
use super::render;
use crate::failure::Failure;
use crate::operator::common_args::CommonArgs;
use crate::operator::context::{CommandContext, event_store_failure};

/// Arguments of `audit list`.
#[derive(Args)]
pub(crate) struct ListArgs {
    /// Order of the events
    #[arg(long, value_name = "ORDER", default_value = "newest")]
    order: ListOrder,
    /// Maximum number of events
    #[arg(long, value_name = "EVENTS", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    limit: u64,
    #[command(flatten)]
    pub(super) common: CommonArgs,
    #[command(flatten)]
    filter: AuditFilterArgs,
}

/// The order in which events are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ListOrder {
    /// From the end of the log towards its start
    Newest,
    /// From the start of the log towards its end
    Oldest,
}

impl From<ListOrder> for Order {
    fn from(order: ListOrder) -> Self {
        match order {
            ListOrder::Newest => Self::NewestFirst,
            ListOrder::Oldest => Self::OldestFirst,
        }
    }
}

pub(super) async fn run(arguments: &ListArgs) -> Result<Answer, Failure> {
    arguments.filter.check()?;
    let context = CommandContext::open(&arguments.common).await?;
    let filter = arguments.filter.parse(&*context.event_store).await?;
    let request = ListRequest {
        filter: filter.clone(),
        order: arguments.order.into(),
        limit: usize::try_from(arguments.limit).unwrap_or(usize::MAX),
        max_scanned_events: u64::MAX,
    };
    let page = list(&*context.event_store, request).await.map_err(event_store_failure)?;
    let next = page.next;
    let mut answer = Answer::from_report(&page, render::events_table(&page.events))?;
    if page.events.is_empty() {
        answer = warn_of_unmatched_names(answer, &*context.event_store, &filter).await?;
    }
    Ok(match (next, arguments.order) {
        (None, _) => answer,
        (Some(next), ListOrder::Newest) => {
            answer.with_diagnostic(Severity::Note, format!("there are more: continue with --before {next}"))
        }
        (Some(next), ListOrder::Oldest) => {
            answer.with_diagnostic(Severity::Note, format!("there are more: continue with --after {next}"))
        }
    })
}
