//! The verdict of a run.

/// Whether everything that a run checked is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything is right: exit code 0.
    Passed,
    /// There are findings: exit code 1.
    Failed,
}

impl Verdict {
    /// Passes where `passed` holds.
    pub fn from_passed(passed: bool) -> Self {
        if passed { Self::Passed } else { Self::Failed }
    }

    /// Passes where both pass.
    pub fn and(self, other: Self) -> Self {
        if self == Self::Passed { other } else { self }
    }
}
