//! Questions to the log, on both engines.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod filters;
mod showing;
mod states;
mod story;
