//! Waits for a condition within a time limit.

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

/// The time limit of a wait.
pub const TIMEOUT: Duration = Duration::from_secs(30);

const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Waits until `poll` returns a value. Panics with the condition after [`TIMEOUT`], and formats it only then.
pub async fn eventually<T, F: Future<Output = Option<T>>>(
    condition: impl Display,
    mut poll: impl FnMut() -> F,
) -> T {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        // Ends a poll that hangs, too.
        match timeout_at(deadline, poll()).await {
            Ok(Some(found)) => return found,
            Ok(None) if Instant::now() < deadline => sleep(POLL_INTERVAL).await,
            Ok(None) | Err(_) => panic!("{condition}: not within {TIMEOUT:?}"),
        }
    }
}
