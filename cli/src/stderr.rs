//! Standard error. A serving process writes it through its log queue, other commands write it directly.

use std::io::{self, Write as _};
use std::sync::OnceLock;
use std::time::Duration;

use crate::log_queue::LogQueue;

/// How long the last lines may take to be written at the end of the process.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The queue of a serving process; not set in other commands.
static QUEUE: OnceLock<LogQueue> = OnceLock::new();

/// Starts the queue. From then on, [`print()`] does not block.
pub(crate) fn start_queue() -> io::Result<LogQueue> {
    let queue = LogQueue::start(io::stderr())?;
    Ok(QUEUE.get_or_init(|| queue).clone())
}

/// Writes to standard error. Failures are ignored: standard error may be closed.
pub(crate) fn print(text: &str) {
    match QUEUE.get() {
        Some(queue) => queue.push(text.as_bytes()),
        None => drop(io::stderr().write_all(text.as_bytes())),
    }
}

/// Waits up to [`FLUSH_TIMEOUT`] until the lines so far are written.
pub(crate) fn flush() {
    if let Some(queue) = QUEUE.get() {
        queue.flush(FLUSH_TIMEOUT);
    }
}
