//! The contract suites against real Redis servers, and the adapters' own tests.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod counters;
mod idempotency;
mod rate_limit;
