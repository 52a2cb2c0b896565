//! The registry of jobs: a fold of the operators' stream.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use chat_domain::operator_action::{self, JobEnded, JobRequested};
use chat_domain::{Metadata, OperatorAction, Position, Revision, Timestamp};
use chat_ports::event_store::{EventStore, EventStoreError, ReadStart, RecordedEvent, StreamRead};
use serde_json::Value;

use crate::operator_actions::{JobId, Operator};

/// The number of events in one read.
const PAGE_EVENTS: usize = 256;

/// The number of ended jobs that are kept. Later ones replace the oldest.
pub(super) const MAX_ENDED_JOBS: usize = 500;

/// The jobs that the log records.
#[derive(Debug, Default)]
pub(super) struct JobRegistry {
    last_revision: Option<Revision>,
    jobs: BTreeMap<Position, JobRecord>,
    positions: HashMap<JobId, Position>,
    ended: usize,
}

/// A job as the log records it.
#[derive(Clone, Debug)]
pub(super) struct JobRecord {
    pub(super) id: JobId,
    /// The position of its request.
    pub(super) position: Position,
    /// The revision of its request in the operators' stream.
    pub(super) revision: Revision,
    pub(super) requested_at: Timestamp,
    /// The operator who requested it, as the job's actions record it.
    pub(super) operator: Operator,
    pub(super) kind: String,
    pub(super) options: Value,
    pub(super) reason: String,
    /// How often a process began to run it.
    pub(super) attempts: u32,
    pub(super) started_at: Option<Timestamp>,
    pub(super) end: Option<JobEnd>,
}

/// The end of a job.
#[derive(Clone, Debug)]
pub(super) struct JobEnd {
    pub(super) at: Timestamp,
    pub(super) event: JobEnded,
}

impl JobRegistry {
    /// The revision of the last event that was read.
    pub(super) fn last_revision(&self) -> Option<Revision> {
        self.last_revision
    }

    pub(super) fn get(&self, id: JobId) -> Option<&JobRecord> {
        self.jobs.get(self.positions.get(&id)?)
    }

    /// All jobs, the newest first.
    pub(super) fn newest_first(&self) -> impl Iterator<Item = &JobRecord> {
        self.jobs.values().rev()
    }

    /// The jobs that have not ended, the oldest first.
    pub(super) fn unfinished(&self) -> impl Iterator<Item = &JobRecord> {
        self.jobs.values().filter(|job| job.end.is_none())
    }

    /// Reads the rest of the operators' stream.
    pub(super) async fn catch_up(&mut self, log: &dyn EventStore) -> Result<(), EventStoreError> {
        let stream: Arc<str> = operator_action::STREAM.into();
        loop {
            let next = self.last_revision.map_or(Revision::FIRST, Revision::next);
            let read = StreamRead::all(Arc::clone(&stream), ReadStart::Forwards(next), PAGE_EVENTS);
            let events = log.read_stream(read).await?;
            if events.is_empty() {
                return Ok(());
            }
            for event in &events {
                self.apply(event);
            }
        }
    }

    fn apply(&mut self, event: &RecordedEvent) {
        self.last_revision = Some(event.revision);
        // An event that can't be decoded was probably written by a newer program; whoever folds generations reports it.
        let action = OperatorAction::decode(&event.event_type, event.schema_version, &event.data);
        match action {
            Ok(OperatorAction::JobRequested(requested)) => self.add(event, requested),
            Ok(OperatorAction::JobStarted(started)) => {
                if let Some(job) = self.find_mut(&started.job) {
                    job.attempts = job.attempts.max(started.attempt);
                    job.started_at.get_or_insert(event.recorded_at);
                }
            }
            Ok(OperatorAction::JobEnded(ended)) => {
                let Some(job) = self.find_mut(&ended.job).filter(|job| job.end.is_none()) else { return };
                job.end = Some(JobEnd { at: event.recorded_at, event: ended });
                self.ended += 1;
                self.remove_oldest_ended();
            }
            _ => {}
        }
    }

    fn add(&mut self, event: &RecordedEvent, requested: JobRequested) {
        let metadata = serde_json::from_slice::<Metadata>(&event.metadata).unwrap_or_default();
        let id = JobId::of_request(event.id);
        let job = JobRecord {
            id,
            position: event.position,
            revision: event.revision,
            requested_at: event.recorded_at,
            operator: Operator {
                name: metadata.actor.name.unwrap_or_default(),
                program: metadata.actor.user_agent.unwrap_or_default(),
                job: Some(id),
            },
            kind: requested.kind,
            options: requested.options,
            reason: requested.reason,
            attempts: 0,
            started_at: None,
            end: None,
        };
        self.positions.insert(id, event.position);
        self.jobs.insert(event.position, job);
    }

    fn find_mut(&mut self, id: &str) -> Option<&mut JobRecord> {
        self.jobs.get_mut(self.positions.get(&JobId::parse(id)?)?)
    }

    fn remove_oldest_ended(&mut self) {
        if self.ended <= MAX_ENDED_JOBS {
            return;
        }
        let oldest = self.jobs.iter().find(|(_, job)| job.end.is_some()).map(|(position, _)| *position);
        if let Some(job) = oldest.and_then(|position| self.jobs.remove(&position)) {
            self.positions.remove(&job.id);
            self.ended -= 1;
        }
    }
}
