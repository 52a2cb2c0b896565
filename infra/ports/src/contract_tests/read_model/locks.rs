//! Contract case of named locks of the storage.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::retries::retry;
use crate::read_model::{ReadModelError, ReadModelStorage, StorageLock};

/// The time limit for the release of a lock: a server notices a closed connection a moment later.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(30);

/// A named lock has one holder, and excludes neither the writer nor the holders of other names. Called with two handles
/// on the same storage.
pub async fn a_named_lock_has_one_holder(first: &dyn ReadModelStorage, second: &dyn ReadModelStorage) {
    let lock = retry(|| first.lock("jobs")).await.unwrap();
    assert!(lock.is_held().await);
    assert!(matches!(retry(|| first.lock("jobs")).await, Err(ReadModelError::InUse)));
    assert!(matches!(retry(|| second.lock("jobs")).await, Err(ReadModelError::InUse)));
    retry(|| second.lock("other")).await.unwrap();
    let (_writer, _) = retry(|| second.open()).await.unwrap();
    drop(lock);
    let next = timeout(RELEASE_TIMEOUT, lock_when_released(second)).await.unwrap();
    assert!(next.is_held().await);
}

async fn lock_when_released(storage: &dyn ReadModelStorage) -> Box<dyn StorageLock> {
    loop {
        match storage.lock("jobs").await {
            Err(ReadModelError::InUse | ReadModelError::Unavailable(_)) => {
                sleep(Duration::from_millis(10)).await;
            }
            lock => return lock.unwrap(),
        }
    }
}
