//! The ports of the chat API: traits, their types and errors.
//!
//! [`event_store`] is the log, the only source of truth. [`counters`] reserve chat and message numbers. [`idempotency`]
//! stores reserved keys and their answers. [`rate_limit`] counts the requests of apps. [`read_model`] and
//! [`search_index`] are projections of the log. The docs of a port state the promises of every adapter. Four ports have
//! a contract suite (`contract_tests`), which checks each adapter against its promises. The adapters are in separate
//! crates, one for each engine; only [`counters::InProcessCounters`] needs no engine and is in this crate.

pub mod backoff;
pub mod batch_pacing;
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

/// The size at which a page of messages, hits, versions or events ends early, in bytes of content. The page ends before
/// the item that would exceed it, but holds at least one item.
pub const MAX_PAGE_BYTES: usize = 1024 * 1024;
