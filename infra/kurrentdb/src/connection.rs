//! The connection to KurrentDB: adds deadlines, retries and failover to the official client.
//!
//! The official client keeps the node that it has chosen and stops for good if it can't connect, and its calls have no
//! deadline by default. So each call here has a deadline and is retried within a time limit, and a broken client is
//! replaced.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kurrentdb::{Client, ClientSettings};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, sleep, timeout};

use super::call_error::CallError;
use super::url::KurrentDbUrl;
use chat_ports::backoff::Backoff;

/// The time limits of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallTimeouts {
    /// The limit of a single attempt: an append, or the next event of a read.
    pub attempt: Duration,
    /// The limit of all attempts together: no attempt begins after it.
    pub total: Duration,
}

impl Default for CallTimeouts {
    /// An attempt lasts longer than the server's own timeout of an append, 2 s (`PrepareTimeoutMs`, `CommitTimeoutMs`), so
    /// that the server's error arrives.
    fn default() -> Self {
        Self { attempt: Duration::from_millis(2_500), total: Duration::from_secs(4) }
    }
}

/// No connection can be made to a host.
#[derive(Debug, Error)]
#[error("no connection to {host}:{port}")]
pub(super) struct HostUnreachable {
    host: String,
    port: u32,
    #[source]
    error: io::Error,
}

const INITIAL_BACKOFF: Duration = Duration::from_millis(20);
const MAX_BACKOFF: Duration = Duration::from_millis(500);

/// The pauses between the attempts of one call, up to its total time limit.
pub(super) struct RetryTimer {
    deadline: Instant,
    backoff: Backoff,
}

impl RetryTimer {
    pub(super) fn new(timeouts: CallTimeouts) -> Self {
        Self {
            deadline: Instant::now() + timeouts.total,
            backoff: Backoff::new(INITIAL_BACKOFF, MAX_BACKOFF),
        }
    }

    /// Waits before the next attempt. Returns false if the time limit leaves no further attempt.
    pub(super) async fn wait_for_retry(&mut self) -> bool {
        let pause = self.backoff.next_pause();
        if Instant::now() + pause >= self.deadline {
            return false;
        }
        sleep(pause).await;
        true
    }
}

/// A connection to the server or cluster: one HTTP/2 connection, opened on first use.
pub(super) struct Connection {
    pub(super) url: KurrentDbUrl,
    pub(super) timeouts: CallTimeouts,
    current: Mutex<Option<Arc<RunningClient>>>,
}

/// A client with its own runtime. The client's background task never ends by itself, so it needs a runtime that can be
/// shut down.
struct RunningClient {
    client: Client,
    runtime: Option<Runtime>,
}

/// Keeps a client running for the duration of a call.
#[derive(Clone)]
pub(super) struct ClientHandle(Arc<RunningClient>);

impl ClientHandle {
    pub(super) fn client(&self) -> &Client {
        &self.0.client
    }
}

impl RunningClient {
    /// Starts a client. Blocks: reads the system's certificates from disk.
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
    pub(super) fn new(url: KurrentDbUrl, timeouts: CallTimeouts) -> Self {
        Self { url, timeouts, current: Mutex::default() }
    }

    /// Returns the current client, or starts one.
    pub(super) async fn client_handle(&self) -> Result<ClientHandle, CallError> {
        if let Some(running) = &*self.current() {
            return Ok(ClientHandle(Arc::clone(running)));
        }
        let settings = self.url.settings.clone();
        let started = tokio::task::spawn_blocking(|| RunningClient::start(settings)).await;
        let started = started.unwrap_or_else(|panicked| Err(CallError::ClientSetup(panicked.into())))?;
        // If another call was faster, its client is used.
        let mut current = self.current();
        Ok(ClientHandle(Arc::clone(current.get_or_insert_with(|| Arc::new(started)))))
    }

    /// Replaces the client for later calls if the failure shows that it is broken.
    pub(super) fn report_failure(&self, handle: &ClientHandle, failure: &CallError) {
        if !failure.invalidates_client(self.url.is_cluster()) {
            return;
        }
        let mut current = self.current();
        if current.as_ref().is_some_and(|running| Arc::ptr_eq(running, &handle.0)) {
            *current = None;
        }
    }

    /// Retries a call while its errors are retryable and time is left.
    pub(super) async fn with_retries<T, Fut>(
        &self,
        call: impl Fn(Client) -> Fut + Send,
    ) -> Result<T, CallError>
    where
        T: Send,
        Fut: Future<Output = Result<T, CallError>> + Send,
    {
        let mut retry_timer = RetryTimer::new(self.timeouts);
        loop {
            let handle = self.client_handle().await?;
            let failure = match call(handle.client().clone()).await {
                Ok(value) => return Ok(value),
                Err(failure) => failure,
            };
            self.report_failure(&handle, &failure);
            if !failure.is_retryable() || !retry_timer.wait_for_retry().await {
                return Err(failure);
            }
        }
    }

    /// Finds out why no connection can be made, which the client's errors don't say. Returns `None` if a host accepts one, or
    /// if hosts are found by DNS.
    pub(super) async fn find_unreachable_host(&self) -> Option<HostUnreachable> {
        if self.url.settings.is_dns_discovery_enabled() {
            return None;
        }
        let mut unreachable = None;
        for endpoint in self.url.settings.hosts() {
            let (host, port) = (endpoint.host.clone(), endpoint.port);
            let address = (host.as_str(), u16::try_from(port).ok()?);
            let connected = timeout(self.timeouts.attempt, TcpStream::connect(address)).await;
            match connected.unwrap_or_else(|elapsed| Err(elapsed.into())) {
                Ok(_) => return None,
                Err(error) => unreachable = unreachable.or(Some(HostUnreachable { host, port, error })),
            }
        }
        unreachable
    }

    fn current(&self) -> MutexGuard<'_, Option<Arc<RunningClient>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CallTimeouts {
    /// Limits a client call to the duration of one attempt.
    pub(super) async fn within<T>(
        self,
        call: impl Future<Output = kurrentdb::Result<T>> + Send,
    ) -> Result<T, CallError> {
        match timeout(self.attempt, call).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(CallError::Timeout(self.attempt)),
        }
    }
}
