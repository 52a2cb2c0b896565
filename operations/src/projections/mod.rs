//! Operator commands for projections. They run while other processes read and write.
//!
//! A rebuild ([`rebuild`]) builds a new generation in a location of its own, beside the live one. It is compared with
//! the live one ([`compare`]) and then promoted ([`switch_over`]). A promotion is one event in the operators' stream.
//! Every process reads it and then switches over. The previous generation stays, so that a rollback is one event, too.
//! [`verify`] compares a live projection with a scratch build: a temporary fold of the log, or of a sample of its
//! streams.

pub mod compare;
mod context;
mod drop_generations;
mod error;
mod explain;
mod handover;
pub mod list;
mod local_projectors;
pub mod rebuild;
mod scratch_build;
pub mod switch_over;
pub mod verify;

pub use crate::row_fields::{FieldValue, Fields};
pub(crate) use context::find_mismatch;
pub use context::{GenerationName, Projections};
pub use drop_generations::{DropReport, DroppedGeneration, KeptGeneration, drop_generations};
pub use error::ProjectionsError;
pub(crate) use error::projection_error;
pub use explain::{DivergingEvent, ExplainedDifference};
pub use local_projectors::{Phase, Progress};
