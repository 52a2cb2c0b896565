//! `dead-letters list`: lists dead letters, the commands that they block, and the counts of each projection.

use chat_domain::Position;
use chat_operations::dead_letters::list::{DeadLetterListing, ListOptions, list};
use clap::Args;

use super::render::{counts_line, dead_letters_table, refused_commands_line};
use super::scope::{ScopeArgs, resolve_stream, warn_of_unknown_stream};
use crate::failure::Failure;
use crate::operator::answer::{Answer, Severity};
use crate::operator::projections::common::{open_projections, projections_failure};

#[derive(Args)]
pub(crate) struct Options {
    /// Only events of this stream
    #[arg(long, value_name = "STREAM")]
    stream: Option<String>,
    /// Also events that wait behind another one, and acknowledged discards
    #[arg(long)]
    all: bool,
    /// Only events after this position
    #[arg(long, value_name = "POSITION")]
    after: Option<u64>,
    /// Maximum number of events
    #[arg(long, value_name = "EVENTS", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    #[command(flatten)]
    pub(super) scope: ScopeArgs,
}

pub(super) async fn run(options: &Options) -> Result<Answer, Failure> {
    let projections = open_projections(&options.scope.common).await?;
    let stream = resolve_stream(&projections, options.stream.as_deref()).await?;
    let list_options = ListOptions {
        projections: options.scope.names(),
        stream: stream.clone(),
        all: options.all,
        after: Position::new(options.after.unwrap_or(0)),
        limit: usize::try_from(options.limit).unwrap_or(usize::MAX),
    };
    let listing = list(&projections, &list_options).await.map_err(projections_failure)?;
    let mut answer = Answer::from_report(&listing, listing_text(&listing))?;
    if let Some(stream) = stream.filter(|_| listing.dead_letters.is_empty()) {
        answer = warn_of_unknown_stream(answer, &projections, &stream).await?;
    }
    if let Some(last) = listing.dead_letters.last().filter(|_| listing.more) {
        let more = format!("there are more; --after {} lists them", last.position);
        answer = answer.with_diagnostic(Severity::Note, more);
    }
    Ok(answer)
}

fn listing_text(listing: &DeadLetterListing) -> String {
    let mut text = dead_letters_table(&listing.dead_letters);
    if !text.is_empty() {
        text.push('\n');
    }
    let refusals = listing.dead_letters.iter().filter_map(refused_commands_line);
    text.extend(refusals);
    for projection in listing.projections.iter().filter(|projection| projection.unreadable.is_none()) {
        text += &counts_line(projection);
    }
    text
}
