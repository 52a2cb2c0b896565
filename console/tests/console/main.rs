//! The pages of the console over real engines: what they show, and whom they refuse.

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
