//! A running projector, with waits for its position, state and errors.

use std::sync::Arc;

use chat_domain::Position;
use chat_ports::event_store::EventStore;
use chat_projector::projection::ProjectionStore;
use chat_projector::{ProjectorHandle, ProjectorState, ProjectorStatus, RecoveryPolicy, spawn_projector};
use tokio::sync::watch;

use crate::deadline::within;

/// A running projector. It stops when this value is dropped.
pub struct RunningProjector {
    pub handle: ProjectorHandle,
    stop: watch::Sender<bool>,
}

impl RunningProjector {
    /// Starts a projector that rebuilds damaged projections.
    pub fn start(store: impl ProjectionStore, log: &Arc<dyn EventStore>) -> Self {
        Self::start_with_policy(store, log, RecoveryPolicy::Rebuild)
    }

    pub fn start_with_policy(
        store: impl ProjectionStore,
        log: &Arc<dyn EventStore>,
        policy: RecoveryPolicy,
    ) -> Self {
        let (stop, stopped) = watch::channel(false);
        let handle = spawn_projector(Arc::new(store), Arc::clone(log), policy, stopped);
        Self { handle, stop }
    }

    pub fn status(&self) -> ProjectorStatus {
        self.handle.status.borrow().clone()
    }

    pub async fn wait_for_position(&self, position: Position) {
        let is_reached = within("reaching the position", self.handle.wait_for_position(position)).await;
        assert!(is_reached, "the projector ended before it reached position {position}");
    }

    pub async fn wait_for_state(&self, state: ProjectorState) -> ProjectorStatus {
        let mut status = self.handle.status.clone();
        within(state.as_str(), status.wait_for(|status| status.state == state)).await.unwrap().clone()
    }

    pub async fn wait_for_error(&self) {
        let mut status = self.handle.status.clone();
        within("a failure", status.wait_for(|status| status.last_error.is_some())).await.unwrap();
    }

    /// Waits until the projector waits for an operator's decision, with `reason` in the text of its error.
    pub async fn wait_until_decision_is_needed(&self, reason: &str) {
        let mut status = self.handle.status.clone();
        let waiting = status.wait_for(|status| {
            status.state == ProjectorState::Waiting
                && status.last_error.as_ref().is_some_and(|error| error.contains(reason))
        });
        within("waiting for a decision", waiting).await.unwrap();
    }

    pub async fn stop(self) {
        self.stop.send_replace(true);
        within("stopping", self.handle.join).await.unwrap();
    }
}
