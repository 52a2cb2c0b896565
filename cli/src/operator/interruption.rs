//! Ctrl-C and SIGTERM for commands that remove what they have written so far.

use std::fmt::Display;

use crate::failure::Failure;
use crate::signals::{COMMAND_GRACE_PERIOD, ShutdownSignal};

/// Does work until it ends or a signal stops it. After a signal, the work is dropped, which removes what is unfinished.
/// `unfinished` says in one sentence what there is not.
pub(super) async fn unless_interrupted<T>(
    unfinished: impl Display,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let signal = ShutdownSignal::listen(COMMAND_GRACE_PERIOD)?;
    tokio::select! {
        ended = work => ended,
        () = signal.received() => Err(Failure::interrupted(format!("interrupted: {unfinished}"))),
    }
}
