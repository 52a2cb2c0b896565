//! `dead-letters list`: lists dead letters, the commands that they block, and the counts of each projection.

use chat_domain::Position;
use chat_operations::dead_letters::list::{DeadLetterListing, ListOptions, list};
use clap::Args;

use super::render::{counts_line, dead_letters_table, refused_commands_line};
use super::scope::{
    ScopeArgs, refuse_abbreviated_stream, resolve_stream, warn_of_unknown_stream, with_location_advice,
};
use crate::failure::Failure;
use crate::operator::answer::{Answer, Severity};
use crate::operator::projections::common::{open_projections, projections_failure};
use crate::operator::server::{ReadServerArgs, ServerReader};

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
    server: ReadServerArgs,
    #[command(flatten)]
    pub(super) scope: ScopeArgs,
}

pub(super) async fn run(options: &Options) -> Result<Answer, Failure> {
    if let Some(server) = options.server.connect() {
        return list_at_server(&server?, options).await;
    }
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
    let listing = with_location_advice(listing, &options.scope.common.engines);
    let mut answer = Answer::from_report(&listing, listing_text(&listing))?;
    if let Some(stream) = stream.filter(|_| listing.dead_letters.is_empty()) {
        answer = warn_of_unknown_stream(answer, &projections, &stream).await?;
    }
    if let Some(more) = more_note(&listing) {
        answer = answer.with_diagnostic(Severity::Note, more);
    }
    Ok(answer)
}

async fn list_at_server(server: &ServerReader, options: &Options) -> Result<Answer, Failure> {
    refuse_abbreviated_stream(options.stream.as_deref())?;
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("limit", &options.limit.to_string());
    query.append_pair("all", &options.all.to_string());
    if let [projection] = options.scope.names()[..] {
        query.append_pair("projection", projection.as_str());
    }
    if let Some(stream) = &options.stream {
        query.append_pair("stream", stream);
    }
    if let Some(after) = options.after {
        query.append_pair("after", &after.to_string());
    }
    let answer = server.read(&format!("dead-letters?{}", query.finish()), listing_text).await?;
    let listing = serde_json::from_str::<DeadLetterListing>(answer.data.get()).ok();
    Ok(match listing.as_ref().and_then(more_note) {
        Some(more) => answer.with_diagnostic(Severity::Note, more),
        None => answer,
    })
}

/// Says how to list the rest, if there are more dead letters.
fn more_note(listing: &DeadLetterListing) -> Option<String> {
    let last = listing.dead_letters.last().filter(|_| listing.more)?;
    Some(format!("there are more; --after {} lists them", last.position))
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
