//! Waiting with a deadline.

use std::future::Future;
use std::time::Duration;

/// Long enough for a busy machine; a passing test never waits for it.
const DEADLINE: Duration = Duration::from_secs(30);

pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("{what}: not within {DEADLINE:?}"))
}
