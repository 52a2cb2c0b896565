//! Samples of the projections' lag, taken while the process runs.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chat_domain::projection::ProjectionName;
use chat_operations::projections::Projections;
use chat_operations::projections::list::list;
use chat_projector::generations::GenerationState;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

/// The time between two samples.
const INTERVAL: Duration = Duration::from_secs(15);

/// The samples that are kept: those of an hour.
const MAX_SAMPLES: usize = 240;

/// The lag of the live generations, in the order of [`ProjectionName::ALL`]. `None` where it could not be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) lag_ms: [Option<u64>; ProjectionName::ALL.len()],
}

/// The newest samples, oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(Arc<Mutex<VecDeque<Sample>>>);

impl Samples {
    /// All samples, oldest first.
    pub(crate) fn all(&self) -> Vec<Sample> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    /// Takes a sample every 15 seconds until the process stops.
    pub(crate) async fn run(self, projections: Arc<Projections>, mut shutdown: watch::Receiver<bool>) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                // An error means that the sender was dropped, so the process is ending.
                _ = shutdown.wait_for(|stopping| *stopping) => return,
                _ = ticks.tick() => {}
            }
            let sample = take(&projections).await;
            let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if samples.len() == MAX_SAMPLES {
                samples.pop_front();
            }
            samples.push_back(sample);
        }
    }
}

async fn take(projections: &Projections) -> Sample {
    let generations = list(projections).await.unwrap_or_default();
    let lag_ms = ProjectionName::ALL.map(|name| {
        let live = generations.iter().find(|generation| {
            generation.projection == name && generation.generation_state == GenerationState::Live
        });
        live.and_then(|generation| generation.lag_ms)
    });
    Sample { lag_ms }
}
