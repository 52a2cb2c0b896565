//! The query API: all routes that read apps, chats and messages.
//!
//! Apps, chats and messages are read from the read model, hits from the search index, histories from the log itself.
//! [`QueryApi`] holds these ports and [`router`] creates the routes. A response from a projection comes from one
//! snapshot, and its headers contain the snapshot's position (`Consistency-Token`) and lag (`Read-Model-Lag`). A query
//! that sends a token waits until the snapshot has reached it. A token that the log never issued is refused. A history
//! has no lag and never waits, and the live feed follows the log itself.

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
