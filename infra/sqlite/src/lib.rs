//! The embedded engine: event store, read model and idempotency store in SQLite files.

mod event_store;
mod idempotency;
mod read_model;
mod write_ahead;

pub use event_store::SqliteEventStore;
pub use idempotency::SqliteReservations;
pub use read_model::{SqliteEngine, SqliteReadModel, SqliteReadModelWriter};
