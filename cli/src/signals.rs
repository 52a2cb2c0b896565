//! SIGTERM and SIGINT (Ctrl-C), which stop the process.

use std::future::Future;

use tokio::signal::unix::{SignalKind, signal};

use crate::failure::Failure;

/// Returns a future that completes at the first signal. A second signal ends the process at once.
pub(crate) fn shutdown_signal() -> Result<impl Future<Output = ()> + Send, Failure> {
    let listen =
        |kind| signal(kind).map_err(|error| Failure::because("signals can't be listened to", &error));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let mut next = async move || {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    };
    Ok(async move {
        let signal = next().await;
        tracing::info!(signal, "shutting down: finishing accepted requests, refusing new ones");
        tokio::spawn(async move {
            let signal = next().await;
            tracing::warn!(signal, "second signal: exiting at once");
            std::process::exit(130);
        });
    })
}
