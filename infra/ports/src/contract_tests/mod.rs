//! The contract suites of four ports. A suite states the promises of one port as test cases, and every adapter of this
//! port runs them.
//!
//! An adapter runs a suite with one line in its tests, for example `event_store_contract!(Folder)`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a test fails by panicking"
)]
#![expect(missing_docs, reason = "the names of the cases say what they check")]
#![allow(async_fn_in_trait)]

pub mod counters;
pub mod event_store;
pub mod idempotency;
pub mod read_model;
