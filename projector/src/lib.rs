//! Projectors: each follows the log and folds it into one projection, the read model or the search index.
//!
//! A projection is a fold: the same log gives the same content, whatever the batches, restarts and replays. [`Projector`]
//! keeps one going: it opens the projection (and folds a damaged or foreign one anew), follows the log from the
//! projection's checkpoint, applies events as they come, parks those that can't be applied ([`parking`]), carries out what operators decide about those ([`letters`]), and starts
//! over when an engine fails. Its [`Status`] can be watched: a query that must see a position waits for it there.
//!
//! # Metrics
//!
//! Each has the label `projection`, `read_model` or `search_index`.
//!
//! | name | kind | meaning |
//! |---|---|---|
//! | `projection_position` | gauge | the log position up to which the projection has folded |
//! | `projection_lag_events` | gauge | log positions between that and the end of the log |
//! | `projection_lag_seconds` | gauge | the age of the oldest event not folded in; 0 when caught up |
//! | `projection_parked_events` | gauge | events that could not be applied and wait for a retry |
//! | `projection_discarded_events` | gauge | events that were given up, and nobody has acknowledged it |
//! | `projection_events_total` | counter | events folded or parked since the process started |
//! | `projection_batch_seconds` | histogram | how long a batch took to fold and commit |

mod backoff;
pub mod bounded_log;
pub mod dead_letters;
pub mod generations;
mod heartbeats;
mod read_ahead;

pub mod decoded_batch;
pub mod projection;
pub mod projection_store;
mod projector;
pub mod read_model;
mod runner;
mod scratch_build;
pub mod search;
pub mod status;

pub use heartbeats::HeartbeatPublisher;
pub use projector::{Projector, ProjectorHandle};
pub use runner::RecoveryPolicy;
pub use scratch_build::{ProjectionDigests, ScratchBuildError, compute_scratch_digests};
pub use status::{ProjectorState, ProjectorStatus};
