//! The promises of reservations, held against every adapter.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod contract;
mod redis;
mod sqlite;
