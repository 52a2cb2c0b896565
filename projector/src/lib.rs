//! Projectors: each follows the log and folds it into one projection, the read model or the search index.
//!
//! A projection is a fold: the same log gives the same content, independent of batches, restarts and rebuilds. A
//! projector ([`spawn_projector`]) opens a [`ProjectionStore`](projection::ProjectionStore), follows the log from the
//! projection's checkpoint, and applies events as they arrive. Events that can't be applied become [`dead_letters`],
//! which operators retry or discard. With [`RecoveryPolicy::Rebuild`], a projection is rebuilt if it is damaged, or if
//! it was folded from events that an operator has given up. A projection of another log, or ahead of its log, is left
//! as it is until an operator decides. With [`RecoveryPolicy::Stop`], the projector stops in all four cases. After any
//! other failure it retries until it succeeds. A projector publishes its [`ProjectorStatus`], through which queries
//! wait until the projection has reached a position. The module [`generations`] manages the built versions of each
//! projection: which exist, where they are stored, and which one is live.
//!
//! # Metrics
//!
//! Each metric has the label `projection` with the value `read_model` or `search_index`, except
//! `chat_search_tail_changes`, which has no label.
//!
//! | name | kind | meaning |
//! |---|---|---|
//! | `chat_projection_position` | gauge | the log position up to which the projection has folded |
//! | `chat_projection_lag_events` | gauge | log positions between `chat_projection_position` and the head of the log |
//! | `chat_projection_lag_seconds` | gauge | the age of the oldest event that is not folded; 0 if all are folded |
//! | `chat_projection_parked_events` | gauge | dead letters: events that could not be applied and wait for a retry |
//! | `chat_projection_discarded_events` | gauge | discarded events whose discard was not acknowledged |
//! | `chat_projection_events_total` | counter | events processed since the start, also dead letters and ignored ones |
//! | `chat_projection_batch_seconds` | histogram | the time to fold and commit a batch |
//! | `chat_search_tail_changes` | gauge | changes of messages that the search index has not committed, kept in memory for searches; an edit counts twice |

pub mod dead_letters;
pub mod decoded_batch;
pub mod generations;
pub mod projection;
mod projector;
mod read_ahead;
pub mod read_model;
pub mod search;
pub mod status;

pub use projector::{ProjectorHandle, RecoveryPolicy, spawn_projector};
pub use status::{ProjectorState, ProjectorStatus};
