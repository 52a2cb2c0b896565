//! The projection of the read model: its fold, its storage, and the commits in between.

mod fold;
mod postgres_store;
mod projection;
mod sqlite_store;

pub use fold::{FoldOutput, LoadedRows, RowsToLoad, fold};
pub use postgres_store::PostgresReadModelStore;
pub use projection::ReadModelProjection;
pub use sqlite_store::SqliteReadModelStore;
