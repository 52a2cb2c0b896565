//! What the adapters in SQL share: the tables, the queries and how their answers are read, where a page is cut, and what
//! the digest adds up. An adapter adds connections, transactions, errors and writing.

mod answers;
pub(super) mod digest;
pub(super) mod get;
mod letters;
mod list;
pub(super) mod load;
pub(super) mod query;
pub(super) mod row;
pub(super) mod tables;
mod window;

pub use answers::Engine;
