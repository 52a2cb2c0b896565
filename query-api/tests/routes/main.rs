//! The query routes behind all middleware, over a real event store and a real read model.

#![expect(clippy::unwrap_used, reason = "test helpers")]

mod apps;
mod chats;
mod consistency;
mod fixture;
mod history;
mod live_feed;
mod messages;
mod openapi;
mod search;
mod switch_over;
