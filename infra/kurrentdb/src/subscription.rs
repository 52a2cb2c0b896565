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
use kurrentdb::{SubscribeToAllOptions, Subscription as RequestSource, SubscriptionEvent};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::call_error::{CallError, Damage};
use super::connection::{ClientLease, Connection};
use super::event_encoding::{self, StreamNames};
use super::read;
use chat_ports::event_store::{EventBatch, EventStoreError, RecordedEvent, Subscription};

/// Events that are read ahead.
const READ_AHEAD_EVENTS: usize = 128;

/// How long it is quiet before the subscription looks for itself how far the log has got. Servers tell of progress
/// past what is not this system's now and then only, and older ones not at all.
const IDLE_TIMEOUT: Duration = Duration::from_secs(1);

/// Looks in a row that find what the subscription has not brought, after which it is given up.
const MAX_MISSED_CHECKS: u32 = 5;

/// What the task found.
enum ReaderMessage {
    Event(RecordedEvent),
    /// There is nothing of this system's up to here that was not found before.
    Progress(Position),
    Failed(EventStoreError),
}

pub(super) struct KurrentDbSubscription {
    messages: mpsc::Receiver<ReaderMessage>,
    reader: JoinHandle<()>,
    up_to: Position,
    error: Option<EventStoreError>,
}

impl KurrentDbSubscription {
    /// Subscribes on a connection of its own: what it has not read yet fills the connection's window, and would hold up
    /// every other call on it. `log` answers where the log ends.
    pub(super) async fn start(log: Arc<Connection>, after: Position) -> Result<Self, CallError> {
        let connection = Connection::new(log.url.clone(), log.patience);
        let lease = connection.lease().await?;
        let options = SubscribeToAllOptions::default()
            .filter(read::stream_filter())
            .position(read::to_stream_position(after));
        let options = connection.authenticated(options, SubscribeToAllOptions::authenticated);
        let mut source = lease.client().subscribe_to_all(&options).await;
        // The server confirms first.
        let first = connection.patience.within(source.next_subscription_event()).await?;
        let (sender, found) = mpsc::channel(READ_AHEAD_EVENTS);
        let reader = SubscriptionReader {
            _lease: lease,
            log,
            sender,
            stream_names: StreamNames::default(),
            up_to: after,
            missed_checks: 0,
        };
        let reader = tokio::spawn(reader.run(source, first));
        Ok(Self { messages: found, reader, up_to: after, error: None })
    }
}

#[async_trait]
impl Subscription for KurrentDbSubscription {
    async fn next(&mut self, max: usize) -> Result<EventBatch, EventStoreError> {
        loop {
            if let Some(failed) = self.error.take() {
                return Err(failed);
            }
            let mut found = Vec::new();
            if self.messages.recv_many(&mut found, max.max(1)).await == 0 {
                return Err(EventStoreError::Unavailable("the subscription has ended".into()));
            }
            let before = self.up_to;
            let mut events = Vec::with_capacity(found.len());
            for found in found {
                match found {
                    ReaderMessage::Event(event) => {
                        self.up_to = event.position;
                        events.push(event);
                    }
                    ReaderMessage::Progress(position) => self.up_to = self.up_to.max(position),
                    ReaderMessage::Failed(error) => self.error = Some(error),
                }
            }
            if self.up_to > before {
                return Ok(EventBatch { events, up_to: self.up_to });
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
struct SubscriptionReader {
    /// Keeps the client running.
    _lease: ClientLease,
    log: Arc<Connection>,
    sender: mpsc::Sender<ReaderMessage>,
    stream_names: StreamNames,
    /// How far it has got.
    up_to: Position,
    /// How often in a row something was found in the log that the subscription had not brought.
    missed_checks: u32,
}

/// Why the task ends.
enum StopReason {
    /// Nobody listens any more.
    ReceiverDropped,
    Failed(CallError),
}

impl From<Damage> for StopReason {
    fn from(damage: Damage) -> Self {
        Self::Failed(damage.into())
    }
}

impl SubscriptionReader {
    async fn run(mut self, mut source: RequestSource, first: SubscriptionEvent) {
        let Err(StopReason::Failed(failure)) = self.follow(&mut source, first).await else { return };
        // Whoever subscribed may have gone.
        let _ = self.send(ReaderMessage::Failed(failure.into())).await;
    }

    async fn follow(
        &mut self,
        source: &mut RequestSource,
        first: SubscriptionEvent,
    ) -> Result<Infallible, StopReason> {
        self.handle_event(first).await?;
        loop {
            // The client subscribes anew where this future is dropped, so it is not.
            let mut next = pin!(source.next_subscription_event());
            let event = loop {
                match timeout(IDLE_TIMEOUT, next.as_mut()).await {
                    Ok(event) => break event.map_err(|error| StopReason::Failed(error.into()))?,
                    Err(_) => self.check_head().await?,
                }
            };
            self.handle_event(event).await?;
        }
    }

    async fn handle_event(&mut self, event: SubscriptionEvent) -> Result<(), StopReason> {
        self.missed_checks = 0;
        let progress = match event {
            SubscriptionEvent::EventAppeared(event) => {
                let Some(stored) = event_encoding::original_event(event) else { return Ok(()) };
                let name = self.stream_names.of(&stored);
                let event = event_encoding::from_wire(stored, name)?;
                if event.position <= self.up_to {
                    return Ok(());
                }
                self.up_to = event.position;
                return self.send(ReaderMessage::Event(event)).await;
            }
            SubscriptionEvent::Checkpoint(position) => Some(position),
            SubscriptionEvent::CaughtUp(wait_until_caught_up) => {
                wait_until_caught_up.and_then(|wait_until_caught_up| wait_until_caught_up.position)
            }
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
    async fn check_head(&mut self) -> Result<(), StopReason> {
        let Ok(head) = self.log.head().await else { return Ok(()) };
        if head <= self.up_to {
            return Ok(());
        }
        match self.log.read_all(self.up_to, 1).await {
            Ok(events) if events.is_empty() => self.advance(head).await,
            // The subscription will bring it, if it is alive: one to a node that is cut off from the others is not.
            Ok(_) => {
                self.missed_checks += 1;
                if self.missed_checks < MAX_MISSED_CHECKS {
                    Ok(())
                } else {
                    Err(StopReason::Failed(CallError::Timeout(IDLE_TIMEOUT * MAX_MISSED_CHECKS)))
                }
            }
            // A log that does not answer is noticed by the subscription too.
            Err(_) => Ok(()),
        }
    }

    async fn advance(&mut self, to: Position) -> Result<(), StopReason> {
        if to <= self.up_to {
            return Ok(());
        }
        self.up_to = to;
        self.send(ReaderMessage::Progress(to)).await
    }

    async fn send(&self, found: ReaderMessage) -> Result<(), StopReason> {
        self.sender.send(found).await.map_err(|_| StopReason::ReceiverDropped)
    }
}
