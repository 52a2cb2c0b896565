//! The metrics of the query side.

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

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
    describe_gauge!("chat_feed_followers", "Clients that follow the events of an app or a chat.");
    gauge!("chat_feed_followers").set(0.0);
    describe_gauge!("chat_feed_buffer_bytes", Unit::Bytes, "Newest events that are held for followers.");
    gauge!("chat_feed_buffer_bytes").set(0.0);
    describe_counter!("chat_feed_events_sent_total", "Events that were sent to followers.");
    counter!("chat_feed_events_sent_total").increment(0);
    describe_counter!(
        "chat_feed_catch_up_reads_total",
        "Pages that were read from the log for followers that catch up."
    );
    counter!("chat_feed_catch_up_reads_total").increment(0);
    describe_counter!("chat_feed_refused_total", "Followers that were refused because there were too many.");
    counter!("chat_feed_refused_total").increment(0);
    describe_counter!("chat_feed_closed_total", "Followers that the server disconnected, by reason.");
    for reason in ["fallen_behind", "log_unreadable", "stopping"] {
        counter!("chat_feed_closed_total", "reason" => reason).increment(0);
    }
}
