//! The tail: the changes of the newest events, kept in memory until the index has committed them.
//!
//! A search answers from a snapshot of the index at position S together with a view of the tail, which ends at T. The
//! view consists of [segments](TailSegment) that follow each other. The search uses the segments that end after S. Let
//! F be the start of the first of these. The answer is made of
//!
//! - the messages of the snapshot that were created up to F, unless one of the segments changed or deleted them;
//! - the messages of the segments, each in its state at T.
//!
//! So S may be anywhere in a segment, and the answer is that of an index which has committed up to T.
//!
//! Views are immutable, and a new view shares segments with the one before it. So a later change of a message does not
//! remove the earlier state from its segment. It marks the state as superseded, with a position: views that end before
//! this position still have the state, and later views do not.

mod message;
mod scan;
mod segment;
mod writer;

use std::sync::{Arc, PoisonError, RwLock};

use chat_domain::Position;
use chat_ports::event_store::LogId;
use chat_ports::projection_checkpoint::ProjectionCheckpoint;

pub(crate) use message::TailMessage;
pub(crate) use scan::{Mask, TailScan};
use segment::TailSegment;
pub use writer::TailWriter;

/// The tail of one index, shared by searches and the writer.
#[derive(Debug, Default)]
pub(crate) struct Tail(RwLock<Option<Arc<TailView>>>);

impl Tail {
    /// The current view. A search must take the view first and the snapshot afterwards: the writer drops changes that
    /// the current snapshot has, so an older snapshot may lack changes that the view no longer has.
    pub fn view(&self) -> Option<Arc<TailView>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends the tail: searches are answered from the index alone.
    pub fn discard(&self) {
        self.replace(None);
    }

    /// Publishes a view. If the current view reaches further in the same log, it stays, so that answers do not go
    /// back to an earlier position.
    fn publish(&self, view: TailView) {
        let reaches_further = |current: &TailView| current.log == view.log && current.to > view.to;
        if !self.view().is_some_and(|current| reaches_further(&current)) {
            self.replace(Some(Arc::new(view)));
        }
    }

    fn replace(&self, view: Option<Arc<TailView>>) {
        let previous = std::mem::replace(&mut *self.0.write().unwrap_or_else(PoisonError::into_inner), view);
        // Segments are dropped outside the lock.
        drop(previous);
    }
}

/// The tail at one moment.
#[derive(Clone, Debug)]
pub(crate) struct TailView {
    log: LogId,
    /// The view has all changes after this position, up to `to`.
    from: Position,
    /// The position up to which the log was read.
    to: Position,
    segments: Vec<Arc<TailSegment>>,
}

impl TailView {
    /// The segments that a snapshot lacks; `None` if the snapshot lacks nothing of the tail, or the tail does not
    /// continue the snapshot.
    fn after(&self, checkpoint: ProjectionCheckpoint) -> Option<&[Arc<TailSegment>]> {
        let ProjectionCheckpoint { log, position } = checkpoint;
        let continues = log.is_none_or(|log| log == self.log) && self.from <= position && position < self.to;
        let first = self.segments.partition_point(|segment| segment.to <= position);
        continues.then(|| &self.segments[first..])
    }

    /// The position of an answer from a snapshot and this view.
    pub fn position_with(&self, checkpoint: ProjectionCheckpoint) -> Position {
        if self.after(checkpoint).is_some() { self.to } else { checkpoint.position }
    }
}
