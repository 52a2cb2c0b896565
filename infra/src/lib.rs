//! The ports of the chat API, each a module with its adapters beside the trait.
//!
//! [`event_store`] is the log, the only source of truth; [`counters`] hand out numbers; [`idempotency`] keeps who is at
//! work on which key, and what was answered; [`read_model`] and [`search_index`] hold what projections folded from the
//! log. A port's docs state what every adapter promises, and one contract suite a port (in `tests/`) holds each adapter
//! to it.

pub mod checkpoint;
pub mod clock;
pub mod contents;
pub mod counters;
pub mod dead_letter;
pub mod digest;
pub mod durable_folder;
pub mod event_store;
pub mod idempotency;
pub mod notice;
pub mod rate_limit;
pub mod read_model;
pub mod redis;
pub mod search_index;
mod write_ahead;
