//! The write health of a store: whether its last write succeeded.

use std::error::Error;
use std::sync::{Arc, Weak};
use std::time::Duration;

use chat_ports::error_chain;
use tokio::sync::watch;

/// How often a store that refused a write is tried again.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// Whether a store takes writes, by the outcome of the last one.
///
/// After a failure, the probe, a write that affects no client, is repeated until a write succeeds. Without the probe,
/// the recovery could stay unnoticed: a process that is not ready may get no commands, and then makes no other writes.
pub(crate) struct WriteHealth {
    store: &'static str,
    failure: watch::Sender<Option<String>>,
}

impl WriteHealth {
    /// Creates the write health of a store, initially healthy, and starts the task that runs `probe`. The task ends
    /// after the last reference is dropped. `store` is the store's name in log lines.
    pub(crate) fn spawn<F, E>(store: &'static str, probe: impl Fn() -> F + Send + 'static) -> Arc<Self>
    where
        F: Future<Output = Result<(), E>> + Send,
        E: Error + Send + 'static,
    {
        let health = Arc::new(Self { store, failure: watch::Sender::new(None) });
        let (weak, mut failure) = (Arc::downgrade(&health), health.failure.subscribe());
        tokio::spawn(async move {
            while failure.wait_for(Option::is_some).await.is_ok() {
                let outcome = probe().await;
                match (outcome, Weak::upgrade(&weak)) {
                    (Ok(()), Some(health)) => health.record_success(),
                    (Err(error), Some(health)) => health.record_failure(&error),
                    (_, None) => return,
                }
                tokio::time::sleep(PROBE_INTERVAL).await;
            }
        });
        health
    }

    /// Records that a write was stored.
    pub(crate) fn record_success(&self) {
        if self.failure.borrow().is_none() {
            return;
        }
        if self.failure.send_replace(None).is_some() {
            tracing::info!("{} takes writes again", self.store);
        }
    }

    /// Records that a write failed.
    pub(crate) fn record_failure(&self, error: &(dyn Error + 'static)) {
        let reason = error_chain(error);
        if self.failure.send_replace(Some(reason)).is_none() {
            tracing::error!(
                error,
                "{} takes no writes; this process is not ready until a write succeeds",
                self.store
            );
        }
    }

    /// The failure of the last write, if it failed.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.borrow().clone()
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_store_that_failed_is_tried_until_it_takes_a_write() {
        let is_full = Arc::new(AtomicBool::new(true));
        let disk = Arc::clone(&is_full);
        let health = WriteHealth::spawn("the disk", move || {
            let outcome = if disk.load(Ordering::Relaxed) { Err(io::Error::other("full")) } else { Ok(()) };
            std::future::ready(outcome)
        });
        assert_eq!(health.failure(), None);
        health.record_failure(&io::Error::other("broken"));
        assert_eq!(health.failure().as_deref(), Some("broken"));
        tokio::time::sleep(3 * PROBE_INTERVAL).await;
        assert_eq!(health.failure().as_deref(), Some("full"));
        is_full.store(false, Ordering::Relaxed);
        tokio::time::sleep(2 * PROBE_INTERVAL).await;
        assert_eq!(health.failure(), None);
    }
}
