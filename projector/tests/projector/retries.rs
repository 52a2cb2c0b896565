//! Calls that are repeated while a projection is in use: a dropped writer whose merges have not ended may still hold it, a
//! remote engine may release the writer's lock late, and a child process that another test is starting holds the locks
//! of all open files until it executes its program.

use std::future::Future;
use std::time::Duration;

use chat_ports::projection_checkpoint::StorageOrigin;
use chat_projector::projection::{Projection, ProjectionError, ProjectionStore};

use crate::deadline::within;

/// Repeats a call until the projection is not in use.
pub async fn when_free<T, F>(call: impl Fn() -> F) -> Result<T, ProjectionError>
where
    F: Future<Output = Result<T, ProjectionError>>,
{
    let calls = async {
        loop {
            match call().await {
                Err(ProjectionError::InUse) => tokio::time::sleep(Duration::from_millis(10)).await,
                outcome => return outcome,
            }
        }
    };
    within("the release of the projection", calls).await
}

/// Opens a projection when it is free.
pub async fn open_when_free(store: &dyn ProjectionStore) -> Box<dyn Projection> {
    open_with_origin_when_free(store).await.0
}

/// Opens a projection when it is free, and returns whether it was created.
pub async fn open_with_origin_when_free(store: &dyn ProjectionStore) -> (Box<dyn Projection>, StorageOrigin) {
    when_free(|| store.open()).await.unwrap()
}

/// Recreates a projection when it is free.
pub async fn recreate_when_free(store: &dyn ProjectionStore) -> Box<dyn Projection> {
    when_free(|| store.recreate()).await.unwrap()
}
