//! Tests of the console's pages on real engines: their contents, and the access to them.

#![expect(clippy::unwrap_used, reason = "test helpers")]

mod actions;
mod activity;
mod dead_letters;
mod fixture;
mod forms;
mod hostile_text;
mod past_states;
mod searching;
mod subjects;
