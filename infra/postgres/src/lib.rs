//! The event store and the read model in Postgres (14 or newer), independent of each other: [`PostgresEventStore`] is
//! in the schema `chat_event_log` of a database; the read model is in a schema of the same or another database, with
//! one writer and any number of readers.
//!
//! [`PostgresReadModelWriter`] is one connection. It holds an advisory lock, which Postgres releases when the
//! connection ends for any reason. The same connection commits, so a writer that lost the lock can't commit. A
//! connection pooler between the read model's sessions and Postgres must not be in transaction mode, where clients
//! share connections. The event store works through a pooler in transaction mode too. [`PostgresReadModel`] has a
//! bounded number of connections, each opened on demand and replaced when it is lost.
//!
//! Commits of the read model are not synced one by one (`synchronous_commit=off`), so a crash of Postgres may lose the
//! commits of less than a second. The checkpoint is in the transaction of its rows, and the WAL of Postgres keeps the
//! order of transactions, so the projection folds the lost events from the log again. Readers see an older state until
//! then. A client that must not see an older state sends back the position of its last answer: the position of an
//! answer is read in the same snapshot as the answer's rows, so it is never ahead of them. A crash also ends the
//! writer's connection. The projector compares the stored checkpoint with its own every second, so it detects the crash
//! even without new events.
//!
//! The schema of a damaged read model is renamed, and a new one is created under the old name in the same transaction.
//! Statements name their tables without a schema, and the session's `search_path` selects the schema. So an open
//! session uses the new schema from its next statement on.

mod commit;
mod connections;
mod error;
mod event_store;
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

pub use event_store::PostgresEventStore;
pub use heartbeats::PostgresHeartbeats;
pub use reader::{PostgresEngine, PostgresReadModel};
pub use storage::PostgresReadModelStorage;
pub use url::{InvalidPostgresUrl, PostgresUrl};
pub use writer::PostgresReadModelWriter;
