//! The adapter for many processes: a namespace of a Postgres database (14 or newer), one writer, any number of readers.
//!
//! [`PostgresReadModelWriter`] is one connection. It holds an advisory lock, which Postgres frees when the connection
//! ends, however it ends; and since it is the connection that commits, a writer that lost the lock can't commit. What
//! stands between may not share connections among clients (a pooler in transaction mode does): the lock would be
//! anybody's. [`PostgresReadModel`] has a few connections, each made when it is needed, and made anew when it was lost.
//!
//! Commits are not synced one by one (`synchronous_commit=off`): the checkpoint is in the transaction of its rows and
//! the log of Postgres keeps the order of transactions, so what a crash of Postgres takes, less than a second's commits,
//! is folded from the log again. Readers may have seen it, and see an older state until then. Whoever has to see at
//! least what was seen before says so with the position that came with it: the position of an answer is read in the
//! snapshot of its rows, and is never ahead of them. The crash ends the writer's connection, and the projector finds
//! that out within a second also when no event comes, since it compares the checkpoint.
//!
//! What can't be understood any more is renamed, and a new namespace laid out under the old name in the same
//! transaction. Statements name their tables without a namespace, which the session's `search_path` adds, so that an
//! open session turns to the new one with its next statement.

mod commit;
mod error;
mod heartbeats;
mod load;
mod pool;
mod reader;
mod row;
mod schema;
mod session;
mod url;
mod writer;

pub use heartbeats::PostgresHeartbeats;
pub use reader::{PostgresEngine, PostgresReadModel};
pub use url::{InvalidPostgresUrl, PostgresUrl};
pub use writer::PostgresReadModelWriter;
