//! The gate of the commands: closed while the log has lost events, is another log, or was removed or replaced.

use std::sync::Arc;
use std::time::Duration;

use chat_ports::event_store::{AppendGate, EventStore, GatedEventStore};
use chat_web::error_code::ErrorCode;
use chat_web::problem::Problem;
use tokio::sync::watch;

use super::evidence::LogProblem;

/// The interval at which the identity of the open log is checked.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// The gate. Clones share its state.
#[derive(Clone)]
pub(crate) struct LogGate(watch::Sender<Option<LogProblem>>);

impl LogGate {
    /// A gate that is closed from the start if there is a problem.
    pub(crate) fn new(problem: Option<LogProblem>) -> Self {
        Self(watch::Sender::new(problem))
    }

    /// Why the gate is closed; `None` if it is open.
    pub(crate) fn problem(&self) -> Option<LogProblem> {
        self.0.borrow().clone()
    }

    /// The response to commands while the gate is closed.
    pub(crate) fn refusal(&self) -> Option<Problem> {
        let detail = "the event log has lost events or was replaced; an operator has to decide how to go on";
        self.problem()
            .map(|problem| Problem::new(ErrorCode::EventStoreUnavailable, detail).caused_by(problem))
    }

    /// Returns the log for the actions of operators. If the gate is closed now, the returned log never takes appends.
    pub(crate) fn guard(&self, event_store: Arc<dyn EventStore>) -> Arc<dyn EventStore> {
        let Some(problem) = self.problem() else { return event_store };
        let closed = AppendGate::default();
        closed.close(problem.to_string());
        Arc::new(GatedEventStore::new(event_store, closed))
    }

    /// Checks repeatedly that the log that was opened is still in place, and closes the gate while it is not. Never
    /// returns.
    pub(crate) async fn watch(self, event_store: Arc<dyn EventStore>) {
        loop {
            tokio::time::sleep(CHECK_INTERVAL).await;
            let replaced = event_store.verify_identity().await.err();
            self.set_problem(replaced.map(|replaced| LogProblem::new(replaced.0)));
        }
    }

    /// Closes the gate for a problem, or opens it if there is none. Logs a change.
    pub(super) fn set_problem(&self, problem: Option<LogProblem>) {
        if problem == *self.0.borrow() {
            return;
        }
        if let Some(problem) = &problem {
            tracing::error!("{problem}; no commands are taken");
        } else {
            tracing::info!("the event log is in place again; commands are taken");
        }
        self.0.send_replace(problem);
    }
}
