//! Counts of what went wrong, by what it was.

use std::collections::BTreeMap;

use serde::Serialize;

/// How often each kind of trouble was met, such as `503 overloaded`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Tally(BTreeMap<String, u64>);

impl Tally {
    /// Counts one more.
    pub fn count(&mut self, kind: &str) {
        self.count_many(kind, 1);
    }

    /// Counts this many more.
    pub fn count_many(&mut self, kind: &str, more: u64) {
        if more > 0 {
            *self.0.entry(kind.to_owned()).or_default() += more;
        }
    }

    /// Adds what `other` counted.
    pub fn add(&mut self, other: &Self) {
        for (kind, count) in &other.0 {
            self.count_many(kind, *count);
        }
    }

    /// All kinds together.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// Each kind with its count.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(kind, count)| (kind.as_str(), *count))
    }
}
