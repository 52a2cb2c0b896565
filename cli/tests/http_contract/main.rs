//! The HTTP contract, held against the real binary: every route, every error, and every answer against the OpenAPI
//! document that the server itself gives out.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../harness/mod.rs"]
mod harness;

mod admin;
mod apps;
mod bodies;
mod chats;
mod consistency;
mod contract;
mod failures;
mod history;
mod idempotency;
mod message_pages;
mod messages;
mod openapi;
mod paths;
mod preconditions;
mod rate_limit;
mod roles;
mod search;
mod system;
mod text;
