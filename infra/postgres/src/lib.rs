//! The read model in a schema of a Postgres database (14 or newer): one writer, and any number of readers.
//!
//! [`PostgresReadModelWriter`] is one connection. It holds an advisory lock, which Postgres releases when the connection
//! ends for whatever reason; and since the same connection commits, a writer that lost the lock can't commit. A pooler
//! between must not share connections among clients, as it does in transaction mode. [`PostgresReadModel`] has a few
//! connections, each opened on demand and replaced when it is lost.
//!
//! Commits are not synced one by one (`synchronous_commit=off`): the checkpoint is in the transaction of its rows and the
//! WAL of Postgres keeps the order of transactions, so after a crash of Postgres the projection folds the lost events,
//! less than a second's commits, from the log again. Readers see an older state until then. A client that needs at least
//! the state that it has seen sends the position of that answer: a position is read in the snapshot of its rows, and is
//! never ahead of them. The crash ends the writer's connection, which the projector detects within a second even without
//! new events, since it compares the checkpoint.
//!
//! A damaged schema is renamed, and a new one created under the old name in the same transaction. Statements name their
//! tables without a schema, which the session's `search_path` adds, so that an open session uses the new schema from its
//! next statement on.

mod commit;
mod error;
mod heartbeats;
mod load;
mod pool;
mod reader;
mod row;
mod schema;
mod session;
mod storage;
mod stored_generations;
mod url;
mod writer;

pub use heartbeats::PostgresHeartbeats;
pub use reader::{PostgresEngine, PostgresReadModel};
pub use storage::PostgresReadModelStorage;
pub use url::{InvalidPostgresUrl, PostgresUrl};
pub use writer::PostgresReadModelWriter;
