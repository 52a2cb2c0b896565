//! The query routes, behind everything that a listener has in front of them, on a real log and a real read model.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod apps;
mod chats;
mod consistency;
mod history;
mod messages;
mod openapi;
mod search;
mod stage;
mod switching;
