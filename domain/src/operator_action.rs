//! Operator actions, recorded as events in a separate stream, [`STREAM`].
//!
//! The log shows later which operator did what and why, and every process sees the actions in the same order.
//! These events do not concern apps, chats or messages, so projections do not fold them into rows or documents. The
//! only actions that a projection applies are those on its own dead letters.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Position;
use crate::event::define_events;
use crate::projection::{ProjectionGeneration, ProjectionName};

/// The name of the stream that holds the operator actions.
pub const STREAM: &str = "chat-operations";

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobStatus {
    /// Without findings.
    Ok,
    /// With findings that need attention.
    Finding,
    /// With an error.
    Failed,
}

define_events! {
    /// An action of an operator.
    pub enum OperatorAction;

    /// A rebuild was started: new generations are built beside the live ones.
    RebuildStarted {
        /// The generations that are being built.
        #[serde(rename = "copies")]
        generations: Vec<ProjectionGeneration>,
        /// The operator's reason.
        reason: String,
    }
    /// Generations were promoted: each process moves its queries to them.
    ProjectionsPromoted {
        /// The generations that this event makes live.
        #[serde(rename = "copies")]
        generations: Vec<ProjectionGeneration>,
        /// The operator's reason.
        reason: String,
    }
    /// Earlier generations were made live again: each process moves its queries to them.
    ProjectionsRolledBack {
        /// The generations that this event makes live.
        #[serde(rename = "copies")]
        generations: Vec<ProjectionGeneration>,
        /// The operator's reason.
        reason: String,
    }
    /// Generations were dropped: they are removed, except those that are live when this event is applied.
    ProjectionsDropped {
        /// The dropped generations.
        #[serde(rename = "copies")]
        generations: Vec<ProjectionGeneration>,
        /// The operator's reason.
        reason: String,
    }
    /// A retry of a stream's dead letters was requested.
    DeadLettersRetried {
        /// The projection that could not apply the events.
        projection: ProjectionName,
        /// The stream's name.
        stream: String,
        /// The operator's reason.
        reason: String,
    }
    /// A dead letter was discarded: the event stays in the log and is not part of the projection.
    DeadLetterDiscarded {
        /// The projection that could not apply the event.
        projection: ProjectionName,
        /// The position of the event that is the dead letter.
        position: Position,
        /// The operator's reason.
        reason: String,
    }
    /// An operator acknowledged a discarded event: health reports no longer show it.
    DiscardAcknowledged {
        /// The projection that could not apply the event.
        projection: ProjectionName,
        /// The position of the event that is the dead letter.
        position: Position,
        /// The operator's reason.
        reason: String,
    }
    /// A new incarnation of the log began, because the log was set back to an earlier state or has lost events.
    LogIncarnationBegan {
        /// The log's id from here on.
        log: String,
        /// The last position that was kept.
        kept_up_to: Position,
        /// The operator's reason.
        reason: String,
    }
    /// A signing key was used for a checkpoint of the log.
    SigningKeyUsed {
        /// The key's name in the checkpoint, as `name+hash`.
        key: String,
        /// The position of the last event that the checkpoint covers.
        position: Position,
        /// The number of events that the checkpoint covers.
        events: u64,
        /// The root of the Merkle tree of these events, 64 hexadecimal digits.
        root: String,
        /// The operator's reason.
        reason: String,
    }
    /// A job was requested: an action that servers run in the background. The event's id is the job's id.
    JobRequested {
        /// The kind of the action, such as `projections.rebuild`. Programs run only the kinds that they know.
        kind: String,
        /// The options of the action, a JSON object.
        options: Value,
        /// The operator's reason.
        reason: String,
    }
    /// A process began to run a job, or resumed it.
    JobStarted {
        /// The job's id.
        job: String,
        /// The number of the attempt, from 1.
        attempt: u32,
    }
    /// A job ended.
    JobEnded {
        /// The job's id.
        job: String,
        /// How the job ended.
        status: JobStatus,
        /// The report, a JSON object; absent if the job failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        report: Option<Value>,
        /// Remarks on the report, a JSON list.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        diagnostics: Option<Value>,
        /// Why the job failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    }
}
