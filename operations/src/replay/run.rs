//! Running a replay: from the event source through filter and rate limit to the target, with checkpoints.

use std::path::PathBuf;
use std::pin::pin;
use std::time::{Duration, Instant};

use chat_domain::Position;
use chat_ports::event_store::{EventStore, RecordedEvent};
use serde::Serialize;

use super::batch::ReplayBatch;
use super::checkpoint::{CheckpointFile, ReplayCheckpoint};
use super::destination::Destination;
use super::endpoint::Endpoint;
use super::error::ReplayError;
use super::file::{LinesFile, ResumeFrom};
use super::program::{Program, ProgramOutput};
use super::rate_limit::{Rate, RateLimiter};
use super::source::{EventSource, Page};
use super::stop_signal::{StatusCallback, StopSignal};
use super::target::{DeliveryProgress, ReplayTarget};
use super::target_fingerprint::{self, TargetFingerprint};

/// The interval at which the target is flushed and the checkpoint is written.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);

/// Options of a replay.
pub struct ReplayOptions<'a> {
    /// Replays only events after this position, or after the position of the checkpoint if that is later.
    pub after: Position,
    /// Replays only events up to this position.
    pub until: Option<Position>,
    /// Selects the events to replay.
    pub filter: &'a (dyn Fn(&RecordedEvent) -> bool + Send + Sync),
    /// A text that identifies the filter. A checkpoint can only be resumed with the same text.
    pub filter_description: &'a str,
    /// The maximal rate of delivery.
    pub rate: Option<Rate>,
    /// Whether to wait for new events at the head, until `until` is reached or a stop is requested.
    pub follow: bool,
    /// The checkpoint file.
    pub checkpoint: Option<PathBuf>,
    /// Receives a short message when the replay waits before a retry, with the reason.
    pub on_status: StatusCallback<'a>,
}

/// The result of a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ReplayOutcome {
    /// The number of events that this run handed to the destination.
    pub events: u64,
    /// The position up to which delivery is certain.
    pub position: Position,
    /// Whether the replay was stopped before it was complete.
    pub stopped: bool,
}

/// Replays the log to a destination. `on_progress` receives the number of events handed to the destination, and the
/// position up to which the log was read. The last events up to this position may not be delivered yet. An error
/// comes with the outcome until then, or without one if the replay did not begin.
pub async fn run<'a>(
    log: &'a dyn EventStore,
    options: &ReplayOptions<'a>,
    destination: &Destination,
    stop: &mut StopSignal,
    on_progress: &mut (dyn FnMut(u64, Position) + Send),
) -> Result<ReplayOutcome, (ReplayError, Option<ReplayOutcome>)> {
    match start(log, options, destination).await {
        Err(error) => Err((error, None)),
        Ok((mut running, source, mut outcome)) => {
            let run_result = running.run(source, options, stop, on_progress, &mut outcome).await;
            let progress = match &run_result {
                Ok(()) => running.target.finish().await.inspect(|_| running.checkpoint.ended_normally = true),
                // The checkpoint records the events that were delivered before the failure.
                Err(_) => running.target.flush().await,
            };
            let write_result = progress.and_then(|progress| running.write_checkpoint(progress, &mut outcome));
            match run_result.and(write_result) {
                Ok(()) => Ok(outcome),
                Err(error) => Err((error, Some(outcome))),
            }
        }
    }
}

async fn start<'a>(
    log: &'a dyn EventStore,
    options: &ReplayOptions<'a>,
    destination: &Destination,
) -> Result<(RunningReplay, EventSource<'a>, ReplayOutcome), ReplayError> {
    let mut checkpoint_file = options.checkpoint.as_deref().map(CheckpointFile::open).transpose()?;
    // Read once the checkpoint's file is locked: another replay could otherwise move the checkpoint past this head.
    let lineage = log.lineage().await?;
    let head = log.head().await?;
    let stored = checkpoint_file.as_mut().map(|file| file.read(&lineage, head)).transpose()?.flatten();
    let filter_sha256 = target_fingerprint::sha256_hex(options.filter_description);
    let stored = match (&checkpoint_file, stored) {
        (Some(file), Some(stored)) => {
            // A destination file that is missing has no fingerprint, so it does not match.
            let target = TargetFingerprint::from_destination(destination).ok();
            match file.ensure_matches(&stored, target.as_ref(), &filter_sha256) {
                Ok(()) => Some(stored),
                Err(_) if stored.is_empty() => None,
                Err(error) => return Err(error),
            }
        }
        _ => None,
    };
    let after = stored.as_ref().map_or(options.after, |stored| stored.position.max(options.after));
    let target = open_target(destination, stored.as_ref(), after)?;
    let events_before = stored.map_or(0, |stored| stored.events);
    let checkpoint = ReplayCheckpoint {
        log: lineage.current(),
        position: after,
        events: events_before,
        target: TargetFingerprint::from_destination(destination).map_err(ReplayError::Destination)?,
        filter_sha256,
        ended_normally: false,
        bytes: None,
    };
    let checkpoint_written_at = Instant::now();
    let mut running =
        RunningReplay { target, checkpoint_file, checkpoint, events_before, checkpoint_written_at };
    // The checkpoint is written before the first delivery, so that a destination file can always be cut back to its
    // original length.
    let mut outcome = ReplayOutcome { events: 0, position: after, stopped: false };
    running.flush(&mut outcome).await?;
    // A replay that does not follow the log ends at the present head, or at `until` if that is earlier.
    let end = if options.follow { None } else { Some(head) };
    let end = match (end, options.until) {
        (Some(head), Some(until)) => Some(head.min(until)),
        (end, until) => end.or(until),
    };
    Ok((running, EventSource::new(log, after, end, options.follow, options.on_status), outcome))
}

/// Opens a destination for the events after a position.
fn open_target(
    destination: &Destination,
    checkpoint: Option<&ReplayCheckpoint>,
    after: Position,
) -> Result<Box<dyn ReplayTarget>, ReplayError> {
    Ok(match destination {
        Destination::Program { command, to_stderr } => {
            let output = if *to_stderr { ProgramOutput::Stderr } else { ProgramOutput::Inherit };
            Box::new(Program::start(command, output, after)?)
        }
        Destination::File(path) => {
            let resume_from = checkpoint.map(|checkpoint| ResumeFrom {
                bytes: checkpoint.bytes,
                ended_normally: checkpoint.ended_normally,
            });
            Box::new(LinesFile::open(path, resume_from, after)?)
        }
        Destination::Endpoint(options) => Box::new(Endpoint::open(options, after)?),
    })
}

/// A running replay.
struct RunningReplay {
    target: Box<dyn ReplayTarget>,
    checkpoint_file: Option<CheckpointFile>,
    checkpoint: ReplayCheckpoint,
    /// The number of events delivered by earlier runs.
    events_before: u64,
    checkpoint_written_at: Instant,
}

impl RunningReplay {
    async fn run(
        &mut self,
        mut source: EventSource<'_>,
        options: &ReplayOptions<'_>,
        stop: &mut StopSignal,
        on_progress: &mut (dyn FnMut(u64, Position) + Send),
        outcome: &mut ReplayOutcome,
    ) -> Result<(), ReplayError> {
        let mut rate_limiter = RateLimiter::new(options.rate);
        let limits =
            self.target.batch_limits().cap_events(options.rate.map_or(u64::MAX, Rate::max_batch_events));
        let mut batch = ReplayBatch::empty_after(outcome.position);
        loop {
            let page = self.next_page(&mut source, options.follow, stop, outcome).await?;
            let Some(Page { events, up_to, is_last }) = page else { break };
            for event in events {
                if (options.filter)(&event) {
                    batch.push(&event);
                }
                batch.up_to = event.position;
                if batch.is_full(limits) {
                    self.deliver(&mut batch, &mut rate_limiter, (stop, options.on_status), outcome).await?;
                    on_progress(outcome.events, batch.up_to);
                    if stop.is_requested() {
                        break;
                    }
                }
            }
            if stop.is_requested() {
                break;
            }
            batch.up_to = batch.up_to.max(up_to);
            // An incomplete batch is delivered here only if it should not wait for the events of the next page.
            if (options.follow || is_last)
                && !self.deliver(&mut batch, &mut rate_limiter, (stop, options.on_status), outcome).await?
            {
                break;
            }
            on_progress(outcome.events, batch.up_to);
            if self.checkpoint_written_at.elapsed() >= CHECKPOINT_INTERVAL {
                self.flush(outcome).await?;
            }
            if is_last {
                return Ok(());
            }
        }
        outcome.stopped = true;
        Ok(())
    }

    /// Waits for the next page. With `follow`, flushes the target meanwhile. `None` if a stop is requested first.
    async fn next_page(
        &mut self,
        source: &mut EventSource<'_>,
        follow: bool,
        stop: &mut StopSignal,
        outcome: &mut ReplayOutcome,
    ) -> Result<Option<Page>, ReplayError> {
        // The read continues across flushes, because connecting may take longer than the interval.
        let mut next_page = pin!(source.next_page());
        loop {
            tokio::select! {
                biased;
                () = stop.requested() => return Ok(None),
                page = &mut next_page => return Ok(Some(page?)),
                () = tokio::time::sleep(CHECKPOINT_INTERVAL), if follow => self.flush(outcome).await?,
            }
        }
    }

    /// Delivers a batch and empties it. Returns `false` if a stop is requested before the delivery: the batch stays
    /// unchanged.
    async fn deliver(
        &mut self,
        batch: &mut ReplayBatch,
        rate_limiter: &mut RateLimiter,
        (stop, on_status): (&mut StopSignal, StatusCallback<'_>),
        outcome: &mut ReplayOutcome,
    ) -> Result<bool, ReplayError> {
        tokio::select! {
            biased;
            () = stop.requested() => return Ok(false),
            () = rate_limiter.acquire(batch.events) => {}
        }
        let is_delivered = self.target.deliver(batch, stop, on_status).await?;
        if is_delivered {
            outcome.events += batch.events;
            *batch = ReplayBatch::empty_after(batch.up_to);
        }
        if self.checkpoint_written_at.elapsed() >= CHECKPOINT_INTERVAL {
            self.flush(outcome).await?;
        }
        Ok(is_delivered)
    }

    async fn flush(&mut self, outcome: &mut ReplayOutcome) -> Result<(), ReplayError> {
        let progress = self.target.flush().await?;
        self.write_checkpoint(progress, outcome)
    }

    fn write_checkpoint(
        &mut self,
        progress: DeliveryProgress,
        outcome: &mut ReplayOutcome,
    ) -> Result<(), ReplayError> {
        outcome.position = progress.position;
        self.checkpoint_written_at = Instant::now();
        let Some(file) = &mut self.checkpoint_file else { return Ok(()) };
        self.checkpoint.position = progress.position;
        self.checkpoint.bytes = progress.bytes;
        self.checkpoint.events = self.events_before + progress.events;
        file.write(&self.checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Mutex;

    use chat_domain::event::SchemaVersion;
    use chat_domain::metadata::EventId;
    use chat_domain::{ExpectedRevision, Timestamp};
    use chat_ports::event_store::{NewEvent, StreamAppend};
    use chat_sqlite::SqliteEventStore;
    use uuid::Uuid;

    use super::*;
    use crate::replay::EndpointOptions;

    /// Creates a log with one event.
    async fn log_with_an_event(folder: &Path) -> SqliteEventStore {
        let log = SqliteEventStore::open(&folder.join("events.db")).unwrap();
        let event = NewEvent {
            id: EventId::new(Uuid::new_v4()),
            event_type: "AppRenamed",
            schema_version: SchemaVersion::FIRST,
            recorded_at: Timestamp::from_millis(0),
            data: "{}".into(),
            metadata: "{}".into(),
        };
        let expected_revision = ExpectedRevision::from_last_revision(None);
        let append = StreamAppend { stream: "app".into(), expected_revision, events: vec![event] };
        log.append(vec![append]).await.pop().unwrap().unwrap();
        log
    }

    #[tokio::test]
    async fn a_checkpoint_of_a_run_that_delivered_nothing_binds_no_later_run() {
        let folder = tempfile::tempdir().unwrap();
        let log = log_with_an_event(folder.path()).await;
        let destination = Destination::File(folder.path().join("events.jsonl"));
        let checkpoint = folder.path().join("position");
        let replay = async |filter_description: &str, is_wanted: bool| {
            let options = ReplayOptions {
                after: Position::START,
                until: None,
                filter: &|_| is_wanted,
                filter_description,
                rate: None,
                follow: false,
                checkpoint: Some(checkpoint.clone()),
                on_status: &|_| {},
            };
            let (_sender, mut stop) = StopSignal::channel();
            let ran = run(&log, &options, &destination, &mut stop, &mut |_, _| {}).await;
            ran.map(|outcome| outcome.events).map_err(|(error, _)| error.to_string())
        };
        assert_eq!(replay("no event", false).await, Ok(0));
        assert_eq!(replay("every event", true).await, Ok(1));
        let refused = replay("no event", false).await.unwrap_err();
        assert!(refused.contains("with another filter"), "{refused}");
    }

    #[tokio::test]
    async fn a_stop_before_the_last_batch_is_delivered_leaves_the_replay_incomplete() {
        let folder = tempfile::tempdir().unwrap();
        let log = log_with_an_event(folder.path()).await;
        // Nothing listens at the endpoint: the batch waits for a retry.
        let endpoint = EndpointOptions::new("http://127.0.0.1:1", log.log_id().await.unwrap()).unwrap();
        for is_dropped in [false, true] {
            let (sender, mut stop) = StopSignal::channel();
            let sender = Mutex::new(Some(sender));
            let stop_at_first_failure = |_: &str| {
                let Some(sender) = sender.lock().unwrap().take() else { return };
                if !is_dropped {
                    sender.send(true).unwrap();
                }
            };
            let options = ReplayOptions {
                after: Position::START,
                until: None,
                filter: &|_| true,
                filter_description: "",
                rate: None,
                follow: false,
                checkpoint: None,
                on_status: &stop_at_first_failure,
            };
            let destination = Destination::Endpoint(endpoint.clone());
            let outcome = run(&log, &options, &destination, &mut stop, &mut |_, _| {}).await.unwrap();
            assert_eq!(outcome, ReplayOutcome { events: 0, position: Position::START, stopped: true });
            assert!(stop.is_requested());
        }
    }
}
