//! Tests of the `dead-letters` commands and of `events check`, most of them on a running system.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../harness/mod.rs"]
mod harness;
#[path = "../generations/test_system.rs"]
#[expect(dead_code, reason = "each suite uses its own part of it")]
mod test_system;

mod check;
mod commands;
mod damage;
mod redaction;
mod refused_commands;
mod retries;
