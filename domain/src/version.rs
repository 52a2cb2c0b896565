//! Versions of a resource, for `ETag` and `If-Match`.

use std::fmt;

/// How often a resource has been written: an app's or a chat's version is the number of events in its stream, a
/// message's the number of its own events. It comes from the log alone, so commands and queries agree on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(u64);

impl Version {
    /// The version with this count of events.
    pub const fn new(events: u64) -> Self {
        Self(events)
    }

    /// The count of events.
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

/// What a client asks of a resource before it is changed (RFC 9110, `If-Match`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing asked.
    #[default]
    None,
    /// `If-Match: *`: that it exists. Deciders reject what does not exist anyway.
    Exists,
    /// That its version is one of these; an empty list never holds (no tag the client sent was one of ours).
    AnyOf(Vec<Version>),
}

impl Precondition {
    /// Whether a resource that exists at `version` may be changed.
    pub fn holds(&self, version: Version) -> bool {
        match self {
            Self::None | Self::Exists => true,
            Self::AnyOf(versions) => versions.contains(&version),
        }
    }
}
