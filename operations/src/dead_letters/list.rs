//! Lists dead letters.

use chat_domain::Position;
use chat_domain::projection::{Generation, ProjectionName};
use chat_ports::dead_letter::{DeadLetterFilter, DeadLetterQuery};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::refused_commands::refused_commands;
use super::{DeadLetterState, DeadLetterView};
use crate::envelope::{Diagnostic, Report};
use crate::projections::{Projections, ProjectionsError};

/// The dead letters to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListOptions {
    /// The projections.
    pub projections: Vec<ProjectionName>,
    /// Only the dead letters of this stream.
    pub stream: Option<String>,
    /// Whether to list also the dead letters that wait behind another one, and acknowledged discards.
    pub all: bool,
    /// Only the dead letters after this position.
    pub after: Position,
    /// The approximate number of dead letters on a page: if several projections have a dead letter of the page's last
    /// event, the page has all of these.
    pub limit: usize,
}

/// A page of dead letters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = DeadLetters)]
pub struct DeadLetterListing {
    /// The dead letters, by position.
    #[serde(rename = "letters")]
    pub dead_letters: Vec<DeadLetterView>,
    /// The total numbers, by projection.
    pub projections: Vec<ProjectionDeadLetters>,
    /// Whether more follow.
    pub more: bool,
}

/// The number of dead letters of a projection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = DeadLetterCounts)]
pub struct ProjectionDeadLetters {
    /// The projection.
    #[schema(value_type = String)]
    pub projection: ProjectionName,
    /// Its live generation.
    #[schema(value_type = u32)]
    pub generation: Generation,
    /// The position up to which the generation is folded.
    #[schema(value_type = Option<u64>)]
    pub position: Option<Position>,
    /// The number of dead letters that block their streams or wait behind such a dead letter.
    #[serde(rename = "parked")]
    pub pending: Option<u64>,
    /// The number of discarded dead letters that are not acknowledged.
    pub discarded: Option<u64>,
    /// Why the projection can't be read on this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
}

impl Report for DeadLetterListing {
    /// Whether a projection has pending dead letters or unacknowledged discards, on this page or another one.
    fn has_findings(&self) -> bool {
        let needing_attention =
            |counts: &ProjectionDeadLetters| counts.pending.unwrap_or(0) + counts.discarded.unwrap_or(0);
        self.projections.iter().any(|counts| needing_attention(counts) > 0)
    }

    /// Returns a warning for each projection that is left out.
    fn diagnostics(&self) -> Vec<Diagnostic> {
        self.projections.iter().filter_map(ProjectionDeadLetters::unreadable_warning).collect()
    }
}

impl ProjectionDeadLetters {
    /// Returns a warning that the projection is left out, if it can't be read.
    pub fn unreadable_warning(&self) -> Option<Diagnostic> {
        let reason = self.unreadable.as_ref()?;
        Some(Diagnostic::warning(format!("{} is left out: {reason}", self.projection.as_str())))
    }
}

/// Lists dead letters. Succeeds if at least one projection can be read: at scale, search indexes exist only on the
/// hosts that answer queries.
pub async fn list(
    projections: &Projections,
    options: &ListOptions,
) -> Result<DeadLetterListing, ProjectionsError> {
    let mut listing = DeadLetterListing { dead_letters: Vec::new(), projections: Vec::new(), more: false };
    let mut failure = None;
    for name in &options.projections {
        let generation_id = projections.live_generation(*name).await?;
        let query = DeadLetterQuery {
            after: options.after,
            limit: options.limit + 1,
            filter: if options.all { DeadLetterFilter::All } else { DeadLetterFilter::NeedsAttention },
            stream: options.stream.clone(),
        };
        let mut counts = ProjectionDeadLetters {
            projection: *name,
            generation: generation_id.generation,
            position: None,
            pending: None,
            discarded: None,
            unreadable: None,
        };
        match projections.dead_letters(generation_id, query).await {
            Ok(page) => {
                counts.position = Some(page.position);
                counts.pending = Some(page.counts.pending);
                counts.discarded = Some(page.counts.unacknowledged_discards);
                listing.dead_letters.extend(
                    page.dead_letters.into_iter().map(|listed| DeadLetterView::from_listed(*name, listed)),
                );
            }
            Err(error) => {
                counts.unreadable = Some(error.to_string());
                failure = Some(error);
            }
        }
        listing.projections.push(counts);
    }
    if let Some(failure) = failure
        && listing.projections.iter().all(|counts| counts.unreadable.is_some())
    {
        return Err(failure);
    }
    listing.dead_letters.sort_unstable_by_key(|dead_letter| (dead_letter.position, dead_letter.projection));
    // The page ends with all dead letters of the event at the position `last`.
    if let Some(last) =
        listing.dead_letters.get(options.limit.saturating_sub(1)).map(|dead_letter| dead_letter.position)
    {
        let found = listing.dead_letters.len();
        listing.dead_letters.retain(|dead_letter| dead_letter.position <= last);
        listing.more = listing.dead_letters.len() < found;
    }
    // Commands find the last number of a stream by the same rules as the read model. So a dead letter of the read model
    // can mean that commands are refused, and one of the search index alone can't.
    let blocking = listing.dead_letters.iter_mut().filter(|dead_letter| {
        dead_letter.projection == ProjectionName::ReadModel && dead_letter.state == DeadLetterState::Blocking
    });
    for dead_letter in blocking {
        dead_letter.refused_commands =
            refused_commands(&*projections.log, &dead_letter.stream, dead_letter.position).await?;
    }
    Ok(listing)
}
