//! The projection of the search index: its fold, its storage, the commits in between, and the tail that is not
//! committed yet.

mod fold;
mod projection;
mod store;
mod tail;

pub use fold::{documents_to_load, fold};
pub use projection::SearchProjection;
pub use store::SearchIndexStore;
pub use tail::{TailLimits, register_tail_metrics, spawn_tail};
