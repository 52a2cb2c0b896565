//! The query side of the chat API: everything that reads.
//!
//! Apps, chats and messages come from the read model, hits from the search index, histories from the log itself.
//! [`QueryApi`] holds the three; [`router`] is its routes. Every answer is one snapshot and says which
//! (`Consistency-Token`) and how old it is (`Read-Model-Lag`); a query that brings a token back waits until the snapshot
//! holds it.

mod api;
mod consistency_wait;
mod history;
mod lag;
mod monotonic_reads;
mod pagination;
mod response_position;
mod routes;
mod search;

pub use api::{ProjectionProgress, PromotedProjections, QueryApi, QueryPorts};
pub use routes::{openapi_document, router};
