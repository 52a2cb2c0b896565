//! The writer against a real log: numbers, refusals, and what other writers and failures do to it.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod failures;
mod idempotency;
mod kurrentdb;
mod many_writers;
mod one_writer;
mod redis_counters;
mod stage;
