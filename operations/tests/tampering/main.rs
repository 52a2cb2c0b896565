//! Tests of checkpoints and proofs, and of the detection of alterations of the log, of checkpoints and of proofs.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod alterations;
mod checkpoints_and_proofs;
mod signed_log;
