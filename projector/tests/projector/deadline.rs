//! Waits with a deadline.

use std::future::Future;
use std::time::Duration;

/// Long enough for a busy machine; a passing test never waits for it.
const DEADLINE: Duration = Duration::from_secs(30);

/// Waits for a future, and panics after the deadline. `operation` is the subject of the panic message.
pub async fn within<T>(operation: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future)
        .await
        .unwrap_or_else(|_| panic!("{operation}: not within {DEADLINE:?}"))
}
