//! The gate of the commands: closed while the log has lost events, is another log than before, or was removed or
//! replaced.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chat_ports::event_store::{AppendGate, EventStore, GatedEventStore};
use chat_web::error_code::ErrorCode;
use chat_web::problem::Problem;

use super::evidence::LogProblem;

/// The interval at which the identity of the open log is checked.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// The gate. Clones share its state.
#[derive(Clone)]
pub(crate) struct LogGate {
    problem: Arc<Mutex<Option<LogProblem>>>,
    /// Closed while there is a problem, with its sentence as the reason.
    appends: AppendGate,
}

impl LogGate {
    /// A gate that is closed from the start if there is a problem.
    pub(crate) fn new(problem: Option<LogProblem>) -> Self {
        let gate = Self { problem: Arc::default(), appends: AppendGate::default() };
        gate.replace(problem);
        gate
    }

    /// Why the gate is closed; `None` if it is open.
    pub(crate) fn problem(&self) -> Option<LogProblem> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The response to commands while the gate is closed.
    pub(crate) fn refusal(&self) -> Option<Problem> {
        let detail = "the event log has lost events or was replaced; an operator has to decide how to go on";
        self.problem()
            .map(|problem| Problem::new(ErrorCode::EventStoreUnavailable, detail).caused_by(problem))
    }

    /// Returns the log for the actions of operators. It takes no appends while the gate is closed.
    pub(crate) fn guard(&self, event_store: Arc<dyn EventStore>) -> Arc<dyn EventStore> {
        Arc::new(GatedEventStore::new(event_store, self.appends.clone()))
    }

    /// Checks repeatedly that the log that was opened is still in place, and closes the gate while it is not. Never
    /// returns.
    pub(crate) async fn watch(self, event_store: Arc<dyn EventStore>) {
        loop {
            tokio::time::sleep(CHECK_INTERVAL).await;
            let replaced = event_store.verify_identity().await.err();
            self.set_problem(replaced.map(|replaced| LogProblem::of_replaced_log(replaced.0)));
        }
    }

    /// Closes the gate for a problem, or opens it if there is none. Logs a change, except one of positions alone.
    pub(super) fn set_problem(&self, problem: Option<LogProblem>) {
        let earlier = self.replace(problem.clone());
        match (earlier, problem) {
            (None, None) => {}
            (Some(earlier), Some(problem)) if earlier.is_same_apart_from_positions(&problem) => {}
            (_, Some(problem)) => tracing::error!("{problem}; no commands are taken"),
            (Some(_), None) => tracing::info!("the event log is in place again; commands are taken"),
        }
    }

    /// Replaces the problem. Returns the earlier one.
    fn replace(&self, problem: Option<LogProblem>) -> Option<LogProblem> {
        match &problem {
            Some(problem) => self.appends.close(problem.to_string()),
            None => self.appends.open(),
        }
        std::mem::replace(&mut *self.problem.lock().unwrap_or_else(PoisonError::into_inner), problem)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use chat_domain::Position;
    use chat_ports::event_store::LogLineage;

    use super::super::evidence::tests::{evidence, log};
    use super::*;

    /// Collects the lines of a log.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn problem(witnesses: &[(&str, u128, u64)], head: u64) -> Option<LogProblem> {
        evidence(witnesses).problem(&LogLineage::new(log(1), Vec::new()), Position::new(head), true)
    }

    #[test]
    fn positions_that_move_are_shown_but_not_logged_again() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
        let gate = LogGate::new(problem(&[("the read model", 1, 401)], 14));
        tracing::subscriber::with_default(subscriber, || {
            let appends = &gate.appends;
            for position in 402..410 {
                gate.set_problem(problem(&[("the read model", 1, position)], 14));
                let shown = gate.problem().unwrap().to_string();
                assert!(shown.contains(&format!("up to position {position}:")), "{shown}");
                assert_eq!(appends.closed_because(), Some(shown));
            }
            gate.set_problem(problem(&[("the read model", 2, 410)], 14));
            gate.set_problem(problem(&[("the read model", 2, 411)], 14));
            gate.set_problem(problem(&[("the anchor", 2, 411)], 14));
            gate.set_problem(None);
            assert_eq!(appends.closed_because(), None);
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.matches("no commands are taken").count(), 2, "{text}");
        assert_eq!(text.lines().count(), 3, "{text}");
    }
}
