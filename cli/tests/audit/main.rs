//! The `audit` commands that read: with a log in a file and a read model in a file, and with a log in the fake
//! KurrentDB and a read model in Postgres.

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
