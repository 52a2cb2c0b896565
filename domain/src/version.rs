//! Resource versions for `ETag`, `If-Match` and `If-None-Match`.

use std::fmt;

/// The version of a resource: for an app or a chat, the number of events in its stream; for a message, the number of
/// its own events. The version depends only on the log, so it is the same for commands and queries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(u64);

impl Version {
    /// Creates the version of a resource with this number of events.
    pub const fn new(events: u64) -> Self {
        Self(events)
    }

    /// The number of events.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The version after one more event.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A condition on a resource before it is changed (RFC 9110, `If-Match` and `If-None-Match`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Precondition {
    /// No condition.
    #[default]
    Unconditional,
    /// `If-Match: *`: the resource exists. Deciders reject changes of missing resources in any case.
    Exists,
    /// `If-Match` with entity tags: the version is one of these. An empty list matches no version, so that no existing
    /// resource is changed.
    AnyOf(Vec<Version>),
    /// `If-None-Match` with entity tags: the version is none of these.
    NoneOf(Vec<Version>),
}

impl Precondition {
    /// Whether an existing resource at `version` may be changed.
    pub fn holds(&self, version: Version) -> bool {
        match self {
            Self::Unconditional | Self::Exists => true,
            Self::AnyOf(versions) => versions.contains(&version),
            Self::NoneOf(versions) => !versions.contains(&version),
        }
    }
}
