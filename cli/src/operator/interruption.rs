//! Interruption of commands by Ctrl-C and SIGTERM.

use std::fmt::Display;

use crate::failure::Failure;
use crate::signals::{COMMAND_GRACE_PERIOD, ShutdownSignal};

/// Runs a future until it ends or a signal stops it. At a signal, the future is dropped, which removes its incomplete
/// files. The failure then contains `unfinished`, a sentence about what the command leaves undone or running.
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
