//! The start-up message on standard error.

use std::fmt::Write as _;

use chat_domain::projection::ProjectionName;

use crate::engines::StorageLocations;
use crate::listeners::Addresses;
use crate::serve_options::{LogFormat, Role, ServeOptions};
use crate::stderr;

/// Logs the addresses. Unless logs are JSON, also prints the addresses and locations in use, and, if the role takes
/// commands, a first request to try.
pub(crate) fn print(role: Role, options: &ServeOptions, locations: &StorageLocations, addresses: Addresses) {
    let address = addresses.public;
    tracing::info!(role = role.name(), %address, "listening on http://{address}");
    if let Some(address) = addresses.admin {
        tracing::info!(%address, "listening for operators on http://{address}");
    }
    if options.log_format == LogFormat::Json {
        return;
    }
    stderr::print(&text(role, options, locations, addresses));
}

fn text(role: Role, options: &ServeOptions, locations: &StorageLocations, addresses: Addresses) -> String {
    let address = addresses.public;
    let admin = match (&options.admin_token, &options.operators) {
        (Some(_), None) => "protected by the admin token",
        (None, Some(_)) => "protected by the tokens of operators",
        (Some(_), Some(_)) => "protected by the admin token and those of operators",
        (None, None) => "open to this machine (set ADMIN_TOKEN to close them)",
    };
    let limit = options.rate_limit.map_or_else(|| "none".to_owned(), |limit| format!("{limit} for each app"));
    let mut rows = vec![("event log", locations.event_store.to_string())];
    if role.answers_queries() || role.runs_projector_of(ProjectionName::ReadModel) {
        rows.push(("read model", locations.read_model.to_string()));
    }
    if role.answers_queries() || role.runs_projector_of(ProjectionName::SearchIndex) {
        rows.push(("search index", locations.search_index.display().to_string()));
    }
    if role.takes_commands() {
        rows.push(("counters", locations.describe_counters()));
    }
    if role.takes_commands() || role.answers_queries() {
        rows.push(("admin routes", admin.to_owned()));
        rows.push(("rate limit", limit));
        rows.push(("reference", format!("http://{address}/docs")));
    }
    if role.answers_queries() {
        rows.push(("console", format!("http://{}/console", addresses.admin.unwrap_or(address))));
    }
    if let Some(address) = addresses.admin {
        rows.push(("for operators", format!("http://{address}")));
    }
    rows.push(("health", format!("http://{address}/readyz")));

    let version = env!("CARGO_PKG_VERSION");
    let mut text = format!("\n  chat-api {version}, {}, on http://{address}\n\n", role.name());
    for (name, value) in rows {
        // Writing to a String can't fail.
        let _ = writeln!(text, "    {name:<13} {value}");
    }
    if role.takes_commands() {
        let _ = write!(
            text,
            "\n  Create an app:\n\n    curl -X POST http://{address}/api/v1/apps \\\n      \
             -H 'Content-Type: application/json' -d '{{\"name\":\"first_app\"}}'\n"
        );
    }
    text.push_str("\n  Ctrl-C stops it.\n\n");
    text
}
