//! `backup` and `restore`: what was backed up is there again on another machine, and nothing of a lost future is.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../harness/mod.rs"]
mod harness;
#[path = "../operator/mod.rs"]
mod operator;

mod load;
mod making;
