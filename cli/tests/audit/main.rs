//! `audit` with its verbs that read, on either line-up: a log in a file or in the stand-in for KurrentDB, a read model in
//! a file or in Postgres.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../harness/mod.rs"]
mod harness;
#[path = "../operator/mod.rs"]
mod operator;

mod explaining;
mod exporting;
mod fixture;
mod listing;
mod refusing;
mod tailing;
