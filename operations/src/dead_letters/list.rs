//! Which events could not be applied.

use chat_domain::Position;
use chat_domain::operator_action::{Generation, ProjectionName};
use chat_ports::dead_letter::{DeadLetterFilter, DeadLetterQuery};
use serde::Serialize;
use utoipa::ToSchema;

use super::DeadLetterView;
use crate::projections::{Projections, ProjectionsError};

/// Which letters to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListOptions {
    /// Of which projections.
    pub projections: Vec<ProjectionName>,
    /// Of this stream; `None`: of any.
    pub stream: Option<String>,
    /// Those that wait behind another one, too, and those whose discarding was acknowledged.
    pub all: bool,
    /// Those after this position.
    pub after: Position,
    /// About so many: an event that several projections have parked is not torn apart.
    pub limit: usize,
}

/// A page of letters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = DeadLetters)]
pub struct DeadLetterListing {
    /// The letters, by position.
    pub letters: Vec<DeadLetterView>,
    /// How many there are in all, by projection.
    pub projections: Vec<ProjectionDeadLetters>,
    /// Whether more come after these.
    pub more: bool,
}

/// How many letters a projection has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = DeadLetterCounts)]
pub struct ProjectionDeadLetters {
    /// The projection.
    #[schema(value_type = String)]
    pub name: ProjectionName,
    /// The generation of it that readers see.
    #[schema(value_type = u32)]
    pub generation: Generation,
    /// Up to where it has folded the log.
    #[schema(value_type = Option<u64>)]
    pub position: Option<Position>,
    /// Events that are parked.
    pub parked: Option<u64>,
    /// Events that were discarded, and nobody has acknowledged it.
    pub discarded: Option<u64>,
    /// Why it can't be read from here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
}

/// Lists letters. A projection that can't be read is no failure where another one can: at scale a search index is on the
/// hosts that answer queries, and nowhere else.
pub async fn list(
    projections: &Projections,
    asked: &ListOptions,
) -> Result<DeadLetterListing, ProjectionsError> {
    let mut listing = DeadLetterListing { letters: Vec::new(), projections: Vec::new(), more: false };
    let mut failure = None;
    for name in &asked.projections {
        let copy = projections.live_generation(*name).await?;
        let list = DeadLetterQuery {
            after: asked.after,
            limit: asked.limit + 1,
            filter: if asked.all { DeadLetterFilter::All } else { DeadLetterFilter::NeedsAttention },
            stream: asked.stream.clone(),
        };
        let mut counted = ProjectionDeadLetters {
            name: *name,
            generation: copy.generation,
            position: None,
            parked: None,
            discarded: None,
            unreadable: None,
        };
        match projections.dead_letters(copy, list).await {
            Ok(page) => {
                counted.position = Some(page.position);
                counted.parked = Some(page.counts.pending);
                counted.discarded = Some(page.counts.unacknowledged_discards);
                listing.letters.extend(
                    page.letters.into_iter().map(|listed| DeadLetterView::from_listed(*name, listed)),
                );
            }
            Err(error) => {
                counted.unreadable = Some(error.to_string());
                failure = Some(error);
            }
        }
        listing.projections.push(counted);
    }
    if let Some(failure) = failure
        && listing.projections.iter().all(|counted| counted.unreadable.is_some())
    {
        return Err(failure);
    }
    listing.letters.sort_unstable_by_key(|letter| (letter.position, letter.projection));
    if let Some(last) = listing.letters.get(asked.limit.saturating_sub(1)).map(|letter| letter.position) {
        let found = listing.letters.len();
        listing.letters.retain(|letter| letter.position <= last);
        listing.more = listing.letters.len() < found;
    }
    Ok(listing)
}
