//! Tests of the `audit` commands that read, most of them on two topologies: embedded (log and read model in SQLite),
//! and at scale (log and read model in Postgres).

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../harness/mod.rs"]
mod harness;
#[path = "../operator/mod.rs"]
mod operator;

mod explaining;
mod exporting;
mod fixture;
mod input_and_output;
mod listing;
mod refusing;
mod tailing;
