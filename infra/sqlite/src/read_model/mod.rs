//! The embedded adapter: one SQLite file in WAL mode, one writer, any number of readers in any process.
//!
//! The writer's connection lives on a thread of its own ([`SqliteReadModelWriter`]); readers take turns on a few
//! read-only connections ([`SqliteReadModel`]). A file `<name>.lock` beside the database, locked through the operating
//! system, keeps a second writer out for as long as the first one lives.
//!
//! Commits are not synced one by one (`synchronous=NORMAL`): the checkpoint is in the transaction of its rows and WAL
//! keeps the order of transactions, so what a power failure takes from the end of the file is folded from the log
//! again. The log itself is what is synced.
//!
//! A file that can't be read any more is moved aside and a new one put in its place under the same name. Readers see
//! by device and inode that the file is another one, and open it anew.

mod commit;
mod error;
mod file;
mod load;
mod read_latency;
mod reader;
mod row;
mod worker_read_limiter;
mod writer;

pub use reader::{SqliteEngine, SqliteReadModel};
pub use writer::SqliteReadModelWriter;
