//! The ports of the chat API: traits, their types and errors.
//!
//! [`event_store`] is the log, the only source of truth; [`counters`] hand out numbers; [`idempotency`] keeps which keys
//! are in use and what was answered; [`read_model`] and [`search_index`] hold what projections folded from the log. A
//! port's docs state what every adapter promises, and one contract suite a port (`contract_tests`) holds each adapter
//! to it. The adapters are in crates of their own, one an engine.

pub mod backoff;
pub mod clock;
pub mod content_digest;
#[cfg(feature = "contract-tests")]
pub mod contract_tests;
pub mod counters;
pub mod dead_letter;
mod error_chain;
pub mod event_store;
pub mod heartbeat;
pub mod idempotency;
pub mod projection_checkpoint;
pub mod projection_contents;
pub mod rate_limit;
pub mod read_model;
pub mod search_index;

pub use error_chain::error_chain;
