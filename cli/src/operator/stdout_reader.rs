//! The reader of standard output.

use std::io;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use tokio::time::sleep;

/// How often the pipe is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Completes once the reader of standard output has closed the pipe (`| head`). Never completes if standard output is no
/// pipe.
pub(super) async fn closed() {
    while !is_closed() {
        sleep(POLL_INTERVAL).await;
    }
}

/// Whether nothing can read what would be written.
fn is_closed() -> bool {
    let stdout = io::stdout();
    // Errors are reported without being asked for.
    let mut polled = [PollFd::new(&stdout, PollFlags::empty())];
    poll(&mut polled, 0).is_ok() && polled[0].revents().contains(PollFlags::ERR)
}
