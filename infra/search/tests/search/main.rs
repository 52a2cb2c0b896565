//! The search index by its behaviour: what finds what, in which order, and what survives.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod crashes;
mod durability;
mod matching;
mod pages;
mod properties;
mod scripts;
mod writing;

mod fixture;
