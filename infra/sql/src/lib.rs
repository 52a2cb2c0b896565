//! The SQL that the SQLite and Postgres adapters share: tables, queries and the decoding of their rows, message pages,
//! and the content digest. An adapter adds connections, transactions, error mapping and most writes.

pub mod contents;
mod dead_letters;
pub mod get;
pub mod list;
pub mod load;
mod message_window;
pub mod query;
mod query_runner;
pub mod row;
pub mod tables;

pub use query_runner::{SqlEngine, SqlReadModel};
