//! The registry of jobs: a fold of the operators' stream.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use chat_domain::operator_action::{self, JobEnded, JobRequested};
use chat_domain::projection::ProjectionName;
use chat_domain::{Metadata, OperatorAction, Position, Revision, Timestamp};
use chat_ports::event_store::{EventStore, EventStoreError, ReadStart, RecordedEvent, StreamRead};
use serde_json::Value;

use super::action::JobAction;
use crate::operator_actions::{JobId, Operator};

/// The number of events in one read of the operators' stream.
pub(super) const PAGE_EVENTS: usize = 256;

/// The number of ended jobs that are kept: those that ended last.
pub(super) const MAX_ENDED_JOBS: usize = 500;

/// The jobs that the log records.
#[derive(Debug, Default)]
pub(super) struct JobRegistry {
    last_revision: Option<Revision>,
    /// By the position of the request.
    jobs: BTreeMap<Position, JobRecord>,
    /// The position of the request of each job in `jobs`.
    positions: HashMap<JobId, Position>,
    /// The positions of the ended jobs, in the order in which they ended.
    ended: VecDeque<Position>,
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
    /// The operator who requested the job, with the job's id. The actions of the job are recorded under this operator.
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
    pub(super) ended_at: Timestamp,
    /// The event, without the report. 500 reports would take too much memory.
    pub(super) event: JobEnded,
    /// The revision of the event, if it has a report.
    pub(super) report_revision: Option<Revision>,
}

impl JobEnd {
    /// Reads the report.
    pub(super) async fn read_report(&self, log: &dyn EventStore) -> Result<Option<Value>, EventStoreError> {
        let Some(revision) = self.report_revision else { return Ok(None) };
        let read = StreamRead::all(operator_action::STREAM, ReadStart::Forwards(revision), 1);
        let Some(event) = log.read_stream(read).await?.pop() else { return Ok(None) };
        match OperatorAction::decode(&event.event_type, event.schema_version, &event.data) {
            Ok(OperatorAction::JobEnded(ended)) => Ok(ended.report),
            _ => Ok(None),
        }
    }
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

    /// Finds the oldest unfinished job that conflicts with `action`: both switch the same projection, that is, build a
    /// generation of it or change which one is live. Returns the job and the projection.
    pub(super) fn find_conflict(&self, action: &JobAction) -> Option<(&JobRecord, ProjectionName)> {
        let switched = action.switched_projections();
        if switched.is_empty() {
            return None;
        }
        self.unfinished().find_map(|job| {
            let other = JobAction::from_recorded(&job.kind, &job.options)?;
            let shared = other.switched_projections().iter().find(|name| switched.contains(name))?;
            Some((job, *shared))
        })
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
        // An event that can't be decoded was probably written by a newer program; the fold of generations reports it.
        let action = OperatorAction::decode(&event.event_type, event.schema_version, &event.data);
        match action {
            Ok(OperatorAction::JobRequested(requested)) => self.add(event, requested),
            Ok(OperatorAction::JobStarted(started)) => {
                if let Some(job) = self.find_mut(&started.job) {
                    job.attempts = job.attempts.max(started.attempt);
                    job.started_at.get_or_insert(event.recorded_at);
                }
            }
            Ok(OperatorAction::JobEnded(mut ended)) => {
                let Some(job) = self.find_mut(&ended.job).filter(|job| job.end.is_none()) else { return };
                let report_revision = ended.report.take().map(|_| event.revision);
                job.end = Some(JobEnd { ended_at: event.recorded_at, event: ended, report_revision });
                let position = job.position;
                self.ended.push_back(position);
                self.remove_first_ended();
            }
            _ => {}
        }
    }

    fn add(&mut self, event: &RecordedEvent, requested: JobRequested) {
        let metadata = serde_json::from_slice::<Metadata>(&event.metadata).unwrap_or_default();
        let id = JobId::from_request(event.id);
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

    /// Removes the job that ended first, if too many have ended.
    fn remove_first_ended(&mut self) {
        if self.ended.len() <= MAX_ENDED_JOBS {
            return;
        }
        let first = self.ended.pop_front();
        if let Some(job) = first.and_then(|position| self.jobs.remove(&position)) {
            self.positions.remove(&job.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use chat_domain::metadata::EventId;
    use chat_domain::operator_action::JobStatus;
    use serde_json::json;

    use super::*;

    /// Applies an action as the next event of the operators' stream. If the action requests a job, the returned id is
    /// that of the job.
    fn apply(registry: &mut JobRegistry, action: impl Into<OperatorAction>) -> JobId {
        let action = action.into();
        let number = registry.last_revision.map_or(0, |last| last.get() + 1);
        let id = EventId::new(uuid::Uuid::from_u128(u128::from(number) + 1));
        registry.apply(&RecordedEvent {
            position: Position::new(number + 1),
            stream: operator_action::STREAM.into(),
            revision: Revision::new(number),
            id,
            event_type: action.event_type().to_owned(),
            schema_version: action.schema_version(),
            recorded_at: Timestamp::from_millis(0),
            data: action.payload().into_bytes(),
            metadata: b"{}".to_vec(),
        });
        JobId::from_request(id)
    }

    fn request(registry: &mut JobRegistry) -> JobId {
        let (kind, reason) = ("audit.verify".to_owned(), "a test".to_owned());
        apply(registry, JobRequested { kind, options: json!({}), reason })
    }

    fn end(registry: &mut JobRegistry, id: JobId) {
        let (job, report) = (id.to_string(), Some(json!({ "events": 1 })));
        apply(registry, JobEnded { job, status: JobStatus::Ok, report, diagnostics: None, error: None });
    }

    #[test]
    fn a_long_job_is_kept_when_it_ends_after_many_short_ones() {
        let mut registry = JobRegistry::default();
        let long = request(&mut registry);
        let short: Vec<_> = (0..MAX_ENDED_JOBS).map(|_| request(&mut registry)).collect();
        for id in &short {
            end(&mut registry, *id);
        }
        assert_eq!(registry.newest_first().count(), MAX_ENDED_JOBS + 1);
        end(&mut registry, long);
        assert_eq!(registry.newest_first().count(), MAX_ENDED_JOBS);
        let kept = registry.get(long).unwrap();
        let end = kept.end.as_ref().unwrap();
        assert!(end.event.report.is_none() && end.report_revision.is_some(), "the report stays in the log");
        assert!(registry.get(short[0]).is_none() && registry.get(short[1]).is_some());
    }
}
