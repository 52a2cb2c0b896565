//! Tests of the folds, the projections, the projectors, the tail of the search index and the switch-over.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod batch_independence;
mod dead_letter_actions;
mod dead_letters;
mod deadline;
mod fragile_store;
mod kurrentdb_log;
mod log_builder;
mod postgres_projector;
mod projection_store_contract;
mod read_model_fold;
mod reference;
mod retries;
mod running;
mod scratch_build;
mod search_fold;
mod search_projector;
mod search_tail;
mod sqlite_projector;
mod store_fixture;
mod switch_over;
