//! Tests of audit queries, on SQLite and a fake KurrentDB.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod events;
mod explanations;
mod filters;
mod fixture;
mod subject_states;
