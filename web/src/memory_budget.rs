//! Budgets for the memory that clients can occupy.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use metrics::Gauge;

/// A number of bytes that may be in use at a time.
pub(crate) struct MemoryBudget {
    max_bytes: usize,
    used_bytes: AtomicUsize,
    /// The budget that this one is a share of.
    parent: Option<Arc<Self>>,
    gauge: Gauge,
}

/// A part of a budget, in use until it is dropped.
pub(crate) struct Reservation {
    budget: Arc<MemoryBudget>,
    bytes: usize,
}

impl MemoryBudget {
    /// Creates a budget. `gauge` shows the bytes in use.
    pub(crate) fn new(max_bytes: usize, gauge: Gauge) -> Arc<Self> {
        Arc::new(Self { max_bytes, used_bytes: AtomicUsize::new(0), parent: None, gauge })
    }

    /// Creates a budget that is a share of this one: bytes that are reserved from the share are in use in both.
    pub(crate) fn share(self: &Arc<Self>, max_bytes: usize) -> Arc<Self> {
        let parent = Some(Arc::clone(self));
        Arc::new(Self { max_bytes, used_bytes: AtomicUsize::new(0), parent, gauge: Gauge::noop() })
    }

    /// Returns the number of bytes in use.
    pub(crate) fn used_bytes(&self) -> usize {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// Whether at least three quarters are in use.
    pub(crate) fn is_nearly_full(&self) -> bool {
        self.used_bytes() >= self.max_bytes / 4 * 3
    }

    /// Whether this many bytes are left in this budget. The budget that it is a share of may have less.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.used_bytes().saturating_add(bytes) <= self.max_bytes
    }

    /// Reserves bytes, unless that exceeds this budget or its parent.
    pub(crate) fn try_reserve(self: &Arc<Self>, bytes: usize) -> Option<Reservation> {
        self.try_add(bytes).then(|| Reservation { budget: Arc::clone(self), bytes })
    }

    /// Reserves bytes even if that exceeds the budget.
    pub(crate) fn reserve(self: &Arc<Self>, bytes: usize) -> Reservation {
        self.add(bytes);
        Reservation { budget: Arc::clone(self), bytes }
    }

    fn try_add(&self, bytes: usize) -> bool {
        let added = self.used_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(bytes).filter(|total| *total <= self.max_bytes)
        });
        if added.is_err() {
            return false;
        }
        if let Some(parent) = &self.parent
            && !parent.try_add(bytes)
        {
            self.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        self.gauge.increment(as_metric(bytes));
        true
    }

    fn add(&self, bytes: usize) {
        self.used_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.gauge.increment(as_metric(bytes));
        if let Some(parent) = &self.parent {
            parent.add(bytes);
        }
    }

    fn remove(&self, bytes: usize) {
        self.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.gauge.decrement(as_metric(bytes));
        if let Some(parent) = &self.parent {
            parent.remove(bytes);
        }
    }
}

impl Reservation {
    /// Splits off a reservation of at most this many bytes.
    pub(crate) fn split(&mut self, bytes: usize) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self { budget: Arc::clone(&self.budget), bytes }
    }

    /// Reserves more bytes even if that exceeds the budget.
    pub(crate) fn grow(&mut self, bytes: usize) {
        self.budget.add(bytes);
        self.bytes += bytes;
    }

    /// Adds another reservation of the same budget.
    pub(crate) fn merge(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.remove(self.bytes);
    }
}

#[expect(clippy::cast_precision_loss, reason = "memory sizes are far below 2^52")]
fn as_metric(bytes: usize) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_a_share_are_in_use_in_both_budgets() {
        let process = MemoryBudget::new(100, Gauge::noop());
        let (first, second) = (process.share(60), process.share(60));
        let held = first.try_reserve(60).unwrap();
        assert!(first.try_reserve(1).is_none(), "the share is used up");
        assert!(second.try_reserve(41).is_none(), "the process has 40 left");
        assert_eq!((first.used_bytes(), second.used_bytes(), process.used_bytes()), (60, 0, 60));
        drop(held);
        let mut held = second.try_reserve(60).unwrap();
        let part = held.split(20);
        drop(held);
        assert_eq!((second.used_bytes(), process.used_bytes()), (20, 20));
        drop(part);
        let over = second.reserve(300);
        assert_eq!((second.used_bytes(), process.used_bytes()), (300, 300));
        assert!(first.try_reserve(1).is_none());
        drop(over);
        assert_eq!((second.used_bytes(), process.used_bytes()), (0, 0));
    }
}
