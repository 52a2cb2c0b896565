//! The projection of the read model: its fold, its storage, and the commits in between.

mod fold;
mod projection;
mod store;

pub use fold::{FoldOutput, LoadedRows, RowsToLoad, fold};
pub use projection::ReadModelProjection;
pub use store::ReadModelProjectionStore;
