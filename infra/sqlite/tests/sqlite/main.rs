//! The contract suites held against SQLite, and what is SQLite's own.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod event_store;
mod event_store_streams;
mod idempotency;
mod read_model;
