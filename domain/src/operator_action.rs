//! What operators do, as events: in a stream of their own, [`STREAM`], so that it can be seen afterwards who did it and
//! why, and so that every process learns of it in the order of the log.
//!
//! Projections pass these events over: they say nothing of apps, chats and messages.

use serde::{Deserialize, Serialize};

use crate::Position;
use crate::event::define_events;

/// The stream of operators' acts. Neither an app's nor a chat's.
pub const STREAM: &str = "chat-operations";

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
    /// All of them.
    pub const ALL: [Self; 2] = [Self::ReadModel, Self::SearchIndex];

    /// The name, as in logs, metrics and health reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReadModel => "read_model",
            Self::SearchIndex => "search_index",
        }
    }
}

/// One of several copies of a projection that are kept beside each other: readers see the one that was promoted last.
/// The first one is 1, and each rebuild makes the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u32);

impl Generation {
    /// The one that is there before any rebuild.
    pub const FIRST: Self = Self(1);

    /// The one after this.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A generation of a projection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProjectionGeneration {
    /// Of which projection.
    pub projection: ProjectionName,
    /// Which one.
    pub generation: Generation,
}

define_events! {
    /// Something an operator did.
    pub enum OperatorAction;

    /// A rebuild began: generations are being built beside those that readers see.
    RebuildStarted {
        /// What is being built.
        copies: Vec<ProjectionGeneration>,
        /// Why.
        reason: String,
    }
    /// Readers see these generations from here on, all at once.
    ProjectionsPromoted {
        /// What they see now.
        copies: Vec<ProjectionGeneration>,
        /// Why.
        reason: String,
    }
    /// Readers see earlier generations again from here on, all at once.
    ProjectionsRolledBack {
        /// What they see now.
        copies: Vec<ProjectionGeneration>,
        /// Why.
        reason: String,
    }
    /// Generations that readers did not see any more, or not yet, were removed.
    ProjectionsDropped {
        /// What was removed.
        copies: Vec<ProjectionGeneration>,
        /// Why.
        reason: String,
    }
    /// Parked events of a stream are to be read again, through today's code.
    DeadLettersRetried {
        /// By which projection.
        projection: ProjectionName,
        /// Of which stream.
        stream: String,
        /// Why.
        reason: String,
    }
    /// A parked event was given up: it stays in the log and takes no part in the projection.
    DeadLetterDiscarded {
        /// By which projection.
        projection: ProjectionName,
        /// Which event.
        position: Position,
        /// Why.
        reason: String,
    }
    /// Somebody has taken note of what was discarded: health reports need not show it any more.
    DiscardAcknowledged {
        /// By which projection.
        projection: ProjectionName,
        /// Which event.
        position: Position,
        /// Why.
        reason: String,
    }
    /// A key signed a statement about the log.
    SigningKeyUsed {
        /// The key's name in the statement, as `name+hash`.
        key: String,
        /// Up to which event of the log the statement goes.
        position: Position,
        /// How many events that are.
        events: u64,
        /// The root of their Merkle tree, 64 hexadecimal digits.
        root: String,
        /// Why.
        reason: String,
    }
}
