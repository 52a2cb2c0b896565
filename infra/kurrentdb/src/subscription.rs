//! Following the log: what is stored, then what comes.
//!
//! A task reads ahead, as far as a bounded channel goes. While the channel is full it does not read from the
//! connection, whose window closes, and the server waits.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chat_domain::Position;
use kurrentdb::{SubscribeToAllOptions, Subscription as Source, SubscriptionEvent};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::connection::{Connection, Lease};
use super::failure::{Damage, Failure};
use super::read;
use super::record::{self, Names};
use chat_ports::event_store::{Batch, EventStoreError, RecordedEvent, Subscription};

/// Events that are read ahead.
const READ_AHEAD: usize = 128;

/// How long it is quiet before the subscription looks for itself how far the log has got. Servers tell of progress
/// past what is not this system's now and then only, and older ones not at all.
const QUIET: Duration = Duration::from_secs(1);

/// Looks in a row that find what the subscription has not brought, after which it is given up.
const LOOKS: u32 = 5;

/// What the task found.
enum Found {
    Event(RecordedEvent),
    /// There is nothing of this system's up to here that was not found before.
    UpTo(Position),
    Failed(EventStoreError),
}

pub(super) struct KurrentDbSubscription {
    found: mpsc::Receiver<Found>,
    reader: JoinHandle<()>,
    up_to: Position,
    failed: Option<EventStoreError>,
}

impl KurrentDbSubscription {
    /// Subscribes on a connection of its own: what it has not read yet fills the connection's window, and would hold up
    /// every other call on it. `log` answers where the log ends.
    pub(super) async fn start(log: Arc<Connection>, after: Position) -> Result<Self, Failure> {
        let connection = Connection::new(log.url.clone(), log.patience);
        let lease = connection.lease().await?;
        let options =
            SubscribeToAllOptions::default().filter(read::own_streams()).position(read::from(after));
        let options = connection.authenticated(options, SubscribeToAllOptions::authenticated);
        let mut source = lease.client().subscribe_to_all(&options).await;
        // The server confirms first.
        let first = connection.patience.within(source.next_subscription_event()).await?;
        let (sender, found) = mpsc::channel(READ_AHEAD);
        let reader = Reader { _lease: lease, log, sender, names: Names::default(), up_to: after, overdue: 0 };
        let reader = tokio::spawn(reader.run(source, first));
        Ok(Self { found, reader, up_to: after, failed: None })
    }
}

#[async_trait]
impl Subscription for KurrentDbSubscription {
    async fn next(&mut self, max: usize) -> Result<Batch, EventStoreError> {
        loop {
            if let Some(failed) = self.failed.take() {
                return Err(failed);
            }
            let mut found = Vec::new();
            if self.found.recv_many(&mut found, max.max(1)).await == 0 {
                return Err(EventStoreError::Unavailable("the subscription has ended".into()));
            }
            let before = self.up_to;
            let mut events = Vec::with_capacity(found.len());
            for found in found {
                match found {
                    Found::Event(event) => {
                        self.up_to = event.position;
                        events.push(event);
                    }
                    Found::UpTo(position) => self.up_to = self.up_to.max(position),
                    Found::Failed(error) => self.failed = Some(error),
                }
            }
            if self.up_to > before {
                return Ok(Batch { events, up_to: self.up_to });
            }
        }
    }
}

impl Drop for KurrentDbSubscription {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// The task that reads ahead.
struct Reader {
    /// Keeps the client running.
    _lease: Lease,
    log: Arc<Connection>,
    sender: mpsc::Sender<Found>,
    names: Names,
    /// How far it has got.
    up_to: Position,
    /// How often in a row something was found in the log that the subscription had not brought.
    overdue: u32,
}

/// Why the task ends.
enum Ended {
    /// Nobody listens any more.
    Unheard,
    Failed(Failure),
}

impl From<Damage> for Ended {
    fn from(damage: Damage) -> Self {
        Self::Failed(damage.into())
    }
}

impl Reader {
    async fn run(mut self, mut source: Source, first: SubscriptionEvent) {
        let Err(Ended::Failed(failure)) = self.follow(&mut source, first).await else { return };
        // Whoever subscribed may have gone.
        let _ = self.tell(Found::Failed(failure.into())).await;
    }

    async fn follow(&mut self, source: &mut Source, first: SubscriptionEvent) -> Result<Infallible, Ended> {
        self.take(first).await?;
        loop {
            // The client subscribes anew where this future is dropped, so it is not.
            let mut next = pin!(source.next_subscription_event());
            let event = loop {
                match timeout(QUIET, next.as_mut()).await {
                    Ok(event) => break event.map_err(|error| Ended::Failed(error.into()))?,
                    Err(_) => self.look().await?,
                }
            };
            self.take(event).await?;
        }
    }

    async fn take(&mut self, event: SubscriptionEvent) -> Result<(), Ended> {
        self.overdue = 0;
        let progress = match event {
            SubscriptionEvent::EventAppeared(event) => {
                let Some(stored) = record::itself(event) else { return Ok(()) };
                let name = self.names.of(&stored);
                let event = record::from_wire(stored, name)?;
                if event.position <= self.up_to {
                    return Ok(());
                }
                self.up_to = event.position;
                return self.tell(Found::Event(event)).await;
            }
            SubscriptionEvent::Checkpoint(position) => Some(position),
            SubscriptionEvent::CaughtUp(caught_up) => caught_up.and_then(|caught_up| caught_up.position),
            _ => None,
        };
        // A position of two numbers is no event's. It lies before the event that comes next.
        match progress {
            Some(at) if at.commit == at.prepare => self.advance(Position::new(at.commit)).await,
            _ => Ok(()),
        }
    }

    /// Looks by itself how far the log has got, where nothing comes: if the log ends further on, and there is nothing
    /// of this system's up to there, that much is done.
    async fn look(&mut self) -> Result<(), Ended> {
        let Ok(head) = self.log.head().await else { return Ok(()) };
        if head <= self.up_to {
            return Ok(());
        }
        match self.log.read_all(self.up_to, 1).await {
            Ok(events) if events.is_empty() => self.advance(head).await,
            // The subscription will bring it, if it is alive: one to a node that is cut off from the others is not.
            Ok(_) => {
                self.overdue += 1;
                if self.overdue < LOOKS {
                    Ok(())
                } else {
                    Err(Ended::Failed(Failure::Deadline(QUIET * LOOKS)))
                }
            }
            // A log that does not answer is noticed by the subscription too.
            Err(_) => Ok(()),
        }
    }

    async fn advance(&mut self, to: Position) -> Result<(), Ended> {
        if to <= self.up_to {
            return Ok(());
        }
        self.up_to = to;
        self.tell(Found::UpTo(to)).await
    }

    async fn tell(&self, found: Found) -> Result<(), Ended> {
        self.sender.send(found).await.map_err(|_| Ended::Unheard)
    }
}
