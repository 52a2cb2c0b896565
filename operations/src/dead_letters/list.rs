//! Which events could not be applied.

use chat_domain::Position;
use chat_domain::operation::{Generation, ProjectionName};
use chat_ports::dead_letter::{LetterList, WhichLetters};
use serde::Serialize;
use utoipa::ToSchema;

use super::Letter;
use crate::projections::{Projections, ProjectionsError};

/// Which letters to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
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
pub struct Listing {
    /// The letters, by position.
    pub letters: Vec<Letter>,
    /// How many there are in all, by projection.
    pub projections: Vec<Counted>,
    /// Whether more come after these.
    pub more: bool,
}

/// How many letters a projection has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = DeadLetterCounts)]
pub struct Counted {
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
pub async fn list(projections: &Projections, asked: &Asked) -> Result<Listing, ProjectionsError> {
    let mut listing = Listing { letters: Vec::new(), projections: Vec::new(), more: false };
    let mut failure = None;
    for name in &asked.projections {
        let copy = projections.live(*name).await?;
        let list = LetterList {
            after: asked.after,
            limit: asked.limit + 1,
            which: if asked.all { WhichLetters::All } else { WhichLetters::Standing },
            stream: asked.stream.clone(),
        };
        let mut counted = Counted {
            name: *name,
            generation: copy.generation,
            position: None,
            parked: None,
            discarded: None,
            unreadable: None,
        };
        match projections.letters(copy, list).await {
            Ok(page) => {
                counted.position = Some(page.position);
                counted.parked = Some(page.counts.parked);
                counted.discarded = Some(page.counts.discarded);
                listing.letters.extend(page.letters.into_iter().map(|listed| Letter::of(*name, listed)));
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
