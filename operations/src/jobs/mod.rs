//! Jobs: operator actions that servers run in the background.
//!
//! A job begins as a `JobRequested` event in the operators' stream. The event's id is the job's id. So any process
//! knows the job, and the job's state is a fold of the stream ([`Jobs::get`]). One process at a time runs jobs
//! ([`Jobs::run`]). When it stops, another process, or the same one after its restart, continues the jobs that have not
//! ended. The actions that a job records have ids that derive from the job's id. So a later attempt finds the recorded
//! actions in the log, and records none of them again.

mod action;
mod action_outcome;
mod dry_run;
mod progress;
mod registry;
mod report_size;
mod run;
mod runner;
mod service;

pub use crate::operator_actions::JobId;
pub use action::{
    AcknowledgeRequest, CheckpointRequest, DiscardRequest, DropRequest, InvalidOptions, JobAction,
    ProjectionList, RebuildRequest, RetryRequest, SwitchOverRequest, VerifyRequest,
};
pub use action_outcome::{ActionError, ActionReport};
pub use progress::{GenerationProgress, JobProgress};
pub use report_size::MAX_REPORT_BYTES;
pub use runner::{MAX_JOB_ATTEMPTS, MAX_RUNNING_JOBS};
pub use service::{
    InvalidReason, Job, JobState, Jobs, MAX_REASON_CHARS, MAX_UNFINISHED_JOBS, Reason, RequestedJob,
    StartError,
};
