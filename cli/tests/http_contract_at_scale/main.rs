//! Most tests of `tests/http_contract`, on a deployment of several processes: three command APIs, a projector and two
//! query APIs, with counters, idempotency keys and rate limits in Redis, and the log and the read model in Postgres. A
//! few tests start other processes, as in `tests/http_contract`. With `KURRENTDB_URL`, the log is in a real KurrentDB,
//! and the tests that use the deployment run one after the other.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../harness/mod.rs"]
mod harness;

#[path = "../http_contract/admin.rs"]
mod admin;
#[path = "../http_contract/apps.rs"]
mod apps;
#[path = "../http_contract/audit.rs"]
mod audit;
#[path = "../http_contract/audit_tail.rs"]
mod audit_tail;
#[path = "../http_contract/bodies.rs"]
mod bodies;
#[path = "../http_contract/chats.rs"]
mod chats;
#[path = "../http_contract/consistency.rs"]
mod consistency;
#[path = "../http_contract/contract.rs"]
mod contract;
#[path = "../http_contract/event_stream.rs"]
mod event_stream;
#[path = "../http_contract/exposure.rs"]
mod exposure;
#[path = "../http_contract/failures.rs"]
mod failures;
#[path = "../http_contract/history.rs"]
mod history;
#[path = "../http_contract/idempotency.rs"]
mod idempotency;
#[path = "../http_contract/interfaces.rs"]
mod interfaces;
#[path = "../http_contract/jobs.rs"]
mod jobs;
#[path = "../http_contract/live_feed.rs"]
mod live_feed;
#[path = "../http_contract/message_pages.rs"]
mod message_pages;
#[path = "../http_contract/messages.rs"]
mod messages;
#[path = "../http_contract/openapi.rs"]
mod openapi;
#[path = "../http_contract/operators.rs"]
mod operators;
#[path = "../http_contract/paths.rs"]
mod paths;
#[path = "../http_contract/preconditions.rs"]
mod preconditions;
#[path = "../http_contract/projections.rs"]
mod projections;
#[path = "../http_contract/rate_limit.rs"]
mod rate_limit;
#[path = "../http_contract/search.rs"]
mod search;
#[path = "../http_contract/senders.rs"]
mod senders;
#[path = "../http_contract/system.rs"]
mod system;
#[path = "../http_contract/text.rs"]
mod text;

use harness::deployment::Deployment;
use harness::process::ProcessOptions;

/// The deployment that this suite runs against.
async fn deployment(configure: impl Fn(ProcessOptions) -> ProcessOptions) -> Deployment {
    Deployment::at_scale_with(configure).await
}
