//! Repeats calls while a projection is in use. It can be in use after its writer was dropped:
//! - the merges of a dropped writer may still run, and hold the projection;
//! - a remote engine may release the writer's lock late;
//! - a child process that another test is starting holds the locks of all open files until it executes its program.

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
