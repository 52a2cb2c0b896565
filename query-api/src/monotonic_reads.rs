//! Monotonic reads across a switch-over: a response is never older than a response that the same process gave before
//! the request began, even for clients without a token.
//!
//! A promoted generation has reached the newest positions of all earlier responses. But requests that began before the
//! switch-over still end on the previous generation, which may advance meanwhile. So every response of the new
//! generation must be at the newest position of any response so far or later, as if each client had sent the token of
//! that position. This ends when the last request on the previous generation has ended and the new generation itself
//! has answered at that position.

use std::sync::atomic::{AtomicU64, Ordering};

use chat_domain::Position;
use chat_web::consistency::{DEFAULT_WAIT, Freshness};

/// A position that only rises, shared by all requests.
#[derive(Debug, Default)]
pub(crate) struct NewestPosition(AtomicU64);

impl NewestPosition {
    pub(crate) fn new(position: Position) -> Self {
        Self(AtomicU64::new(position.get()))
    }

    pub(crate) fn get(&self) -> Position {
        Position::new(self.0.load(Ordering::SeqCst))
    }

    /// Raises the position. Reads before it writes, because mostly nothing changes and the cache line is shared by all
    /// cores.
    pub(crate) fn raise(&self, position: Position) {
        if self.get() < position {
            self.0.fetch_max(position.get(), Ordering::SeqCst);
        }
    }
}

/// The newest position of any response so far, for each projection.
#[derive(Debug, Default)]
pub(crate) struct AnsweredPositions {
    pub(crate) read_model: NewestPosition,
    pub(crate) search_index: NewestPosition,
}

/// The minimum positions of a response, independent of the position that its client requires. Determined when a request
/// begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MinimumPositions {
    pub(crate) read_model: Option<Position>,
    pub(crate) search_index: Option<Position>,
}

impl MinimumPositions {
    /// Determines the minimum positions. `answered` holds the newest positions of the responses of all generations, and
    /// `answered_by_live` those of the live generation alone. A response of the live generation raises
    /// `answered_by_live` first, and then `answered`.
    ///
    /// `previous_in_use` says whether requests are in flight on a previous generation. It must be determined before
    /// `answered` is read: if no such request is in flight by then, `answered` already contains the last responses of
    /// the previous generations.
    pub(crate) fn new(
        answered: &AnsweredPositions,
        answered_by_live: &AnsweredPositions,
        previous_in_use: bool,
    ) -> Self {
        let minimum = |by_any: &NewestPosition, by_live: &NewestPosition| {
            let newest = by_any.get();
            (previous_in_use || by_live.get() < newest).then_some(newest)
        };
        Self {
            read_model: minimum(&answered.read_model, &answered_by_live.read_model),
            search_index: minimum(&answered.search_index, &answered_by_live.search_index),
        }
    }
}

/// Raises the requested freshness to a minimum position.
pub(crate) fn raise_freshness(requested: Freshness, minimum: Option<Position>) -> Freshness {
    if minimum <= requested.min_position {
        return requested;
    }
    // The client did not ask for this position. So the query waits for it even if the client asked for no wait, instead
    // of failing at once.
    Freshness { min_position: minimum, max_wait: requested.max_wait.max(DEFAULT_WAIT) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn answered(read_model: u64, search_index: u64) -> AnsweredPositions {
        AnsweredPositions {
            read_model: NewestPosition::new(Position::new(read_model)),
            search_index: NewestPosition::new(Position::new(search_index)),
        }
    }

    #[test]
    fn a_minimum_raises_the_requested_position_and_never_lowers_it() {
        let position = |value| Some(Position::new(value));
        let requested = |min_position| Freshness { min_position, max_wait: Duration::ZERO };
        let raised = Freshness { min_position: position(7), max_wait: DEFAULT_WAIT };
        assert_eq!(raise_freshness(requested(None), position(7)), raised);
        assert_eq!(raise_freshness(requested(position(8)), position(7)), requested(position(8)));
        assert_eq!(raise_freshness(requested(None), None), requested(None));
    }

    #[test]
    fn a_minimum_ends_when_the_previous_generation_is_unused_and_the_live_one_has_caught_up() {
        let by_any = answered(7, 5);
        let in_use = MinimumPositions::new(&by_any, &answered(7, 5), true);
        assert_eq!(
            (in_use.read_model, in_use.search_index),
            (Some(Position::new(7)), Some(Position::new(5)))
        );
        let behind = MinimumPositions::new(&by_any, &answered(7, 4), false);
        assert_eq!((behind.read_model, behind.search_index), (None, Some(Position::new(5))));
        let caught_up = MinimumPositions::new(&by_any, &answered(7, 5), false);
        assert_eq!((caught_up.read_model, caught_up.search_index), (None, None));
    }
}
