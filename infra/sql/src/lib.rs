//! What the adapters in SQL share: the tables, the queries and how their answers are read, where a page is cut, and what
//! the digest adds up. An adapter adds connections, transactions, errors and writing.

mod answers;
pub mod digest;
pub mod get;
mod letters;
mod list;
pub mod load;
pub mod query;
pub mod row;
pub mod tables;
mod window;

pub use answers::{SqlEngine, SqlReadModel};
