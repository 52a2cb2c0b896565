//! Subscriptions to `$all`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::mpsc;
use tonic::Status;
use uuid::Uuid;

use super::log::Record;
use super::node::{Node, lock};
use super::responses::{event_response, read_response};
use chat_kurrentdb_protocol::streams::ReadResp;
use chat_kurrentdb_protocol::streams::read_req::options::FilterOptions;
use chat_kurrentdb_protocol::streams::read_req::options::all_options::AllOption;
use chat_kurrentdb_protocol::streams::read_req::options::filter_options::{Filter as Criterion, Window};
use chat_kurrentdb_protocol::streams::read_resp::{CaughtUp, Checkpoint, Content, SubscriptionConfirmation};
use chat_kurrentdb_protocol::{AllStreamPosition, Timestamp};

/// The largest number of records in one read.
const PAGE_RECORDS: usize = 64;

/// The default window, in events. The interval of checkpoints is a multiple of the window.
const DEFAULT_CHECKPOINT_WINDOW: u32 = 32;

/// A filter by prefixes of stream names.
#[derive(Debug, Default)]
pub(super) struct StreamFilter {
    prefixes: Option<Vec<String>>,
    /// A checkpoint is due whenever the number of examined events is a multiple of this. It is left out if the event
    /// examined last is delivered, because that event carries the position. With 0 there are no checkpoints.
    checkpoint_interval: u64,
}

impl StreamFilter {
    pub(super) fn from_options(options: &FilterOptions) -> Result<Self, Status> {
        let unknown = || Status::unimplemented("filters other than by the prefixes of streams");
        let Some(Criterion::StreamIdentifier(criterion)) = &options.filter else { return Err(unknown()) };
        if !criterion.regex.is_empty() {
            return Err(unknown());
        }
        let window = match options.window {
            Some(Window::Max(window)) => window,
            Some(Window::Count(_)) | None => DEFAULT_CHECKPOINT_WINDOW,
        };
        let interval = u64::from(window) * u64::from(options.checkpoint_interval_multiplier);
        Ok(Self { prefixes: Some(criterion.prefix.clone()), checkpoint_interval: interval })
    }

    pub(super) fn matches(&self, record: &Record) -> bool {
        let Some(prefixes) = &self.prefixes else { return true };
        prefixes.iter().any(|prefix| record.stream.starts_with(prefix.as_bytes()))
    }
}

/// The client has disconnected.
struct ClientGone;

struct SubscriptionTask {
    node: Arc<Node>,
    filter: StreamFilter,
    sender: mpsc::Sender<Result<ReadResp, Status>>,
    examined: u64,
}

/// Sends the events after a position, and then new events as they are appended.
pub(super) async fn run(
    node: Arc<Node>,
    after: Option<AllOption>,
    filter: StreamFilter,
    sender: mpsc::Sender<Result<ReadResp, Status>>,
) {
    let log = &node.cluster.log;
    // A position and not an index, because a scavenge moves the records.
    let mut next = match after {
        Some(AllOption::Position(position)) => position.commit_position.saturating_add(1),
        Some(AllOption::End(_)) => log.next_position(),
        Some(AllOption::Start(_)) | None => 0,
    };
    let mut growth = log.watch_length();
    let mut end_signal = node.end_subscriptions_signal.subscribe();
    let mut task = SubscriptionTask { node: Arc::clone(&node), filter, sender: sender.clone(), examined: 0 };
    let mut live = false;
    let confirmation = SubscriptionConfirmation { subscription_id: Uuid::new_v4().to_string() };
    if task.send(Content::Confirmation(confirmation)).await.is_err() {
        return;
    }
    loop {
        growth.borrow_and_update();
        let records = log.slice(log.index_of(next), PAGE_RECORDS);
        if let Some(last) = records.last() {
            next = last.position + 1;
            tokio::select! {
                sent = task.send_records(&records) => if sent.is_err() { return },
                _ = end_signal.changed() => return send_dropped(&sender).await,
            }
            continue;
        }
        if !live {
            live = true;
            let wrong = *lock(&node.wrong_checkpoint);
            if let Some(checkpoint) = wrong
                && task.send(Content::Checkpoint(checkpoint)).await.is_err()
            {
                return;
            }
            // The position is that of the next event, not of a stored one.
            let position =
                Some(AllStreamPosition { commit_position: log.next_position(), prepare_position: 0 });
            let caught_up =
                CaughtUp { timestamp: Some(Timestamp::default()), stream_revision: None, position };
            if task.send(Content::CaughtUp(caught_up)).await.is_err() {
                return;
            }
        }
        tokio::select! {
            _ = growth.changed() => {}
            _ = end_signal.changed() => return send_dropped(&sender).await,
            () = sender.closed() => return,
        }
    }
}

async fn send_dropped(sender: &mpsc::Sender<Result<ReadResp, Status>>) {
    // The client may have disconnected.
    let _ = sender.send(Err(Status::unavailable("the subscription was dropped"))).await;
}

impl SubscriptionTask {
    async fn send_records(&mut self, records: &[Arc<Record>]) -> Result<(), ClientGone> {
        for record in records {
            self.examined += 1;
            if self.filter.matches(record) {
                self.deliver(record).await?;
            } else if self.filter.checkpoint_interval > 0
                && self.examined.is_multiple_of(self.filter.checkpoint_interval)
            {
                let (commit_position, prepare_position) = (record.position, record.position);
                let wrong = *lock(&self.node.wrong_checkpoint);
                let checkpoint = wrong.unwrap_or(Checkpoint { commit_position, prepare_position });
                self.send(Content::Checkpoint(checkpoint)).await?;
            }
        }
        Ok(())
    }

    async fn deliver(&self, record: &Record) -> Result<(), ClientGone> {
        self.sender.send(Ok(event_response(record))).await.map_err(|_| ClientGone)?;
        self.node.delivered_count.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    async fn send(&self, content: Content) -> Result<(), ClientGone> {
        self.sender.send(Ok(read_response(content))).await.map_err(|_| ClientGone)
    }
}
