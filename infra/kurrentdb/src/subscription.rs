//! The catch-up subscription to all streams.
//!
//! A task reads ahead into a bounded channel. While the channel is full the task stops reading from the connection,
//! whose flow-control window then closes, so that the server waits.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chat_domain::Position;
use chat_kurrentdb_protocol::streams::ReadResp;
use chat_kurrentdb_protocol::streams::read_req::options::{CountOption, ReadDirection, SubscriptionOptions};
use chat_kurrentdb_protocol::streams::read_resp::Content;
use chat_kurrentdb_protocol::streams::read_resp::read_event::RecordedEvent as StoredEvent;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::{Status, Streaming};

use super::call_error::{CallError, Damage};
use super::connection::{Connection, Executor, Node};
use super::event_encoding::{self, StreamNames};
use super::read;
use super::url::NodePreference;
use chat_ports::event_store::{EventBatch, EventStoreError, RecordedEvent, Subscription};

/// The capacity of the read-ahead channel in events.
const READ_AHEAD_EVENTS: usize = 128;

/// The time without a message after which the read-ahead task reads the head of the log. It does not rely on messages
/// alone, because servers report progress past events of other applications rarely, and older servers never.
const IDLE_TIMEOUT: Duration = Duration::from_secs(1);

/// The subscription fails after this number of consecutive checks that find an event which it has not delivered.
const MAX_CHECKS_WITH_UNDELIVERED_EVENT: u32 = 5;

/// A message from the read-ahead task.
enum ReaderMessage {
    Event(RecordedEvent),
    /// No further event of this system exists up to this position.
    Progress(Position),
    Failed(EventStoreError),
}

pub(super) struct KurrentDbSubscription {
    messages: mpsc::Receiver<ReaderMessage>,
    reader: JoinHandle<()>,
    /// The end of the last returned batch.
    up_to: Position,
    /// The reader's failure, which is returned after the events that came before it.
    error: Option<EventStoreError>,
}

impl KurrentDbSubscription {
    /// Subscribes on a connection of its own: unread events fill the connection's window and would block all other
    /// calls on it. The other reads of the subscription use `log`, the connection to the leader.
    pub(super) async fn start(log: Arc<Connection>, after: Position) -> Result<Self, CallError> {
        let connection = Connection::to_preferred_node(log.url.clone(), log.timeouts);
        let node = connection.node().await?;
        let executor = match log.url.node_preference {
            NodePreference::Leader => Executor::Leader,
            _ => Executor::AnyNode,
        };
        let subscription = CountOption::Subscription(SubscriptionOptions {});
        let options = read::read_options(
            read::all_from(after),
            ReadDirection::Forwards,
            subscription,
            read::stream_filter(),
        );
        let mut source = log.timeouts.within(node.read(options, executor)).await?;
        // The first message is the server's confirmation.
        let first = log.timeouts.within(source.message()).await?;
        let (sender, messages) = mpsc::channel(READ_AHEAD_EVENTS);
        let reader = SubscriptionReader {
            _node: node,
            log,
            sender,
            stream_names: StreamNames::default(),
            up_to: after,
            checks_with_undelivered_event: 0,
        };
        let reader = tokio::spawn(reader.run(source, first));
        Ok(Self { messages, reader, up_to: after, error: None })
    }
}

#[async_trait]
impl Subscription for KurrentDbSubscription {
    async fn next(&mut self, max: usize) -> Result<EventBatch, EventStoreError> {
        loop {
            if let Some(error) = self.error.take() {
                return Err(error);
            }
            let mut messages = Vec::new();
            if self.messages.recv_many(&mut messages, max.max(1)).await == 0 {
                return Err(EventStoreError::Unavailable("the subscription has ended".into()));
            }
            let before = self.up_to;
            let mut events = Vec::with_capacity(messages.len());
            for message in messages {
                match message {
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

/// The read-ahead task.
struct SubscriptionReader {
    /// Keeps the connection open.
    _node: Arc<Node>,
    log: Arc<Connection>,
    sender: mpsc::Sender<ReaderMessage>,
    stream_names: StreamNames,
    /// The position of the last delivered event or progress.
    up_to: Position,
    /// The number of consecutive checks that found an undelivered event.
    checks_with_undelivered_event: u32,
}

/// The reason why the task stops.
enum StopReason {
    /// The subscription was dropped.
    ReceiverDropped,
    Failed(CallError),
}

impl From<Damage> for StopReason {
    fn from(damage: Damage) -> Self {
        Self::Failed(damage.into())
    }
}

impl SubscriptionReader {
    async fn run(mut self, mut source: Streaming<ReadResp>, first: Option<ReadResp>) {
        let Err(StopReason::Failed(failure)) = self.follow(&mut source, first).await else { return };
        // The subscription may have been dropped.
        let _ = self.send(ReaderMessage::Failed(failure.into())).await;
    }

    async fn follow(
        &mut self,
        source: &mut Streaming<ReadResp>,
        first: Option<ReadResp>,
    ) -> Result<Infallible, StopReason> {
        let mut next = first;
        loop {
            let Some(message) = next else {
                let ended = Status::unavailable("the server has ended the subscription");
                return Err(StopReason::Failed(ended.into()));
            };
            self.handle_message(message).await?;
            next = loop {
                match timeout(IDLE_TIMEOUT, source.message()).await {
                    Ok(message) => break message.map_err(|status| StopReason::Failed(status.into()))?,
                    Err(_) => self.check_head().await?,
                }
            };
        }
    }

    async fn handle_message(&mut self, message: ReadResp) -> Result<(), StopReason> {
        self.checks_with_undelivered_event = 0;
        let (commit, prepare) = match message.content {
            Some(Content::Event(event)) => {
                let Some(stored) = event_encoding::original_event(event) else { return Ok(()) };
                if !self.log.record_if_system_event(&stored).await {
                    return self.deliver(stored).await;
                }
                (stored.commit_position, stored.prepare_position)
            }
            Some(Content::Checkpoint(reached)) => (reached.commit_position, reached.prepare_position),
            Some(Content::CaughtUp(caught_up)) => {
                let Some(reached) = caught_up.position else { return Ok(()) };
                (reached.commit_position, reached.prepare_position)
            }
            _ => return Ok(()),
        };
        // The commit and the prepare number of an event are equal. If those of a progress position differ, it is not
        // the position of an event, and the next event can still get that commit number. Some servers report −1 for a
        // log without a matching event.
        if commit == prepare && commit != u64::MAX {
            self.advance(Position::new(commit)).await?;
        }
        Ok(())
    }

    async fn deliver(&mut self, stored: StoredEvent) -> Result<(), StopReason> {
        let name = self.stream_names.shared_name(&stored)?;
        let event = event_encoding::from_wire(stored, name)?;
        if event.position <= self.up_to {
            return Ok(());
        }
        self.up_to = event.position;
        self.send(ReaderMessage::Event(event)).await
    }

    /// Reads the head of the log after an idle time. Advances the subscription to the head if every event of this
    /// system was delivered.
    async fn check_head(&mut self) -> Result<(), StopReason> {
        let Ok(head) = self.log.head().await else { return Ok(()) };
        if head <= self.up_to {
            return Ok(());
        }
        match self.log.read_all(self.up_to, 1).await {
            Ok(events) if events.is_empty() => self.advance(head).await,
            // A working subscription will deliver the event. A subscription to a node that has lost its cluster will
            // not.
            Ok(_) => {
                self.checks_with_undelivered_event += 1;
                if self.checks_with_undelivered_event < MAX_CHECKS_WITH_UNDELIVERED_EVENT {
                    Ok(())
                } else {
                    Err(StopReason::Failed(CallError::Timeout(
                        IDLE_TIMEOUT * MAX_CHECKS_WITH_UNDELIVERED_EVENT,
                    )))
                }
            }
            // The subscription itself detects an unreachable server.
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

    async fn send(&self, message: ReaderMessage) -> Result<(), StopReason> {
        self.sender.send(message).await.map_err(|_| StopReason::ReceiverDropped)
    }
}
