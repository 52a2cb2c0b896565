//! Starting a projector.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use chat_domain::Position;
use chat_ports::event_store::EventStore;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::heartbeats::publish_heartbeats;
use crate::projection::ProjectionStore;
use crate::runner::{ProjectorTask, RecoveryPolicy};
use crate::status::{ProjectorStatus, StatusReporter};

/// Keeps one projection in step with the log.
#[derive(Clone, Copy, Debug)]
pub struct Projector;

/// A running projector.
#[derive(Debug)]
pub struct ProjectorHandle {
    /// What it is doing and how far it is. Cheap to clone; changes wake whoever waits for them.
    pub status: watch::Receiver<ProjectorStatus>,
    /// Ends after shutdown was asked for, with the stretch at hand finished.
    pub join: JoinHandle<()>,
    /// Whether it sets the gauges of the projection, which each projector does from its start. Where several generations
    /// are kept at a time, one of them should.
    pub publishes_gauges: Arc<AtomicBool>,
}

impl Projector {
    /// Starts a projector on the current runtime. It runs until `shutdown` is true or its sender is gone, and survives
    /// whatever happens to the log's and the projection's engines.
    pub fn spawn<T: ProjectionStore>(
        event_store: Arc<dyn EventStore>,
        target: T,
        shutdown: watch::Receiver<bool>,
    ) -> ProjectorHandle {
        Self::spawn_with(RecoveryPolicy::Rebuild, event_store, target, shutdown)
    }

    /// Like [`Projector::spawn`], with a say in what becomes of a projection that is of no use any more.
    pub fn spawn_with<T: ProjectionStore>(
        policy: RecoveryPolicy,
        event_store: Arc<dyn EventStore>,
        target: T,
        shutdown: watch::Receiver<bool>,
    ) -> ProjectorHandle {
        let report = StatusReporter::new(target.name());
        let status = report.subscribe();
        let (gauged, board) = (report.publishes_gauges(), target.heartbeats());
        let runner = ProjectorTask { policy, event_store, store: target, reporter: report, shutdown };
        let told = status.clone();
        let join = tokio::spawn(async move {
            // The notices end with the runner, whose status is gone then.
            let notices = async {
                if let Some(board) = board {
                    publish_heartbeats(board, told).await;
                }
            };
            tokio::join!(runner.run(), notices);
        });
        ProjectorHandle { status, join, publishes_gauges: gauged }
    }
}

impl ProjectorHandle {
    /// Waits until everything up to `position` is folded in; `false` where the projector stopped before.
    pub async fn wait_for_position(&self, position: Position) -> bool {
        self.status.clone().wait_for(|status| status.position >= position).await.is_ok()
    }
}
