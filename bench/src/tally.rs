//! Failure counts by cause.

use std::collections::BTreeMap;

use serde::Serialize;

/// Counts of failures, by cause such as `503 overloaded`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Tally(BTreeMap<String, u64>);

impl Tally {
    /// Counts one failure.
    pub fn count(&mut self, cause: &str) {
        self.count_many(cause, 1);
    }

    /// Counts any number of failures of one cause. Zero failures add no cause.
    pub fn count_many(&mut self, cause: &str, failures: u64) {
        if failures > 0 {
            *self.0.entry(cause.to_owned()).or_default() += failures;
        }
    }

    /// Adds the counts of `other`.
    pub fn add(&mut self, other: &Self) {
        for (cause, count) in &other.0 {
            self.count_many(cause, *count);
        }
    }

    /// Returns the sum of all counts.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// Returns each cause with its count.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(cause, count)| (cause.as_str(), *count))
    }
}
