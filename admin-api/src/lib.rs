//! The admin side over HTTP: what operators read at the command line (`chat-api audit …`, `chat-api projections list`),
//! for programs. Every route needs the admin token and changes nothing; what operators do, they do at the command line.
//!
//! Answers are those of `-o json`: one envelope with `version`, `status`, `data` and `diagnostics`. The events of
//! `/audit/tail` come one by one, as server-sent events.

mod api;
mod query;
mod routes;

pub use api::{AdminApi, AdminPorts};
pub use routes::{document, router};
