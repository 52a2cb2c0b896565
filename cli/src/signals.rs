//! SIGTERM and Ctrl-C ask the process to stop.

use std::future::Future;

use tokio::signal::unix::{SignalKind, signal};

use crate::failure::Failure;

/// Completes when the process is asked to stop. A second time ends it at once.
pub(crate) fn stop() -> Result<impl Future<Output = ()> + Send, Failure> {
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
        tracing::info!(signal, "stopping: finishing what was accepted, refusing what is new");
        tokio::spawn(async move {
            let signal = next().await;
            tracing::warn!(signal, "stopping at once");
            std::process::exit(130);
        });
    })
}
