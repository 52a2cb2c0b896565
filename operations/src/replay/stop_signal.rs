//! Communication with a running replay: the stop signal, and the status callback.

use tokio::sync::watch;

/// Receives a short message when a replay waits before a retry, with the reason.
pub type StatusCallback<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// The signal that a replay must stop: its sender has sent `true`, or was dropped.
#[derive(Clone, Debug)]
pub struct StopSignal(watch::Receiver<bool>);

impl StopSignal {
    /// Creates a signal with its sender.
    pub fn channel() -> (watch::Sender<bool>, Self) {
        let (sender, receiver) = watch::channel(false);
        (sender, Self(receiver))
    }

    /// Whether a stop is requested: the sender has sent `true`, or was dropped.
    pub fn is_requested(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Waits until a stop is requested.
    pub async fn requested(&mut self) {
        // An error means that the sender was dropped, which counts as a request.
        let _ = self.0.wait_for(|stop| *stop).await;
    }
}
