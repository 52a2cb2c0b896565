//! `audit list`

use chat_operations::audit::{ListRequest, Order, list};
use clap::{Args, ValueEnum};

use super::super::answer::{Answer, Severity};
use super::super::{Common, Stage};
use super::filter::Filter;
use super::{shown, unreadable};
use crate::failure::Failure;

/// `audit list`
#[derive(Args)]
pub(crate) struct List {
    /// Which end of the log to begin at
    #[arg(long, value_name = "ORDER", default_value = "newest")]
    order: Which,
    /// How many events to list
    #[arg(long, value_name = "EVENTS", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    limit: u64,
    #[command(flatten)]
    pub(super) common: Common,
    #[command(flatten)]
    filter: Filter,
}

/// In which order events are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Which {
    /// From the end of the log towards its start
    Newest,
    /// From the start of the log towards its end
    Oldest,
}

impl From<Which> for Order {
    fn from(which: Which) -> Self {
        match which {
            Which::Newest => Self::NewestFirst,
            Which::Oldest => Self::OldestFirst,
        }
    }
}

pub(super) async fn run(arguments: &List) -> Result<Answer, Failure> {
    let filter = arguments.filter.parse()?;
    let stage = Stage::open(&arguments.common).await?;
    let request = ListRequest {
        filter,
        order: arguments.order.into(),
        limit: usize::try_from(arguments.limit).unwrap_or(usize::MAX),
        max_scanned_events: u64::MAX,
    };
    let page = list(&*stage.log, request).await.map_err(unreadable)?;
    let next = page.next;
    let answer = Answer::of(&page, shown::events(&page.events))?;
    Ok(match (next, arguments.order) {
        (None, _) => answer,
        (Some(next), Which::Newest) => {
            answer.note(Severity::Note, format!("there are more: go on with --before {next}"))
        }
        (Some(next), Which::Oldest) => {
            answer.note(Severity::Note, format!("there are more: go on with --after {next}"))
        }
    })
}
