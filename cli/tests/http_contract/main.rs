//! Tests of the HTTP contract on the real binary with the embedded engines, mostly in one process. Most responses are
//! checked against the OpenAPI document of the server.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../harness/mod.rs"]
mod harness;

mod admin;
mod admin_listener;
mod apps;
mod audit;
mod audit_tail;
mod bodies;
mod chats;
mod consistency;
mod contract;
mod event_stream;
mod exposure;
mod failures;
mod history;
mod idempotency;
mod interfaces;
mod jobs;
mod live_feed;
mod message_pages;
mod messages;
mod metrics;
mod openapi;
mod operators;
mod parameters;
mod paths;
mod preconditions;
mod projections;
mod rate_limit;
mod roles;
mod search;
mod senders;
mod system;
mod text;

use harness::deployment::Deployment;
use harness::process::ProcessOptions;

/// The deployment that this suite runs against.
async fn deployment(configure: impl Fn(ProcessOptions) -> ProcessOptions) -> Deployment {
    Deployment::serve_with(configure).await
}
