//! Folds, parking and the runner, on the real log and the real read model.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod deadline;
mod kurrentdb;
mod letters;
mod parking;
mod postgres;
mod read_model_fold;
mod reference;
mod replay;
mod runner;
mod search;
mod search_fold;
mod story;
