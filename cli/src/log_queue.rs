//! The queue between the threads that log and standard error.
//!
//! A thread of its own writes the lines, so a reader of standard error that is slow, stalled or gone holds up no other
//! thread. Lines for which there is no room, or that can't be written, are dropped and counted.

use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use metrics::{Unit, counter, describe_counter};

/// The most bytes that wait for the thread that writes. That thread may be writing up to as many more.
const MAX_PENDING_BYTES: usize = 1024 * 1024;

/// The pause before another attempt to write, if standard error is non-blocking and takes nothing now.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);

const DROPPED_LINES: &str = "chat_log_lines_dropped_total";

/// The sending side of the queue. Clones share it.
#[derive(Clone)]
pub(crate) struct LogQueue(Arc<Shared>);

#[derive(Default)]
struct Shared {
    pending: Mutex<Pending>,
    /// Notified when lines were added to `pending`, and when they were written.
    changed: Condvar,
}

#[derive(Default)]
struct Pending {
    /// The lines that the thread has not taken yet.
    text: Vec<u8>,
    /// The number of lines in `text`.
    lines: u64,
    /// Lines that were dropped since the last report in the log.
    dropped: u64,
    /// Whether the thread is writing lines that it has taken.
    is_writing: bool,
}

impl LogQueue {
    /// Starts the thread that writes to `output`.
    pub(crate) fn start(output: impl Write + Send + 'static) -> io::Result<Self> {
        let queue = Self(Arc::default());
        let writer = LogWriter { queue: queue.clone(), output };
        thread::Builder::new().name("log".to_owned()).spawn(move || writer.run())?;
        Ok(queue)
    }

    /// Registers the metric of dropped lines. Call it once the recorder of metrics is installed.
    pub(crate) fn register_metrics() {
        describe_counter!(
            DROPPED_LINES,
            Unit::Count,
            "Log lines that were dropped because standard error was not read or could not be written."
        );
        counter!(DROPPED_LINES).increment(0);
    }

    /// Adds a line, or several that belong together, which count as one. Never blocks.
    pub(crate) fn push(&self, text: &[u8]) {
        let mut pending = self.pending();
        if pending.text.len() + text.len() > MAX_PENDING_BYTES {
            pending.dropped += 1;
            drop(pending);
            counter!(DROPPED_LINES).increment(1);
            return;
        }
        pending.text.extend_from_slice(text);
        pending.lines += 1;
        drop(pending);
        self.0.changed.notify_all();
    }

    /// Waits until all lines are written, up to the timeout.
    pub(crate) fn flush(&self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        let mut pending = self.pending();
        while !pending.text.is_empty() || pending.is_writing {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.0.changed.wait_timeout(pending, left);
            pending = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.0.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For `tracing-subscriber`, which writes each log entry in one call.
impl Write for LogQueue {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.push(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The thread that writes.
struct LogWriter<W> {
    queue: LogQueue,
    output: W,
}

impl<W: Write> LogWriter<W> {
    fn run(mut self) {
        let mut text = Vec::new();
        loop {
            let lines = self.take_pending(&mut text);
            let written = write_all(&mut self.output, &text);
            text.clear();
            let mut pending = self.queue.pending();
            pending.is_writing = false;
            if written.is_err() {
                pending.dropped += lines;
            }
            // Reported only after a success: a report that can't be written would itself be dropped, and cause another
            // report.
            let dropped = if written.is_ok() { std::mem::take(&mut pending.dropped) } else { 0 };
            drop(pending);
            self.queue.0.changed.notify_all();
            if written.is_err() {
                counter!(DROPPED_LINES).increment(lines);
            }
            if dropped > 0 {
                tracing::warn!(
                    lines = dropped,
                    "log lines were dropped: standard error was not read in time, or could not be written"
                );
            }
        }
    }

    /// Waits for lines and moves them into `text`. Returns their number.
    fn take_pending(&self, text: &mut Vec<u8>) -> u64 {
        let mut pending = self.queue.pending();
        while pending.text.is_empty() {
            pending = self.queue.0.changed.wait(pending).unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::swap(&mut pending.text, text);
        pending.is_writing = true;
        std::mem::take(&mut pending.lines)
    }
}

/// Writes everything. Standard error may be a terminal or pipe that another program has made non-blocking.
fn write_all(output: &mut impl Write, mut text: &[u8]) -> io::Result<()> {
    while !text.is_empty() {
        match output.write(text) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => text = &text[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(RETRY_INTERVAL),
            Err(error) => return Err(error),
        }
    }
    output.flush()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// An output that waits for a permission before each write.
    struct Gated {
        permissions: mpsc::Receiver<io::Result<()>>,
        written: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Gated {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            // Both channels are closed at the end of a test.
            self.permissions.recv().unwrap_or(Err(ErrorKind::BrokenPipe.into()))?;
            let _ = self.written.send(text.to_vec());
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gated() -> (LogQueue, mpsc::Sender<io::Result<()>>, mpsc::Receiver<Vec<u8>>) {
        let ((permit, permissions), (written, output)) = (mpsc::channel(), mpsc::channel());
        (LogQueue::start(Gated { permissions, written }).unwrap(), permit, output)
    }

    #[test]
    fn a_stalled_reader_blocks_no_one_and_the_lines_beyond_the_bound_are_counted() {
        let (queue, permit, written) = gated();
        let line = [b'x'; 1024];
        let lines = 4 * MAX_PENDING_BYTES / line.len();
        for _ in 0..lines {
            queue.push(&line);
        }
        queue.flush(Duration::ZERO);
        let dropped = usize::try_from(queue.pending().dropped).unwrap();
        // At most `MAX_PENDING_BYTES` wait, and at most as many are being written.
        assert!(dropped >= lines / 2, "{dropped}");

        let mut kept = 0;
        while kept < lines - dropped {
            permit.send(Ok(())).unwrap();
            kept += written.recv().unwrap().len() / line.len();
        }
        queue.flush(Duration::from_mins(1));
        assert!(queue.pending().text.is_empty());
    }

    #[test]
    fn lines_that_can_not_be_written_are_counted_and_later_ones_are_written() {
        let (queue, permit, written) = gated();
        queue.push(b"lost\n");
        permit.send(Err(ErrorKind::StorageFull.into())).unwrap();
        queue.flush(Duration::from_mins(1));
        assert_eq!(queue.pending().dropped, 1);
        queue.push(b"kept\n");
        permit.send(Ok(())).unwrap();
        assert_eq!(written.recv().unwrap(), b"kept\n");
    }

    #[test]
    fn an_output_that_would_block_is_tried_again() {
        let (queue, permit, written) = gated();
        queue.push(b"a line\n");
        permit.send(Err(ErrorKind::WouldBlock.into())).unwrap();
        permit.send(Ok(())).unwrap();
        assert_eq!(written.recv().unwrap(), b"a line\n");
    }
}
