//! The contract suites held against real Redis servers, and what is Redis's own.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod counters;
mod idempotency;
mod rate_limit;
