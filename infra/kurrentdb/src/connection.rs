//! The client, and what it does not do by itself.
//!
//! The official client holds on to the node that it has chosen and, where connecting fails, ends for good. Calls have
//! no deadline of their own. So each call here has one, is repeated while that may help and patience lasts, and a
//! client that is of no more use is replaced.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kurrentdb::{Client, ClientSettings};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, sleep, timeout};

use super::call_error::CallError;
use super::url::KurrentDbUrl;

/// How long to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallTimeouts {
    /// For a single attempt: an append, or the next event of a read.
    pub attempt: Duration,
    /// For all attempts together; none begins after this.
    pub total: Duration,
}

impl Default for CallTimeouts {
    /// A server gives up on an append by itself after 2 s (`PrepareTimeoutMs`, `CommitTimeoutMs`), and should come
    /// to say so.
    fn default() -> Self {
        Self { attempt: Duration::from_millis(2_500), total: Duration::from_secs(4) }
    }
}

const INITIAL_BACKOFF: Duration = Duration::from_millis(20);
const MAX_BACKOFF: Duration = Duration::from_millis(500);

/// Repeated attempts, further and further apart.
pub(super) struct RetryBackoff {
    deadline: Instant,
    pause: Duration,
}

impl RetryBackoff {
    pub(super) fn new(patience: CallTimeouts) -> Self {
        Self { deadline: Instant::now() + patience.total, pause: INITIAL_BACKOFF }
    }

    /// Waits before the next attempt; false where there is to be none.
    pub(super) async fn wait_for_retry(&mut self) -> bool {
        if Instant::now() + self.pause >= self.deadline {
            return false;
        }
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(MAX_BACKOFF);
        true
    }
}

/// A way to the server: one HTTP/2 connection, opened when it is first needed.
pub(super) struct Connection {
    pub(super) url: KurrentDbUrl,
    pub(super) patience: CallTimeouts,
    current: Mutex<Option<Arc<RunningClient>>>,
}

/// A client, and the thread for its own task. The task would never end by itself, and keep what it holds.
struct RunningClient {
    client: Client,
    runtime: Option<Runtime>,
}

/// A client for as long as a call takes.
#[derive(Clone)]
pub(super) struct ClientLease(Arc<RunningClient>);

impl ClientLease {
    pub(super) fn client(&self) -> &Client {
        &self.0.client
    }
}

impl RunningClient {
    /// Reads the system's certificates from disk.
    fn start(settings: ClientSettings) -> Result<Self, CallError> {
        let runtime =
            Builder::new_multi_thread().worker_threads(1).thread_name("kurrentdb").enable_all().build();
        let runtime = runtime.map_err(|error| CallError::ClientSetup(error.into()))?;
        let client = Client::with_runtime_handle(runtime.handle().clone(), settings);
        let client = client.map_err(|error| CallError::ClientSetup(error.into()))?;
        Ok(Self { client, runtime: Some(runtime) })
    }
}

impl Drop for RunningClient {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Connection {
    pub(super) fn new(url: KurrentDbUrl, patience: CallTimeouts) -> Self {
        Self { url, patience, current: Mutex::default() }
    }

    /// The client of the moment.
    pub(super) async fn lease(&self) -> Result<ClientLease, CallError> {
        if let Some(running) = &*self.current() {
            return Ok(ClientLease(Arc::clone(running)));
        }
        let settings = self.url.settings.clone();
        let started = tokio::task::spawn_blocking(|| RunningClient::start(settings)).await;
        let started = started.unwrap_or_else(|panicked| Err(CallError::ClientSetup(panicked.into())))?;
        // Where somebody else was faster, theirs is taken.
        let mut current = self.current();
        Ok(ClientLease(Arc::clone(current.get_or_insert_with(|| Arc::new(started)))))
    }

    /// Takes note of a failure: the next call gets another client where this one is of no more use.
    pub(super) fn report_failure(&self, lease: &ClientLease, failure: &CallError) {
        if !failure.invalidates_client(self.url.is_cluster()) {
            return;
        }
        let mut current = self.current();
        if current.as_ref().is_some_and(|running| Arc::ptr_eq(running, &lease.0)) {
            *current = None;
        }
    }

    /// Repeats a call while that may help and patience lasts.
    pub(super) async fn with_retries<T, Fut>(
        &self,
        call: impl Fn(Client) -> Fut + Send,
    ) -> Result<T, CallError>
    where
        T: Send,
        Fut: Future<Output = Result<T, CallError>> + Send,
    {
        let mut attempts = RetryBackoff::new(self.patience);
        loop {
            let lease = self.lease().await?;
            let failure = match call(lease.client().clone()).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            self.report_failure(&lease, &failure);
            if !failure.is_retryable() || !attempts.wait_for_retry().await {
                return Err(failure);
            }
        }
    }

    fn current(&self) -> MutexGuard<'_, Option<Arc<RunningClient>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CallTimeouts {
    /// Waits for an answer, for as long as an attempt may take.
    pub(super) async fn within<T>(
        self,
        answer: impl Future<Output = kurrentdb::Result<T>> + Send,
    ) -> Result<T, CallError> {
        match timeout(self.attempt, answer).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(CallError::Timeout(self.attempt)),
        }
    }
}
