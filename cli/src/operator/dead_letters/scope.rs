//! Arguments and helpers that the dead-letter commands share.

use std::time::Duration;

use chat_domain::projection::ProjectionName;
use chat_domain::{Position, StreamId};
use chat_operations::audit::{EventFilter, unmatched_names};
use chat_operations::dead_letters::list::{DeadLetterListing, ListOptions, ProjectionDeadLetters, list};
use chat_operations::projections::Projections;
use clap::Args;

use crate::engines::EngineOptions;
use crate::failure::Failure;
use crate::operator::answer::{Answer, Severity};
use crate::operator::common_args::CommonArgs;
use crate::operator::context::event_store_failure;
use crate::operator::filter;
use crate::operator::projections::common::{
    is_location_given, location_advice, open_projections, projections_failure,
};
use crate::projection_name::ProjectionNameArg;

/// Arguments that select projections.
#[derive(Args)]
pub(super) struct ScopeArgs {
    /// Only this projection [default: both]
    #[arg(long, value_name = "PROJECTION")]
    projection: Option<ProjectionNameArg>,
    #[command(flatten)]
    pub(super) common: CommonArgs,
}

/// How long a command waits for the effect of an action that it has recorded.
#[derive(Args)]
pub(super) struct WaitArgs {
    /// Seconds to wait until the projections have applied the action
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    wait: u64,
}

impl WaitArgs {
    pub(super) fn timeout(&self) -> Duration {
        Duration::from_secs(self.wait)
    }
}

/// The projections that a command works on.
pub(super) struct Scope {
    /// The log, and the locations of all projections.
    pub(super) projections: Projections,
    /// The selected projections that can be read from this machine.
    pub(super) names: Vec<ProjectionName>,
    /// The selected projections that can't be read. Always empty with `--projection` and for actions: there, a projection
    /// that can't be read is a failure.
    pub(super) unreadable: Vec<ProjectionDeadLetters>,
}

impl ScopeArgs {
    pub(super) fn names(&self) -> Vec<ProjectionName> {
        self.projection.map_or_else(|| ProjectionName::ALL.to_vec(), |name| vec![name.into()])
    }

    pub(super) async fn open(&self) -> Result<Scope, Failure> {
        let projections = open_projections(&self.common).await?;
        // The listing is used only to find out which projections can be read, so the dead letters are left out.
        let options = ListOptions {
            projections: self.names(),
            stream: None,
            all: false,
            after: Position::START,
            limit: 0,
        };
        let listing = list(&projections, &options).await.map_err(projections_failure)?;
        let listing = with_location_advice(listing, &self.common.engines);
        let (unreadable, readable): (Vec<_>, Vec<_>) =
            listing.projections.into_iter().partition(|listed| listed.unreadable.is_some());
        let names = readable.into_iter().map(|listed| listed.projection).collect();
        Ok(Scope { projections, names, unreadable })
    }

    /// Opens the projections for an action. Fails if a selected projection can't be read: the action would not be
    /// recorded for it.
    pub(super) async fn open_for_action(&self) -> Result<Scope, Failure> {
        let scope = self.open().await?;
        let Some(ProjectionDeadLetters { projection, unreadable: Some(reason), .. }) =
            scope.unreadable.first()
        else {
            return Ok(scope);
        };
        let readable = scope.names.iter().map(|name| format!("--projection {}", name.as_str()));
        let readable = readable.collect::<Vec<_>>().join(" or ");
        Err(Failure::new(format!(
            "{} can't be read: {reason}. To leave it out, use {readable}",
            projection.as_str()
        )))
    }
}

/// Adds to the reason why a projection can't be read that its location may be missing.
pub(super) fn with_location_advice(
    mut listing: DeadLetterListing,
    engines: &EngineOptions,
) -> DeadLetterListing {
    for listed in &mut listing.projections {
        if let Some(reason) = &mut listed.unreadable
            && !is_location_given(engines, listed.projection)
        {
            *reason = format!("{reason}; {}", location_advice(listed.projection));
        }
    }
    listing
}

/// Adds a warning for each projection that was left out.
pub(super) fn warn_of_unreadable_projections(answer: Answer, unreadable: &[ProjectionDeadLetters]) -> Answer {
    answer.with_diagnostics(unreadable.iter().filter_map(ProjectionDeadLetters::unreadable_warning))
}

/// Finds the stream that an argument names.
pub(super) async fn resolve_stream(
    projections: &Projections,
    stream: Option<&str>,
) -> Result<Option<String>, Failure> {
    match stream {
        Some(stream) => filter::resolve_stream(&*projections.log, stream).await.map(Some),
        None => Ok(None),
    }
}

/// Adds a warning if the log has no stream of this name.
pub(super) async fn warn_of_unknown_stream(
    answer: Answer,
    projections: &Projections,
    stream: &str,
) -> Result<Answer, Failure> {
    Ok(match describe_unknown_stream(projections, stream).await? {
        Some(unknown) => answer.with_diagnostic(Severity::Warning, unknown),
        None => answer,
    })
}

/// Says that the log has no stream of this name, and suggests similar names. `None` if the log has the stream.
pub(super) async fn describe_unknown_stream(
    projections: &Projections,
    stream: &str,
) -> Result<Option<String>, Failure> {
    let filter = EventFilter { stream: Some(stream.into()), ..EventFilter::default() };
    let unmatched = unmatched_names(&*projections.log, &filter).await.map_err(event_store_failure)?;
    Ok(unmatched.into_iter().next().map(|diagnostic| diagnostic.message))
}

/// Refuses the abbreviated name of a stream, which only the commands without `--server` resolve.
pub(super) fn refuse_abbreviated_stream(stream: Option<&str>) -> Result<(), Failure> {
    if stream.is_some_and(is_abbreviated) {
        return Err(Failure::new("with --server, --stream needs the whole name of the stream"));
    }
    Ok(())
}

/// Whether a text may be the abbreviated name of a stream: it begins like the name of an app's or a chat's stream, but
/// is not a whole name.
fn is_abbreviated(stream: &str) -> bool {
    let has_stream_prefix = stream.starts_with("app-") || stream.starts_with("chat-");
    has_stream_prefix && StreamId::parse(stream).is_err()
}
