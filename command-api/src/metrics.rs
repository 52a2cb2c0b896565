//! The metrics of the command side.

use chat_web::metrics::HistogramBuckets;
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use crate::command::Command;
use crate::service::OUTCOMES;

/// The buckets of the histograms that do not use the default buckets of durations.
pub const HISTOGRAM_BUCKETS: [HistogramBuckets; 2] = [
    HistogramBuckets {
        name: "chat_command_batch_size",
        upper_bounds: &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0],
    },
    // A waiting writer reads the stream again and again, and gives up after the first read that ends 0.4 s or more after
    // the wait began. So a wait can last longer than 0.4 s, by at most one read and the pause before it.
    HistogramBuckets {
        name: "chat_command_predecessor_wait_seconds",
        upper_bounds: &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 1.0, 2.5],
    },
];

/// Registers the metrics of a process that takes commands.
pub fn register() {
    describe_counter!("chat_commands_total", "Commands, by command and outcome.");
    for command in Command::NAMES {
        for outcome in OUTCOMES {
            counter!("chat_commands_total", "command" => command, "outcome" => outcome).increment(0);
        }
    }
    describe_gauge!(
        "chat_command_streams_refused",
        "Streams that refuse commands because an event can't be read or the stream was truncated in the event store, as far as \
         this process has met them."
    );
    gauge!("chat_command_streams_refused").set(0.0);
    describe_histogram!("chat_command_batch_size", "Commands in a batch, which share one append.");
    let _ = histogram!("chat_command_batch_size");
    describe_counter!(
        "chat_command_conflicts_total",
        "Appends that met a stream which another writer had changed; they are retried."
    );
    counter!("chat_command_conflicts_total").increment(0);
    describe_histogram!(
        "chat_command_predecessor_wait_seconds",
        Unit::Seconds,
        "Time that a writer waited for numbers reserved by another writer."
    );
    let _ = histogram!("chat_command_predecessor_wait_seconds");
    describe_histogram!(
        "chat_event_log_append_seconds",
        Unit::Seconds,
        "Time of an append to the log until it is durable, including waits for other appends."
    );
    let _ = histogram!("chat_event_log_append_seconds");
    describe_counter!(
        "chat_counter_repairs_total",
        "Counters that were set to the numbers of the log, by where they were found: ahead of it or behind it."
    );
    for found in ["ahead", "behind"] {
        counter!("chat_counter_repairs_total", "found" => found).increment(0);
    }
}
