//! The metrics of the query side.

use metrics::{Unit, counter, describe_counter, describe_histogram, histogram};

/// Registers the metrics of a process that answers queries.
pub fn register() {
    describe_counter!("chat_query_waits_total", "Queries that waited for their consistency token.");
    counter!("chat_query_waits_total").increment(0);
    describe_histogram!(
        "chat_query_wait_duration_seconds",
        Unit::Seconds,
        "Time that queries waited until their consistency token was reached."
    );
    let _ = histogram!("chat_query_wait_duration_seconds");
}
