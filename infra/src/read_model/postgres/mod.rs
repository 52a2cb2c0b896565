//! The adapter for many processes: a namespace of a Postgres database (14 or newer), one writer, any number of readers.

mod commit;
mod failure;
mod layout;
mod load;
mod pool;
mod reader;
mod row;
mod session;
mod url;
mod writer;

pub use reader::PostgresReadModel;
pub use url::{InvalidPostgresUrl, PostgresUrl};
pub use writer::PostgresReadModelWriter;
