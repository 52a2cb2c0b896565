//! Contract case of named locks of the storage.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::retries::retry;
use crate::read_model::{ReadModelError, ReadModelStorage};

/// The time limit for the release of a lock. A server releases a lock when it notices that the connection was closed,
/// which may take a moment.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(30);

/// A named lock has one holder, and excludes neither the writer nor the holders of locks with other names. `first` and
/// `second` are two handles on the same storage.
pub async fn a_named_lock_has_one_holder(first: &dyn ReadModelStorage, second: &dyn ReadModelStorage) {
    let lock = take_when_released(|| first.lock("jobs")).await;
    assert!(lock.is_held().await);
    assert!(matches!(retry(|| first.lock("jobs")).await, Err(ReadModelError::InUse)));
    assert!(matches!(retry(|| second.lock("jobs")).await, Err(ReadModelError::InUse)));
    take_when_released(|| second.lock("other")).await;
    let (_writer, _) = take_when_released(|| second.open()).await;
    drop(lock);
    let next = take_when_released(|| second.lock("jobs")).await;
    assert!(next.is_held().await);
}

/// Takes a lock, and retries while it is held. An earlier attempt of the same call may hold it, too: after that attempt
/// timed out, the server may still give the lock to the attempt's connection, which then holds it for a moment.
async fn take_when_released<T, F>(take: impl Fn() -> F) -> T
where
    F: Future<Output = Result<T, ReadModelError>>,
{
    let attempts = async {
        loop {
            match take().await {
                Err(ReadModelError::InUse | ReadModelError::Unavailable(_)) => {
                    sleep(Duration::from_millis(10)).await;
                }
                taken => return taken.unwrap(),
            }
        }
    };
    timeout(RELEASE_TIMEOUT, attempts).await.unwrap()
}
