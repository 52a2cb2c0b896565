//! `backup` and `restore`: what was backed up is there again on another machine, and nothing of a lost future is. Damage
//! of the log, which makes them needed, is found before an event is missed.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../harness/mod.rs"]
mod harness;
#[path = "../operator/mod.rs"]
mod operator;

mod damaged_log;
mod load;
mod making;
mod restoring;
