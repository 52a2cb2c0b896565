//! The read model's promises, held against every adapter.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod contract;
mod postgres;
mod rows;
mod sqlite;
