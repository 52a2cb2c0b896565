//! The projection of the search index: its fold, its storage, and the commits in between.

mod fold;
mod projection;
mod store;

pub use fold::{documents_to_load, fold};
pub use projection::SearchProjection;
pub use store::SearchIndexStore;
