//! SIGTERM and SIGINT (Ctrl-C), which stop the process.

use std::future::Future;
use std::thread;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::failure::{EXIT_INTERRUPTED, Failure};
use crate::stderr;

/// Signals within this time after the first one are ignored as duplicates: programs such as `timeout` send one signal
/// to the process and another to its group.
const DUPLICATE_SIGNAL_WINDOW: Duration = Duration::from_millis(200);

/// How long an operator command may take to stop after a signal: longer than the time limit of a replay's request.
pub(crate) const COMMAND_GRACE_PERIOD: Duration = Duration::from_secs(40);

/// How long a command that only prints may take to stop: the reader of its output may block it.
pub(crate) const PRINTING_GRACE_PERIOD: Duration = Duration::from_secs(1);

/// The signals that stop a process. Clones observe the same signals.
#[derive(Clone)]
pub(crate) struct ShutdownSignal(watch::Receiver<bool>);

impl ShutdownSignal {
    /// Listens to signals on a thread of its own, so that they are observed however busy or blocked the other threads
    /// are. A second signal ends the process at once, and so does the end of the grace period after the first one.
    pub(crate) fn listen(grace_period: Duration) -> Result<Self, Failure> {
        let unavailable = |error: std::io::Error| Failure::because("signals can't be listened to", &error);
        let runtime = Builder::new_current_thread().enable_all().build().map_err(unavailable)?;
        let signals = {
            let _entered = runtime.enter();
            Signals::new().map_err(unavailable)?
        };
        let (sender, receiver) = watch::channel(false);
        let work = move || runtime.block_on(signals.stop_process(sender, grace_period));
        thread::Builder::new().name("signals".to_owned()).spawn(work).map_err(unavailable)?;
        Ok(Self(receiver))
    }

    /// Completes at the first signal, and at once if there was one.
    pub(crate) fn received(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut receiver = self.receiver();
        async move {
            // Can't fail: the thread with the sender runs until the process exits.
            let _ = receiver.wait_for(|received| *received).await;
        }
    }

    /// Returns a receiver that becomes `true` at the first signal.
    pub(crate) fn receiver(&self) -> watch::Receiver<bool> {
        self.0.clone()
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    async fn stop_process(mut self, received: watch::Sender<bool>, grace_period: Duration) {
        let signal = self.next().await;
        tracing::info!(signal, "shutting down: finishing accepted requests");
        received.send_replace(true);
        let ignore_duplicates = async {
            loop {
                self.next().await;
            }
        };
        let _: Result<(), _> = timeout(DUPLICATE_SIGNAL_WINDOW, ignore_duplicates).await;
        tokio::select! {
            signal = self.next() => tracing::warn!(signal, "second signal: exiting at once"),
            () = sleep(grace_period) => {
                tracing::error!(seconds = grace_period.as_secs(), "the process did not stop in time: exiting at once");
            }
        }
        stderr::flush();
        std::process::exit(EXIT_INTERRUPTED.into());
    }
}
