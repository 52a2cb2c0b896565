//! The log is altered behind the system's back, in every way there is, and each time it is told which event it was.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod alterations;
mod log;
mod statements;
