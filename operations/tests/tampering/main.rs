//! Tests of the detection of every kind of alteration of the log, and of altered checkpoints and proofs.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod alterations;
mod checkpoints_and_proofs;
mod signed_log;
