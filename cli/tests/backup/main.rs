//! Tests of `backup` and `restore`: a restore has everything that was backed up, and nothing that was written later.
//! Also tests that damage of the log is found.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../harness/mod.rs"]
mod harness;
#[path = "../operator/mod.rs"]
mod operator;

mod damaged_log;
mod load;
mod making;
mod reading;
mod restoring;
