//! The query API: routes that read and search apps, chats and messages, and the live feed.
//!
//! Apps, chats and messages are read from the read model, hits from the search index, histories from the log.
//! [`QueryApi`] holds these ports and [`router`] creates the routes. A response from a projection comes from one
//! snapshot, and its headers contain the snapshot's position (`Consistency-Token`) and lag (`Read-Model-Lag`). A query
//! that sends a token waits until the projection has reached the token's position. A token of a position that the log
//! does not have is refused. A history is read from the log, so its lag is 0 and it waits for no projection. The live
//! feed follows the log itself.

mod api;
mod consistency_wait;
mod fair_share;
mod lag;
mod live_feed;
mod log_head;
mod message_history;
pub mod metrics;
mod monotonic_reads;
mod pagination;
mod response_position;
mod routes;
mod search;

pub use api::{ProjectionProgress, PromotedProjections, QueryApi, QueryPorts};
pub use live_feed::LiveFeedOptions;
pub use routes::{openapi_document, router};
