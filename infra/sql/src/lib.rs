//! What the adapters in SQL share: the tables, the queries and how their answers are read, where a page is cut, and what
//! the digest adds up. An adapter adds connections, transactions, errors and writing.

pub mod contents;
mod dead_letters;
pub mod get;
mod list;
pub mod load;
mod message_window;
pub mod query;
mod query_runner;
pub mod row;
pub mod tables;

pub use query_runner::{SqlEngine, SqlReadModel};
