//! The streams that dead letters block, and the counts of dead letters.

use std::collections::HashSet;
use std::sync::Arc;

use chat_domain::projection::ProjectionName;
use chat_ports::dead_letter::{DeadLetter, DeadLetterCounts};

use super::reason::DeadLetterReason;
use super::retry::RetryOutcome;
use crate::decoded_batch::DecodedBatch;

/// The streams of a projection that dead letters block, with the counts of all its dead letters.
#[derive(Clone, Debug, Default)]
pub struct BlockedStreams {
    /// Shared with folds on blocking threads.
    streams: Arc<HashSet<Arc<str>>>,
    counts: DeadLetterCounts,
}

impl BlockedStreams {
    /// Creates the value from the stored streams and counts.
    pub fn load(streams: impl IntoIterator<Item = String>, counts: DeadLetterCounts) -> Self {
        Self { streams: Arc::new(streams.into_iter().map(Arc::from).collect()), counts }
    }

    /// Marks which streams of a batch are blocked.
    pub fn mark(&self, batch: &mut DecodedBatch) {
        for stream in &mut batch.streams {
            stream.is_blocked = self.streams.contains(&stream.name);
        }
    }

    /// Returns the number of dead letters that wait for a retry.
    pub fn dead_letter_count(&self) -> u64 {
        self.counts.pending
    }

    /// Returns the number of discarded events whose discard was not acknowledged.
    pub fn discarded_count(&self) -> u64 {
        self.counts.unacknowledged_discards
    }

    /// Adds the dead letters of a batch.
    pub fn record_dead_letters(&mut self, dead_letters: &[DeadLetter]) {
        self.counts.pending += dead_letters.len() as u64;
        for dead_letter in dead_letters {
            if !self.streams.contains(dead_letter.stream.as_str()) {
                Arc::make_mut(&mut self.streams).insert(Arc::from(dead_letter.stream.as_str()));
            }
        }
    }

    /// Applies the outcome of a retry, once it is committed.
    pub fn record_retry(&mut self, outcome: &RetryOutcome) {
        let discarded = u64::from(outcome.has_discarded_first);
        let removed = outcome.applied.len() as u64 + discarded;
        self.counts.pending = self.counts.pending.saturating_sub(removed);
        self.counts.unacknowledged_discards += discarded;
        if outcome.is_stream_unblocked {
            Arc::make_mut(&mut self.streams).remove(outcome.stream.as_str());
        }
    }

    /// Counts the acknowledgement of a discarded event, once it is committed.
    pub fn record_acknowledgement(&mut self) {
        self.counts.unacknowledged_discards = self.counts.unacknowledged_discards.saturating_sub(1);
    }
}

/// Logs a warning for each stream that these dead letters have newly blocked. Called after they are committed.
pub(crate) fn log_dead_letters(projection: ProjectionName, dead_letters: &[DeadLetter]) {
    for dead_letter in dead_letters
        .iter()
        .filter(|dead_letter| dead_letter.reason != DeadLetterReason::BEHIND_DEAD_LETTER.as_str())
    {
        tracing::warn!(
            projection = projection.as_str(),
            position = dead_letter.position.get(),
            event_type = dead_letter.event_type,
            reason = dead_letter.reason,
            "event recorded as a dead letter; its stream is blocked"
        );
    }
}
