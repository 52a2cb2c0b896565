//! Writes to standard output, and notices that its reader has closed the pipe.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use tokio::time::sleep;

use crate::failure::Failure;

/// The exit code after the reader has closed the pipe: the same as a shell reports for a program that SIGPIPE killed.
const EXIT_BROKEN_PIPE: u8 = 141;

/// The interval at which the pipe is checked.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Writes to standard output. On failure, returns the exit code of the process, and prints a message unless the reader
/// has closed the pipe (`| head`).
pub(super) fn write(bytes: &[u8]) -> Result<(), ExitCode> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| write_failure(&error))
}

/// Returns the exit code for an error of writing to standard output. Prints a message, unless the reader has closed the
/// pipe.
pub(crate) fn write_failure(error: &io::Error) -> ExitCode {
    match error.kind() {
        io::ErrorKind::BrokenPipe => broken_pipe_exit_code(),
        _ => Failure::because("standard output can't be written", error).report(),
    }
}

/// Returns the exit code after the reader has closed the pipe.
pub(crate) fn broken_pipe_exit_code() -> ExitCode {
    ExitCode::from(EXIT_BROKEN_PIPE)
}

/// Completes once the reader of standard output has closed the pipe (`| head`). Never completes if standard output is a
/// file.
pub(super) async fn closed() {
    while !is_closed() {
        sleep(POLL_INTERVAL).await;
    }
}

/// Whether standard output has no reader.
fn is_closed() -> bool {
    let stdout = io::stdout();
    // `poll` reports errors without being asked for them.
    let mut polled = [PollFd::new(&stdout, PollFlags::empty())];
    poll(&mut polled, 0).is_ok() && polled[0].revents().contains(PollFlags::ERR)
}
