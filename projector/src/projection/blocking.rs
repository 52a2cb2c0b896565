//! Runs long or blocking work outside the worker threads of the runtime.

use tokio::task::spawn_blocking;

use super::error::ProjectionError;

/// The maximal number of events of a batch that is folded inline. Larger batches are folded on a blocking thread, so
/// that they do not delay the requests that share the runtime.
const MAX_INLINE_EVENTS: usize = 256;

/// Runs work on a blocking thread.
pub(crate) async fn run_blocking<T, E>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, ProjectionError>
where
    T: Send + 'static,
    E: Into<ProjectionError> + Send + 'static,
{
    spawn_blocking(work).await?.map_err(Into::into)
}

/// Runs work over `events` events: inline if there are few, else on a blocking thread.
pub(crate) async fn run_inline_or_blocking<T: Send + 'static>(
    events: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ProjectionError> {
    if events <= MAX_INLINE_EVENTS { Ok(work()) } else { Ok(spawn_blocking(work).await?) }
}
