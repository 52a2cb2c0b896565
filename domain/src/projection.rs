//! Names and generations of the projections that are built from the log.

use serde::{Deserialize, Serialize};

/// A projection of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProjectionName {
    /// Apps, chats and messages as rows.
    ReadModel,
    /// The full-text index.
    SearchIndex,
}

impl ProjectionName {
    /// All projections.
    pub const ALL: [Self; 2] = [Self::ReadModel, Self::SearchIndex];

    /// The name as it appears in logs, metrics and health reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReadModel => "read_model",
            Self::SearchIndex => "search_index",
        }
    }
}

/// The number of one built version of a projection. Several generations may exist at once; queries are answered from
/// the live one. The first generation is 1; rebuilds create the later ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u32);

impl Generation {
    /// The generation that exists before any rebuild.
    pub const FIRST: Self = Self(1);

    /// The generation after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// One generation of one projection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProjectionGeneration {
    /// The projection.
    pub projection: ProjectionName,
    /// The generation of the projection.
    pub generation: Generation,
}
