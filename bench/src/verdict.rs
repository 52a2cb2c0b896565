//! The verdict of a run.

/// The result of all checks of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All checks passed: exit code 0.
    Passed,
    /// There are findings: exit code 1.
    Failed,
}

impl Verdict {
    /// Returns [`Self::Passed`] if `passed` is true.
    pub fn from_passed(passed: bool) -> Self {
        if passed { Self::Passed } else { Self::Failed }
    }

    /// Returns [`Self::Passed`] if both verdicts are [`Self::Passed`].
    pub fn and(self, other: Self) -> Self {
        if self == Self::Passed { other } else { self }
    }
}
