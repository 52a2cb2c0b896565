//! The query side of the chat API: everything that reads.
//!
//! Apps, chats and messages come from the read model, hits from the search index, histories from the log itself.
//! [`QueryApi`] holds the three; [`router`] is its routes. Every answer is one snapshot and says which
//! (`Consistency-Token`) and how old it is (`Read-Model-Lag`); a query that brings a token back waits until the snapshot
//! holds it.

mod api;
mod floor;
mod freshness;
mod history;
mod lag;
mod page;
mod routes;
mod search;
mod standing;

pub use api::{Progress, Projections, QueryApi, QueryPorts};
pub use routes::{document, router};
pub use search::Search;
