//! No step back when the projections that queries are answered from are replaced.
//!
//! When they are, the new ones have reached what answers have shown. But requests that began before still end on the old
//! ones, which may move on until then, and so show something later than what the new ones have. As long as there are
//! such requests, and until the new ones are past what these have shown, each answer from the new ones must be as of the
//! newest position that was ever shown: a floor, as if each client had brought a consistency token with it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use chat_domain::Position;
use chat_web::consistency::{DEFAULT_WAIT, Freshness};

use crate::api::LiveProjections;

/// The newest positions that answers have shown.
#[derive(Debug, Default)]
pub(crate) struct AnsweredPositions {
    read_model: AtomicU64,
    search_index: AtomicU64,
}

impl AnsweredPositions {
    /// Nothing newer than this was shown.
    pub(crate) fn from_positions((rows, documents): (Position, Position)) -> Self {
        Self { read_model: AtomicU64::new(rows.get()), search_index: AtomicU64::new(documents.get()) }
    }

    /// An answer from the read model is about to be given.
    pub(crate) fn record_read_model(&self, position: Position) {
        raise(&self.read_model, position);
    }

    /// An answer from the search index is about to be given.
    pub(crate) fn record_search_index(&self, position: Position) {
        raise(&self.search_index, position);
    }

    pub(crate) fn newest(&self) -> (Position, Position) {
        let position = |of: &AtomicU64| Position::new(of.load(Ordering::SeqCst));
        (position(&self.read_model), position(&self.search_index))
    }
}

/// Raises a position, without writing to it where it is as high already, as it mostly is: the processors share it.
fn raise(highest: &AtomicU64, position: Position) {
    if highest.load(Ordering::SeqCst) < position.get() {
        highest.fetch_max(position.get(), Ordering::SeqCst);
    }
}

/// What an answer must hold whatever the client asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MinimumPositions {
    read_model: Option<Position>,
    search_index: Option<Position>,
}

impl MinimumPositions {
    pub(crate) fn is_unconstrained(self) -> bool {
        self == Self::default()
    }

    /// What is asked of an answer from the read model.
    pub(crate) fn raise_read_model_freshness(self, freshness: Freshness) -> Freshness {
        raise_freshness(freshness, self.read_model)
    }

    /// What is asked of an answer from the search index.
    pub(crate) fn raise_search_freshness(self, freshness: Freshness) -> Freshness {
        raise_freshness(freshness, self.search_index)
    }
}

fn raise_freshness(freshness: Freshness, floor: Option<Position>) -> Freshness {
    if floor <= freshness.min_position {
        return freshness;
    }
    // The client did not ask to wait, and is not to be turned away for what it knows nothing of.
    Freshness { min_position: floor, max_wait: freshness.max_wait.max(DEFAULT_WAIT) }
}

/// The time after a switch in which there is a floor.
pub(crate) struct MonotonicReadGuard {
    /// What requests may still be at work on.
    previous: Vec<Weak<LiveProjections>>,
    /// What had been shown when the last of these requests had ended.
    final_positions: Mutex<Option<(Position, Position)>>,
}

impl MonotonicReadGuard {
    /// After a switch away from `before`, and maybe another one not long before that.
    pub(crate) fn after_switch_over(before: &Arc<LiveProjections>, earlier: Option<Self>) -> Self {
        let mut all = earlier.map(|earlier| earlier.previous).unwrap_or_default();
        all.retain(|sources| sources.strong_count() > 0);
        all.push(Arc::downgrade(before));
        Self { previous: all, final_positions: Mutex::new(None) }
    }

    /// What a request that begins now must be answered with at least. None once nobody can have been shown more than
    /// the new projections have answered with.
    pub(crate) fn minimum_positions(
        &self,
        shown: &AnsweredPositions,
        answered: &AnsweredPositions,
    ) -> MinimumPositions {
        let in_flight = self.previous.iter().any(|sources| sources.strong_count() > 0);
        let (rows, documents) = shown.newest();
        let mut last = self.final_positions.lock().unwrap_or_else(PoisonError::into_inner);
        if in_flight {
            return MinimumPositions { read_model: Some(rows), search_index: Some(documents) };
        }
        let (last_rows, last_documents) = *last.get_or_insert((rows, documents));
        let (rows, documents) = answered.newest();
        MinimumPositions {
            read_model: (rows < last_rows).then_some(last_rows),
            search_index: (documents < last_documents).then_some(last_documents),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_floor_raises_what_is_asked_for_and_never_lowers_it() {
        let position = |value| Some(Position::new(value));
        let floor = MinimumPositions { read_model: position(7), search_index: None };
        let asked = |at_least| Freshness { min_position: at_least, max_wait: Duration::ZERO };
        assert_eq!(
            floor.raise_read_model_freshness(asked(None)),
            Freshness { min_position: position(7), max_wait: DEFAULT_WAIT }
        );
        assert_eq!(floor.raise_read_model_freshness(asked(position(8))), asked(position(8)));
        assert_eq!(floor.raise_search_freshness(asked(None)), asked(None));
    }
}
