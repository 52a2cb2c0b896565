//! Tests of rebuilding, promoting and rolling back projections: while the system runs, with embedded engines in one
//! process and with several processes on Postgres, and while it is stopped.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../harness/mod.rs"]
mod harness;

mod commands;
mod consistency_checker;
mod file_owners;
#[path = "../campaign/followers.rs"]
mod followers;
mod jobs;
mod kills;
mod stopped_system;
mod switching;
mod test_system;
