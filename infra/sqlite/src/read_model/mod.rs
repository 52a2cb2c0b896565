//! The read model in one SQLite file in WAL mode: one writer, and any number of readers in any process.
//!
//! The writer's connection runs on a thread of its own ([`SqliteReadModelWriter`]); readers share a few read-only
//! connections ([`SqliteReadModel`]). A file `<name>.lock` beside the database, locked through the operating system,
//! excludes a second writer while the first one runs.
//!
//! Commits are not synced one by one (`synchronous=NORMAL`), so a power failure may lose the last ones. The checkpoint
//! is lost with its rows, because both are in one transaction. The projection then folds the events of the lost commits
//! from the log again.
//!
//! A damaged file is quarantined and replaced by a new one of the same name. Readers recognize the new file by device
//! and inode and open it.

mod commit;
mod error;
mod file;
mod load;
mod read_latency;
mod reader;
mod row;
mod storage;
mod worker_read_limiter;
mod writer;

pub use reader::{SqliteEngine, SqliteReadModel};
pub use storage::SqliteReadModelStorage;
pub use writer::SqliteReadModelWriter;
