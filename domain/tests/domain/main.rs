//! The domain's promises: what the deciders accept and refuse, what always holds, and that old events still read.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod application;
mod chat;
mod given;
mod golden;
mod properties;
