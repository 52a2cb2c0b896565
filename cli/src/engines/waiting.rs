//! Waiting for an engine that is away.

use std::error::Error;
use std::future::Future;
use std::time::Duration;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// After so many attempts it is said again what is waited for: whoever looks into the log later should find why nothing
/// happens.
const SAID_EVERY: u32 = 20;

/// Tries until it works, or fails in a way that waiting does not mend.
pub(crate) async fn wait_for<T, E, F>(
    what: &str,
    mut attempt: impl FnMut() -> F,
    worth_a_retry: impl Fn(&E) -> bool,
) -> Result<T, E>
where
    E: Error + 'static,
    F: Future<Output = Result<T, E>>,
{
    let mut pause = FIRST_PAUSE;
    let mut attempts = 0_u32;
    loop {
        match attempt().await {
            Ok(found) => {
                if attempts > 0 {
                    tracing::info!("{what} is there");
                }
                return Ok(found);
            }
            Err(error) if worth_a_retry(&error) => {
                if attempts.is_multiple_of(SAID_EVERY) {
                    tracing::warn!(error = &error as &dyn Error, "waiting for {what}");
                }
                attempts += 1;
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            Err(error) => return Err(error),
        }
    }
}
