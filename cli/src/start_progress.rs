//! The progress of a start: the engine that the process waits for, shown by `/readyz`.

use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use chat_ports::error_chain;
use chat_web::system_routes::{Part, Readiness, Status};

/// The progress of a start. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct StartProgress(Arc<Mutex<Step>>);

/// The current step.
#[derive(Clone, Default)]
struct Step {
    /// The engine with its location, as in "the event store kurrentdb://db:2113".
    engine: String,
    /// The error of the last attempt.
    error: Option<String>,
}

impl StartProgress {
    /// Begins a step: opening `engine`, or reading what the start needs from the opened engine.
    pub(crate) fn begin(&self, engine: &str) {
        *self.step() = Step { engine: engine.to_owned(), error: None };
    }

    /// Records that an attempt has failed and will be repeated.
    pub(crate) fn failed(&self, error: &(dyn Error + 'static)) {
        self.step().error = Some(error_chain(error));
    }

    /// Returns the error of the last attempt.
    pub(crate) fn last_error(&self) -> Option<String> {
        self.step().error.clone()
    }

    fn step(&self) -> MutexGuard<'_, Step> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Readiness for StartProgress {
    async fn parts(&self) -> Vec<Part> {
        let Step { engine, error } = self.step().clone();
        let reason = match error {
            Some(error) => format!("starting: waiting for {engine}: {error}"),
            None => format!("starting: opening {engine}"),
        };
        let name = "event_store".to_owned();
        vec![Part { name, status: Status::Down, reason: Some(reason), projection: None }]
    }
}
