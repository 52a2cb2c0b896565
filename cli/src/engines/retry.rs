//! Retries while an engine is unavailable.

use std::error::Error;
use std::future::Future;
use std::time::Duration;

use chat_ports::backoff::Backoff;

use crate::start_progress::StartProgress;

const INITIAL_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// Number of attempts between two warnings. The warning is repeated so that it also appears among the last lines that
/// the process has logged.
const ATTEMPTS_PER_WARNING: u32 = 20;

/// Repeats an attempt until it succeeds or fails with an error that is not retryable. Until then, `progress` holds the
/// name of the engine and the error of the last attempt.
pub(crate) async fn retry_until_available<T, E, F>(
    engine: &str,
    progress: &StartProgress,
    mut attempt: impl FnMut() -> F,
    is_retryable: impl Fn(&E) -> bool,
) -> Result<T, E>
where
    E: Error + 'static,
    F: Future<Output = Result<T, E>>,
{
    let mut backoff = Backoff::new(INITIAL_BACKOFF, MAX_BACKOFF);
    let mut failures = 0_u32;
    progress.begin(engine);
    loop {
        match attempt().await {
            Ok(value) => {
                if failures > 0 {
                    tracing::info!("{engine} is available");
                }
                return Ok(value);
            }
            Err(error) if is_retryable(&error) => {
                progress.failed(&error);
                if failures.is_multiple_of(ATTEMPTS_PER_WARNING) {
                    tracing::warn!(error = &error as &dyn Error, "waiting for {engine}");
                }
                failures += 1;
                tokio::time::sleep(backoff.next_pause()).await;
            }
            Err(error) => return Err(error),
        }
    }
}
