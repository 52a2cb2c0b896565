//! The writer against a real log: numbers, refusals, and what other writers and failures do to it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod failures;
mod kurrentdb;
mod many_writers;
mod one_writer;
mod stage;
