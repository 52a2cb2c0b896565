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

use crate::api::Sources;

/// The newest positions that answers have shown.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    rows: AtomicU64,
    documents: AtomicU64,
}

impl Shown {
    /// Nothing newer than this was shown.
    pub(crate) fn at((rows, documents): (Position, Position)) -> Self {
        Self { rows: AtomicU64::new(rows.get()), documents: AtomicU64::new(documents.get()) }
    }

    /// An answer from the read model is about to be given.
    pub(crate) fn rows(&self, position: Position) {
        raise(&self.rows, position);
    }

    /// An answer from the search index is about to be given.
    pub(crate) fn documents(&self, position: Position) {
        raise(&self.documents, position);
    }

    pub(crate) fn newest(&self) -> (Position, Position) {
        let position = |of: &AtomicU64| Position::new(of.load(Ordering::SeqCst));
        (position(&self.rows), position(&self.documents))
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
pub(crate) struct Floor {
    rows: Option<Position>,
    documents: Option<Position>,
}

impl Floor {
    pub(crate) fn is_none(self) -> bool {
        self == Self::default()
    }

    /// What is asked of an answer from the read model.
    pub(crate) fn rows(self, freshness: Freshness) -> Freshness {
        raised(freshness, self.rows)
    }

    /// What is asked of an answer from the search index.
    pub(crate) fn documents(self, freshness: Freshness) -> Freshness {
        raised(freshness, self.documents)
    }
}

fn raised(freshness: Freshness, floor: Option<Position>) -> Freshness {
    if floor <= freshness.at_least {
        return freshness;
    }
    // The client did not ask to wait, and is not to be turned away for what it knows nothing of.
    Freshness { at_least: floor, wait: freshness.wait.max(DEFAULT_WAIT) }
}

/// The time after a switch in which there is a floor.
pub(crate) struct Settling {
    /// What requests may still be at work on.
    before: Vec<Weak<Sources>>,
    /// What had been shown when the last of these requests had ended.
    last: Mutex<Option<(Position, Position)>>,
}

impl Settling {
    /// After a switch away from `before`, and maybe another one not long before that.
    pub(crate) fn after(before: &Arc<Sources>, earlier: Option<Self>) -> Self {
        let mut all = earlier.map(|earlier| earlier.before).unwrap_or_default();
        all.retain(|sources| sources.strong_count() > 0);
        all.push(Arc::downgrade(before));
        Self { before: all, last: Mutex::new(None) }
    }

    /// What a request that begins now must be answered with at least. None once nobody can have been shown more than
    /// the new projections have answered with.
    pub(crate) fn floor(&self, shown: &Shown, answered: &Shown) -> Floor {
        let in_flight = self.before.iter().any(|sources| sources.strong_count() > 0);
        let (rows, documents) = shown.newest();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if in_flight {
            return Floor { rows: Some(rows), documents: Some(documents) };
        }
        let (last_rows, last_documents) = *last.get_or_insert((rows, documents));
        let (rows, documents) = answered.newest();
        Floor {
            rows: (rows < last_rows).then_some(last_rows),
            documents: (documents < last_documents).then_some(last_documents),
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
        let floor = Floor { rows: position(7), documents: None };
        let asked = |at_least| Freshness { at_least, wait: Duration::ZERO };
        assert_eq!(floor.rows(asked(None)), Freshness { at_least: position(7), wait: DEFAULT_WAIT });
        assert_eq!(floor.rows(asked(position(8))), asked(position(8)));
        assert_eq!(floor.documents(asked(None)), asked(None));
    }
}
