//! The embedded engine: event store, read model and idempotency store in SQLite files.

mod event_store;
mod file_format;
mod idempotency;
mod read_model;
mod wal_checkpointer;

pub use event_store::{SqliteEventStore, check_event_log_file, copy_event_log, register_metrics};
pub use idempotency::{SqliteIdempotencyStore, read_idempotency_checkpoint};
pub use read_model::{SqliteEngine, SqliteReadModel, SqliteReadModelStorage, SqliteReadModelWriter};
