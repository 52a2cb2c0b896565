//! Tests of the console in a real browser.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../harness/mod.rs"]
mod harness;

mod acting;
mod forms;
mod live;
mod pages;
mod signing_in;
mod site;
