//! The counters' promises, held against every adapter.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod contract;
mod in_process;
mod redis;
