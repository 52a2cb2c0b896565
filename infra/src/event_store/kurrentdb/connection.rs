//! The client, and what it does not do by itself.
//!
//! The official client holds on to the node that it has chosen and, where connecting fails, ends for good. Calls have
//! no deadline of their own. So each call here has one, is repeated while that may help and patience lasts, and a
//! client that is of no more use is replaced.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kurrentdb::Client;
use tokio::time::{Instant, sleep, timeout};

use super::failure::Failure;
use super::url::KurrentDbUrl;

/// How long to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For a single attempt: an append, or the next event of a read.
    pub attempt: Duration,
    /// For all attempts together; none begins after this.
    pub total: Duration,
}

impl Default for Patience {
    /// A server gives up on an append by itself after 2 s (`PrepareTimeoutMs`, `CommitTimeoutMs`), and should come
    /// to say so.
    fn default() -> Self {
        Self { attempt: Duration::from_millis(2_500), total: Duration::from_secs(4) }
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Repeated attempts, further and further apart.
pub(super) struct Attempts {
    until: Instant,
    pause: Duration,
}

impl Attempts {
    pub(super) fn new(patience: Patience) -> Self {
        Self { until: Instant::now() + patience.total, pause: FIRST_PAUSE }
    }

    /// Waits before the next attempt; false where there is to be none.
    pub(super) async fn again(&mut self) -> bool {
        if Instant::now() + self.pause >= self.until {
            return false;
        }
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        true
    }
}

/// A way to the server: one HTTP/2 connection, opened when it is first needed.
pub(super) struct Connection {
    url: KurrentDbUrl,
    pub(super) patience: Patience,
    current: Mutex<Current>,
}

#[derive(Default)]
struct Current {
    client: Option<Client>,
    generation: u64,
}

/// A client for a call.
pub(super) struct Lease {
    pub(super) client: Client,
    generation: u64,
}

impl Connection {
    pub(super) fn new(url: KurrentDbUrl, patience: Patience) -> Self {
        Self { url, patience, current: Mutex::default() }
    }

    pub(super) fn url(&self) -> &KurrentDbUrl {
        &self.url
    }

    /// The client of the moment.
    pub(super) async fn lease(&self) -> Result<Lease, Failure> {
        if let Some(lease) = self.current().lease() {
            return Ok(lease);
        }
        let settings = self.url.settings.clone();
        let runtime = tokio::runtime::Handle::current();
        // Reads the system's certificates from disk.
        let create = move || Client::with_runtime_handle(runtime, settings);
        let client = match tokio::task::spawn_blocking(create).await {
            Ok(created) => created.map_err(|error| Failure::Client(error.into()))?,
            Err(panicked) => return Err(Failure::Client(panicked.into())),
        };
        let mut current = self.current();
        if let Some(lease) = current.lease() {
            // Somebody else was faster.
            return Ok(lease);
        }
        current.generation += 1;
        let generation = current.generation;
        current.client = Some(client.clone());
        Ok(Lease { client, generation })
    }

    /// Takes note of a failure: the next call gets another client where this one is of no more use.
    pub(super) fn note(&self, lease: &Lease, failure: &Failure) {
        let mut current = self.current();
        if current.generation == lease.generation && failure.ends_client(self.url.names_a_cluster()) {
            current.client = None;
        }
    }

    /// Repeats a call while that may help and patience lasts.
    pub(super) async fn patiently<T, Fut>(&self, call: impl Fn(Client) -> Fut + Send) -> Result<T, Failure>
    where
        T: Send,
        Fut: Future<Output = Result<T, Failure>> + Send,
    {
        let mut attempts = Attempts::new(self.patience);
        loop {
            let lease = self.lease().await?;
            let failure = match call(lease.client.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            self.note(&lease, &failure);
            if !failure.retryable() || !attempts.again().await {
                return Err(failure);
            }
        }
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Current {
    fn lease(&self) -> Option<Lease> {
        let client = self.client.clone()?;
        Some(Lease { client, generation: self.generation })
    }
}

impl Patience {
    /// Waits for an answer, for as long as an attempt may take.
    pub(super) async fn within<T>(
        self,
        answer: impl Future<Output = kurrentdb::Result<T>> + Send,
    ) -> Result<T, Failure> {
        match timeout(self.attempt, answer).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(Failure::Deadline(self.attempt)),
        }
    }
}

/// Connections that are not in use.
///
/// Each subscription has a connection of its own: what it has not read yet fills the connection's window, and would
/// hold up every other call on it. The client keeps a task for ever, so connections are used again.
#[derive(Default)]
pub(super) struct Spare(Mutex<Vec<Arc<Connection>>>);

impl Spare {
    /// A connection until it is dropped.
    pub(super) fn take(self: &Arc<Self>, url: &KurrentDbUrl, patience: Patience) -> Taken {
        let idle = self.idle().pop();
        let connection = idle.unwrap_or_else(|| Arc::new(Connection::new(url.clone(), patience)));
        Taken { connection, home: Arc::clone(self) }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Arc<Connection>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that goes back when it is dropped.
pub(super) struct Taken {
    pub(super) connection: Arc<Connection>,
    home: Arc<Spare>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.home.idle().push(Arc::clone(&self.connection));
    }
}
