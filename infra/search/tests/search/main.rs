//! Tests of the search index: matching, order, pages, commits, durability and crashes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod crashes;
mod durability;
mod matching;
mod pages;
mod properties;
mod scripts;
mod senders;
mod tail;
mod writing;

mod fixture;
