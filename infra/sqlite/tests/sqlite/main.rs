//! The contract suites on the SQLite adapters, and further tests of these adapters.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod checked_read;
mod event_store;
mod event_store_streams;
mod idempotency;
mod log_copy;
mod read_model;
