//! Subscriptions to `$all`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::mpsc;
use tonic::Status;
use uuid::Uuid;

use super::Node;
use super::log::Record;
use super::protocol::event_store::client::streams::ReadResp;
use super::protocol::event_store::client::streams::read_req::options::FilterOptions;
use super::protocol::event_store::client::streams::read_req::options::all_options::AllOption;
use super::protocol::event_store::client::streams::read_req::options::filter_options::{
    Filter as Criterion, Window,
};
use super::protocol::event_store::client::streams::read_resp::{
    CaughtUp, Checkpoint, Content, SubscriptionConfirmation,
};
use super::protocol::event_store::client::{AllStreamPosition, Timestamp};
use super::service::{event, response};

/// Records read at once.
const PAGE: usize = 64;

/// Events looked at between two checkpoints, where the client does not say.
const WINDOW: u32 = 32;

/// Which events pass.
#[derive(Debug, Default)]
pub(super) struct Filter {
    prefixes: Option<Vec<String>>,
    /// Events looked at between two checkpoints.
    interval: u64,
}

impl Filter {
    pub(super) fn of(options: &FilterOptions) -> Result<Self, Status> {
        let unknown = || Status::unimplemented("filters other than by the prefixes of streams");
        let Some(Criterion::StreamIdentifier(criterion)) = &options.filter else { return Err(unknown()) };
        if !criterion.regex.is_empty() {
            return Err(unknown());
        }
        let window = match options.window {
            Some(Window::Max(window)) => window,
            Some(Window::Count(_)) | None => WINDOW,
        };
        let interval = u64::from(window) * u64::from(options.checkpoint_interval_multiplier);
        Ok(Self { prefixes: Some(criterion.prefix.clone()), interval })
    }

    pub(super) fn passes(&self, record: &Record) -> bool {
        let Some(prefixes) = &self.prefixes else { return true };
        prefixes.iter().any(|prefix| record.stream.starts_with(prefix.as_bytes()))
    }
}

/// The client went away.
struct Gone;

struct Follower {
    node: Arc<Node>,
    filter: Filter,
    sender: mpsc::Sender<Result<ReadResp, Status>>,
    looked_at: u64,
}

/// Gives what comes after a position, and goes on giving.
pub(super) async fn follow(
    node: Arc<Node>,
    after: Option<AllOption>,
    filter: Filter,
    sender: mpsc::Sender<Result<ReadResp, Status>>,
) {
    let log = &node.cluster.log;
    let mut place = match after {
        Some(AllOption::Position(at)) => log.place(at.commit_position.saturating_add(1)),
        Some(AllOption::End(_)) => log.len(),
        Some(AllOption::Start(_)) | None => 0,
    };
    let mut growth = log.growth();
    let mut end = node.subscriptions_end.subscribe();
    let mut follower = Follower { node: Arc::clone(&node), filter, sender: sender.clone(), looked_at: 0 };
    let mut live = false;
    let confirmation = SubscriptionConfirmation { subscription_id: Uuid::new_v4().to_string() };
    if follower.send(Content::Confirmation(confirmation)).await.is_err() {
        return;
    }
    loop {
        growth.borrow_and_update();
        let records = log.slice(place, PAGE);
        place += records.len();
        if !records.is_empty() {
            tokio::select! {
                given = follower.give(&records) => if given.is_err() { return },
                _ = end.changed() => return dropped(&sender).await,
            }
            continue;
        }
        if !live {
            live = true;
            // Before whatever comes next: not the place of an event.
            let position = Some(AllStreamPosition { commit_position: log.end(), prepare_position: 0 });
            let caught_up =
                CaughtUp { timestamp: Some(Timestamp::default()), stream_revision: None, position };
            if follower.send(Content::CaughtUp(caught_up)).await.is_err() {
                return;
            }
        }
        tokio::select! {
            _ = growth.changed() => {}
            _ = end.changed() => return dropped(&sender).await,
            () = sender.closed() => return,
        }
    }
}

async fn dropped(sender: &mpsc::Sender<Result<ReadResp, Status>>) {
    // A client that went away does not hear it.
    let _ = sender.send(Err(Status::unavailable("the subscription was dropped"))).await;
}

impl Follower {
    async fn give(&mut self, records: &[Arc<Record>]) -> Result<(), Gone> {
        for record in records {
            self.looked_at += 1;
            if self.filter.passes(record) {
                self.deliver(record).await?;
            } else if self.filter.interval > 0 && self.looked_at.is_multiple_of(self.filter.interval) {
                let (commit_position, prepare_position) = (record.position, record.position);
                self.send(Content::Checkpoint(Checkpoint { commit_position, prepare_position })).await?;
            }
        }
        Ok(())
    }

    async fn deliver(&self, record: &Record) -> Result<(), Gone> {
        self.sender.send(Ok(event(record))).await.map_err(|_| Gone)?;
        self.node.delivered.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    async fn send(&self, content: Content) -> Result<(), Gone> {
        self.sender.send(Ok(response(content))).await.map_err(|_| Gone)
    }
}
