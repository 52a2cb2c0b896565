//! Tests of the deciders, their invariants, and the stored form of events.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod app;
mod chat;
mod given;
mod golden;
mod properties;
