//! The progress of a running job.

use std::convert::Infallible;

use chat_domain::Position;
use chat_domain::projection::{Generation, ProjectionName};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::projections::Progress;

/// The progress of a running job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct JobProgress {
    /// The phase: `folding`, `catching up`, `comparing`, `recording`, `handing over` or `reading events`. It is
    /// `running` if the process that answers is not the one that runs the job.
    pub phase: String,
    /// The generations that the job works on.
    pub generations: Vec<GenerationProgress>,
    /// The number of events that were read so far, or folded into the generation that is furthest behind; `None` if it
    /// is not known.
    pub done: Option<u64>,
    /// The number of all events to read or fold; `None` if it is not known.
    pub total: Option<u64>,
    /// The events per second since this process began to run the job.
    pub events_per_second: Option<f64>,
    /// The estimated time left, in seconds.
    pub seconds_left: Option<u64>,
}

/// The progress of one generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct GenerationProgress {
    /// The projection.
    #[schema(value_type = String)]
    pub projection: ProjectionName,
    /// The number of the generation.
    #[schema(value_type = u32)]
    pub generation: Generation,
    /// The position up to which it is folded.
    #[schema(value_type = u64)]
    pub position: Position,
    /// The head of the log, or the position at which the build ends.
    #[schema(value_type = u64)]
    pub head: Position,
}

/// Publishes the progress of a running action.
pub(super) struct ProgressReporter {
    sender: watch::Sender<Option<JobProgress>>,
    started: Instant,
    /// Whether the distance of two positions is the number of events between them.
    counts_events: bool,
}

impl ProgressReporter {
    pub(super) fn new(sender: watch::Sender<Option<JobProgress>>, counts_events: bool) -> Self {
        Self { sender, started: Instant::now(), counts_events }
    }

    /// Reports a number of events that were read.
    pub(super) fn report_events(&self, done: u64, total: Option<u64>) {
        let progress = JobProgress {
            phase: "reading events".to_owned(),
            done: Some(done),
            total,
            ..JobProgress::default()
        };
        self.sender.send_replace(Some(self.with_rate(progress, done)));
    }

    /// Runs `work`, which sends the progress of its projections, and publishes that progress.
    pub(super) async fn follow<T>(&self, work: impl AsyncFnOnce(&watch::Sender<Progress>) -> T) -> T {
        let (sender, mut receiver) = watch::channel(Progress::new());
        let mut done_at_start = None;
        let report = async {
            while receiver.changed().await.is_ok() {
                let progress = from_projections(&receiver.borrow_and_update(), self.counts_events);
                // A job that was taken up again begins where the previous process stopped. The rate counts only what
                // this process has done.
                let done = progress.done.unwrap_or_default();
                let done_here = done.saturating_sub(*done_at_start.get_or_insert(done));
                self.sender.send_replace(Some(self.with_rate(progress, done_here)));
            }
            std::future::pending::<Infallible>().await
        };
        tokio::select! {
            result = work(&sender) => result,
            never = report => match never {},
        }
    }

    /// Adds the rate and the time left. This process has read or folded `done_here` events of the job.
    fn with_rate(&self, mut progress: JobProgress, done_here: u64) -> JobProgress {
        let elapsed = self.started.elapsed().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "rates are approximate")]
        let rate = done_here as f64 / elapsed;
        if elapsed < 0.1 || !rate.is_finite() || rate < 1.0 {
            return progress;
        }
        progress.events_per_second = Some(rate.round());
        if let (Some(done), Some(total)) = (progress.done, progress.total) {
            #[expect(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "an estimate of a time, which is positive and far below 2^52 seconds"
            )]
            let seconds = (total.saturating_sub(done) as f64 / rate).ceil() as u64;
            progress.seconds_left = Some(seconds);
        }
        progress
    }
}

fn from_projections(progress: &Progress, counts_events: bool) -> JobProgress {
    let generations = progress.generations.iter().map(|(id, status)| GenerationProgress {
        projection: id.projection,
        generation: id.generation,
        position: status.position,
        head: status.head,
    });
    JobProgress::from_generations(progress.phase.as_str(), generations.collect(), counts_events)
}

impl JobProgress {
    /// Creates the progress from the position and the head of each generation.
    pub(super) fn from_generations(
        phase: &str,
        generations: Vec<GenerationProgress>,
        counts_events: bool,
    ) -> Self {
        let done = generations.iter().map(|generation| generation.position.get()).min();
        let total = generations.iter().map(|generation| generation.head.get()).max();
        Self {
            phase: phase.to_owned(),
            generations,
            done: done.filter(|_| counts_events),
            total: total.filter(|_| counts_events),
            ..Self::default()
        }
    }
}
