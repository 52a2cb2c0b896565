//! The event store's promises, held against every adapter.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod contract;
mod kurrentdb;
mod space;
mod sqlite;
mod sqlite_streams;
