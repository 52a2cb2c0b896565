//! Tests of jobs, of switch-overs without names, and of two rebuilds or two rollbacks that run at once.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chat_domain::event::SchemaVersion;
use chat_domain::metadata::EventId;
use chat_domain::operator_action::{
    JobRequested, JobStarted, ProjectionsDropped, ProjectionsPromoted, ProjectionsRolledBack, RebuildStarted,
};
use chat_domain::projection::{Generation, ProjectionGeneration, ProjectionName};
use chat_domain::{ExpectedRevision, OperatorAction, Position, Revision, Timestamp, operator_action};
use chat_kurrentdb::{CallTimeouts, KurrentDbEventStore, KurrentDbUrl};
use chat_operations::jobs::{
    Job, JobAction, JobId, JobState, Jobs, MAX_JOB_ATTEMPTS, Reason, SwitchOverRequest, VerifyRequest,
};
use chat_operations::operator_actions::{Operator, record_action};
use chat_operations::projections::rebuild::{RebuildOptions, rebuild};
use chat_operations::projections::switch_over::{SwitchDirection, plan, switch_over};
use chat_operations::projections::{Progress, Projections, ProjectionsError};
use chat_operations::proof::key::{KeyName, SigningKey};
use chat_ports::event_store::{
    AppendError, AppendGate, AppendReceipt, EventLookup, EventStore, EventStoreError, GatedEventStore,
    Incarnation, LogId, LogLineage, LogReplaced, NewEvent, NewIncarnation, ReadStart, RecordedEvent,
    StreamAppend, StreamRead, Subscription,
};
use chat_projector::dead_letters::advance_projection;
use chat_projector::generations::ProjectionLocations;
use chat_projector::projection::{Projection, ensure_log_matches};
use chat_sqlite::{SqliteEventStore, SqliteReadModelStorage};
use chat_testing::kurrentdb::FakeKurrentDb;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;

struct System {
    log: Arc<dyn EventStore>,
    projections: Arc<Projections>,
    _folder: TempDir,
    _server: Option<FakeKurrentDb>,
}

impl System {
    async fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.db");
        let opened = tokio::task::spawn_blocking(move || SqliteEventStore::open(&path)).await;
        Self::new(Arc::new(opened.unwrap().unwrap()), folder, None)
    }

    async fn kurrentdb() -> Self {
        let server = FakeKurrentDb::start().unwrap();
        let url = KurrentDbUrl::parse(&server.url()).unwrap();
        // A busy machine may exceed the default time limits.
        let timeouts = CallTimeouts { attempt: Duration::from_secs(10), total: Duration::from_secs(30) };
        let log = KurrentDbEventStore::open_with_timeouts(&url, timeouts).await.unwrap();
        Self::new(Arc::new(log), tempfile::tempdir().unwrap(), Some(server))
    }

    fn new(log: Arc<dyn EventStore>, folder: TempDir, server: Option<FakeKurrentDb>) -> Self {
        let locations = ProjectionLocations {
            read_model: Arc::new(SqliteReadModelStorage::new(folder.path().join("read-model.db"))),
            search_index: folder.path().join("search-index"),
        };
        let projections = Arc::new(Projections { log: Arc::clone(&log), locations });
        Self { log, projections, _folder: folder, _server: server }
    }

    /// Creates a job service. Each process has one.
    fn jobs(&self) -> Jobs {
        Jobs::new(Arc::clone(&self.projections), None)
    }

    async fn record(&self, job: Option<JobId>, action: impl Into<OperatorAction>) {
        let operator = Operator { job, ..operator() };
        record_action(&*self.log, &operator, &action.into()).await.unwrap();
    }

    /// Records the request of a job, as another program may have done.
    async fn request(&self, kind: &str, options: Value) -> JobId {
        self.record(None, JobRequested { kind: kind.to_owned(), options, reason: "a test".to_owned() }).await;
        let last = StreamRead::last_event(operator_action::STREAM);
        JobId::from_request(self.log.read_stream(last).await.unwrap()[0].id)
    }

    /// The types of all events in the stream of operator actions.
    async fn types(&self) -> Vec<String> {
        let read = StreamRead::all(operator_action::STREAM, ReadStart::Forwards(Revision::FIRST), 100);
        self.log.read_stream(read).await.unwrap().into_iter().map(|event| event.event_type).collect()
    }

    /// Runs all waiting jobs until the job `id` has ended.
    async fn run_until_ended(&self, id: JobId) -> Job {
        self.run_with_key_until_ended(id, None).await
    }

    /// Does the same with a signing key.
    async fn run_with_key_until_ended(&self, id: JobId, key: Option<SigningKey>) -> Job {
        let jobs = Jobs::new(Arc::clone(&self.projections), key);
        let (stop, stopped) = watch::channel(false);
        let runner = tokio::spawn(jobs.clone().run(stopped));
        let ended = wait_for_end(&jobs, id).await;
        stop.send_replace(true);
        runner.await.unwrap();
        ended
    }
}

fn operator() -> Operator {
    Operator { name: "alice".to_owned(), program: "test".to_owned(), job: None }
}

async fn wait_for_end(jobs: &Jobs, id: JobId) -> Job {
    let mut seen = None;
    loop {
        let job = jobs.next_change(id, seen.as_ref()).await.unwrap().unwrap();
        if job.state.is_ended() {
            return job;
        }
        seen = Some(job);
    }
}

fn verify() -> JobAction {
    JobAction::VerifyLog(VerifyRequest::default())
}

/// Generation 2 of the read model.
fn second_read_model() -> Vec<ProjectionGeneration> {
    vec![ProjectionGeneration { projection: ProjectionName::ReadModel, generation: Generation(2) }]
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_of_a_job_is_recorded_once() {
    for system in [System::sqlite().await, System::kurrentdb().await] {
        let id = system.request("projections.rebuild", json!({})).await;
        let started = || RebuildStarted { generations: second_read_model(), reason: "a test".to_owned() };
        let operator = Operator { job: Some(id), ..operator() };
        let first = record_action(&*system.log, &operator, &started().into()).await.unwrap();
        let again = record_action(&*system.log, &operator, &started().into()).await.unwrap();
        assert_eq!(first, again);
        assert_eq!(system.types().await, ["JobRequested", "RebuildStarted"]);
        // An action without a job is recorded each time.
        system.record(None, started()).await;
        assert_eq!(system.types().await.len(), 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_that_an_earlier_attempt_recorded_is_not_repeated() {
    let system = System::sqlite().await;
    let id = system.request("projections.promote", json!({ "projections": ["read_model"] })).await;
    system.record(Some(id), JobStarted { job: id.to_string(), attempt: 1 }).await;
    let promoted = ProjectionsPromoted { generations: second_read_model(), reason: "a test".to_owned() };
    system.record(Some(id), promoted).await;
    let job = system.run_until_ended(id).await;
    assert_eq!((job.state, job.attempts), (JobState::Ok, 2), "{job:?}");
    assert_eq!(job.report.unwrap()["to"], json!([{ "projection": "read_model", "generation": 2 }]));
    let types = system.types().await;
    assert_eq!(types, ["JobRequested", "JobStarted", "ProjectionsPromoted", "JobStarted", "JobEnded"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_process_stops_each_time_is_given_up() {
    let system = System::sqlite().await;
    let id = system.request("audit.verify", json!({})).await;
    for attempt in 1..=MAX_JOB_ATTEMPTS {
        system.record(Some(id), JobStarted { job: id.to_string(), attempt }).await;
    }
    let job = system.run_until_ended(id).await;
    assert_eq!((job.state, job.attempts), (JobState::Failed, MAX_JOB_ATTEMPTS));
    assert_eq!(
        job.error.unwrap(),
        "given up after 10 attempts: each time the process stopped or the log was unavailable"
    );
}

/// A log that closes a gate for a second when a job begins its first attempt.
struct ClosingLog {
    log: Arc<dyn EventStore>,
    gate: AppendGate,
}

#[async_trait]
impl EventStore for ClosingLog {
    async fn log_id(&self) -> Result<LogId, EventStoreError> {
        self.log.log_id().await
    }

    async fn lineage(&self) -> Result<LogLineage, EventStoreError> {
        self.log.lineage().await
    }

    async fn begin_incarnation(&self, incarnation: NewIncarnation) -> Result<Incarnation, EventStoreError> {
        self.log.begin_incarnation(incarnation).await
    }

    async fn verify_identity(&self) -> Result<(), LogReplaced> {
        self.log.verify_identity().await
    }

    async fn append(&self, appends: Vec<StreamAppend>) -> Vec<Result<AppendReceipt, AppendError>> {
        let is_first_attempt = appends
            .iter()
            .flat_map(|append| &append.events)
            .any(|event| event.event_type == "JobStarted" && event.data.contains(r#""attempt":1"#));
        let receipts = self.log.append(appends).await;
        if is_first_attempt {
            let gate = self.gate.clone();
            gate.close("the log was replaced");
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                gate.open();
            });
        }
        receipts
    }

    async fn read_stream(&self, read: StreamRead) -> Result<Vec<RecordedEvent>, EventStoreError> {
        self.log.read_stream(read).await
    }

    async fn read_all(&self, after: Position, limit: usize) -> Result<Vec<RecordedEvent>, EventStoreError> {
        self.log.read_all(after, limit).await
    }

    async fn read_all_backwards(
        &self,
        before: Option<Position>,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, EventStoreError> {
        self.log.read_all_backwards(before, limit).await
    }

    async fn find_event(&self, wanted: EventLookup) -> Result<Option<RecordedEvent>, EventStoreError> {
        self.log.find_event(wanted).await
    }

    async fn head(&self) -> Result<Position, EventStoreError> {
        self.log.head().await
    }

    async fn subscribe(&self, after: Position) -> Result<Box<dyn Subscription>, EventStoreError> {
        self.log.subscribe(after).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_on_once_the_log_takes_appends_again() {
    let mut system = System::sqlite().await;
    let gate = AppendGate::default();
    let closing: Arc<dyn EventStore> =
        Arc::new(ClosingLog { log: Arc::clone(&system.log), gate: gate.clone() });
    system.log = Arc::new(GatedEventStore::new(closing, gate));
    let locations = system.projections.locations.clone();
    system.projections = Arc::new(Projections { log: Arc::clone(&system.log), locations });
    let key = || SigningKey::generate(KeyName::parse("test").unwrap()).unwrap();
    for (kind, options) in
        [("projections.rebuild", json!({ "projections": ["read_model"] })), ("audit.checkpoint", json!({}))]
    {
        let id = system.request(kind, options).await;
        let job = system.run_with_key_until_ended(id, Some(key())).await;
        assert_ne!(job.state, JobState::Failed, "{job:?}");
        assert_eq!(job.attempts, 2, "{job:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_says_if_the_live_generation_could_not_be_compared() {
    let system = System::sqlite().await;
    let id = system.request("projections.rebuild", json!({ "projections": ["read_model"] })).await;
    let job = system.run_until_ended(id).await;
    assert_eq!(job.state, JobState::Finding, "{job:?}");
    let is_explained = |message: &str| message.contains("a live generation can't be read");
    assert!(job.diagnostics.iter().any(|diagnostic| is_explained(&diagnostic.message)), "{job:?}");
}

/// Appends an event that no projection can apply, and returns the read model that has it as a dead letter. No other
/// process can advance the read model until the returned one is dropped.
async fn open_read_model_with_dead_letter(system: &System) -> Box<dyn Projection> {
    let event = NewEvent {
        id: EventId::new(uuid::Uuid::from_u128(1)),
        event_type: "ChatCreated",
        schema_version: SchemaVersion::FIRST,
        recorded_at: Timestamp::from_millis(0),
        data: "{}".to_owned(),
        metadata: "{}".into(),
    };
    let append = StreamAppend {
        stream: "chat-nowhere".into(),
        expected_revision: ExpectedRevision::from_last_revision(None),
        events: vec![event],
    };
    system.log.append(vec![append]).await.remove(0).unwrap();
    let first = ProjectionGeneration { projection: ProjectionName::ReadModel, generation: Generation(1) };
    let (mut read_model, _) = system.projections.locations.store(first).open().await.unwrap();
    let log = ensure_log_matches(&mut *read_model, &*system.log).await.unwrap();
    let events = system.log.read_all(Position::START, 100).await.unwrap();
    let head = events.last().unwrap().position;
    advance_projection(&mut *read_model, &*system.log, log, events, head).await.unwrap();
    read_model
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_waits_for_a_projection_is_interrupted_by_a_shutdown() {
    let system = System::sqlite().await;
    let read_model = open_read_model_with_dead_letter(&system).await;
    let options = json!({ "projections": ["read_model"], "all": true });
    let id = system.request("dead_letters.retry", options).await;
    let jobs = system.jobs();
    let (stop, stopped) = watch::channel(false);
    let runner = tokio::spawn(jobs.clone().run(stopped));
    while system.types().await.last().unwrap() != "DeadLettersRetried" {
        tokio::task::yield_now().await;
    }
    stop.send_replace(true);
    runner.await.unwrap();
    assert_eq!(jobs.get(id).await.unwrap().unwrap().state, JobState::Running);
    drop(read_model);
    // The retry is not recorded again.
    let job = system.run_until_ended(id).await;
    assert_eq!((job.attempts, &job.report.unwrap()["executed"]), (2, &json!(true)));
    let types = system.types().await;
    assert_eq!(types, ["JobRequested", "JobStarted", "DeadLettersRetried", "JobStarted", "JobEnded"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_attempt_fails_if_other_operators_resolved_the_dead_letters() {
    let system = System::sqlite().await;
    drop(open_read_model_with_dead_letter(&system).await);
    // The event at position 2 is the request of the first job. So the jobs find no dead letter there, as if other
    // operators had resolved it.
    let options = || json!({ "projections": ["read_model"], "position": 2 });
    for kind in ["dead_letters.retry", "dead_letters.discard", "dead_letters.acknowledge"] {
        let id = system.request(kind, options()).await;
        system.record(Some(id), JobStarted { job: id.to_string(), attempt: 1 }).await;
        let job = system.run_until_ended(id).await;
        assert_eq!((job.state, job.attempts), (JobState::Failed, 2), "{job:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_a_newer_program_waits_and_holds_up_no_other() {
    let system = System::sqlite().await;
    let newer = system.request("projections.melt", json!({})).await;
    let newer_option = system.request("projections.rebuild", json!({ "colour": "red" })).await;
    let known = system.request("audit.verify", json!({})).await;
    let job = system.run_until_ended(known).await;
    assert_eq!(job.state, JobState::Ok, "{job:?}");
    for waiting in [newer, newer_option] {
        assert_eq!(system.jobs().get(waiting).await.unwrap().unwrap().state, JobState::Waiting);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_at_a_time_runs_jobs_and_each_process_shows_all_jobs() {
    let system = System::sqlite().await;
    let (first, second) = (system.jobs(), system.jobs());
    let (stop, stopped) = watch::channel(false);
    let runners = [&first, &second].map(|jobs| tokio::spawn(jobs.clone().run(stopped.clone())));
    let reason = Reason::parse("a test").unwrap();
    for jobs in [&first, &second] {
        let requested = jobs.start(&verify(), &operator(), &reason, None).await.unwrap();
        let job = wait_for_end(&second, requested.id).await;
        assert_eq!((job.state, job.attempts), (JobState::Ok, 1));
    }
    stop.send_replace(true);
    for runner in runners {
        runner.await.unwrap();
    }
    let types = system.types().await;
    assert_eq!(types, ["JobRequested", "JobStarted", "JobEnded"].repeat(2));
    assert_eq!(first.list(None, 10).await.unwrap().len(), 2);
}

#[test]
fn a_reason_is_not_blank_not_too_long_and_without_nul() {
    assert_eq!(Reason::parse("  weekly "), Reason::parse("weekly"));
    for invalid in ["", "  ", &"x".repeat(1_001), "a\0b"] {
        assert!(Reason::parse(invalid).is_err(), "{invalid:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_on_a_projection_is_refused_until_an_earlier_job_on_it_has_ended() {
    let system = System::sqlite().await;
    let jobs = system.jobs();
    let reason = Reason::parse("a test").unwrap();
    let rebuild = |options: Value| JobAction::Rebuild(serde_json::from_value(options).unwrap());
    let promote = JobAction::Promote(SwitchOverRequest::default());
    let rebuild_search_index = rebuild(json!({ "projections": ["search_index"] }));
    let first = jobs.start(&rebuild_search_index, &operator(), &reason, Some("k")).await.unwrap();
    let assert_refused = |error: &dyn std::fmt::Display| {
        let error = error.to_string();
        assert!(error.contains(&first.id.to_string()) && error.contains("search_index"), "{error}");
    };
    assert_refused(&jobs.start(&rebuild(json!({})), &operator(), &reason, None).await.unwrap_err());
    assert_refused(&jobs.dry_run(&rebuild(json!({}))).await.unwrap_err());
    assert_refused(&jobs.dry_run(&promote).await.unwrap_err());
    let again = jobs.start(&rebuild_search_index, &operator(), &reason, Some("k")).await.unwrap();
    assert!(again.is_replayed && again.id == first.id);
    let rebuild_read_model = rebuild(json!({ "projections": ["read_model"] }));
    jobs.start(&rebuild_read_model, &operator(), &reason, None).await.unwrap();
    system.run_until_ended(first.id).await;
    jobs.start(&rebuild_search_index, &operator(), &reason, None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_without_names_is_recorded_with_them_and_found_by_its_key() {
    let system = System::sqlite().await;
    let (jobs, reason) = (system.jobs(), Reason::parse("a test").unwrap());
    let options = json!({ "projections": ["read_model"], "accept_differences": true });
    let rebuild = JobAction::Rebuild(serde_json::from_value(options).unwrap());
    let requested = jobs.start(&rebuild, &operator(), &reason, None).await.unwrap();
    system.run_until_ended(requested.id).await;
    let roll_back = JobAction::RollBack(SwitchOverRequest::default());
    let first = jobs.start(&roll_back, &operator(), &reason, Some("k")).await.unwrap();
    let job = jobs.get(first.id).await.unwrap().unwrap();
    assert_eq!(job.options, json!({ "projections": ["read_model"] }));
    system.run_until_ended(first.id).await;
    // Now there is nothing to roll back to.
    let again = jobs.start(&roll_back, &operator(), &reason, Some("k")).await.unwrap();
    assert!(again.is_replayed && again.id == first.id);
    assert!(jobs.start(&roll_back, &operator(), &reason, None).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_warns_that_a_generation_would_first_be_built() {
    let system = System::sqlite().await;
    let promoted = ProjectionsPromoted { generations: second_read_model(), reason: "a test".to_owned() };
    system.record(None, promoted).await;
    let planned = system.jobs().dry_run(&JobAction::RollBack(SwitchOverRequest::default())).await.unwrap();
    let warning = &planned.diagnostics[0].message;
    assert!(warning.starts_with("there is nothing of read_model 1 at "), "{warning}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_without_names_is_refused_while_a_job_may_change_what_it_means() {
    let system = System::sqlite().await;
    let (jobs, reason) = (system.jobs(), Reason::parse("a test").unwrap());
    let promoted = ProjectionsPromoted { generations: second_read_model(), reason: "a test".to_owned() };
    system.record(None, promoted).await;
    // Before the end of this job, a rollback would mean the read model, and afterwards the search index.
    let rebuild =
        JobAction::Rebuild(serde_json::from_value(json!({ "projections": ["search_index"] })).unwrap());
    let first = jobs.start(&rebuild, &operator(), &reason, None).await.unwrap();
    let roll_back = JobAction::RollBack(SwitchOverRequest::default());
    let refused = jobs.start(&roll_back, &operator(), &reason, None).await.unwrap_err().to_string();
    assert!(refused.contains(&first.id.to_string()), "{refused}");
    let read_model = json!({ "projections": ["read_model"] });
    let roll_back = JobAction::RollBack(serde_json::from_value(read_model).unwrap());
    jobs.start(&roll_back, &operator(), &reason, None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_over_without_names_replaces_no_dropped_generation_by_another_one() {
    let generations = |number| {
        vec![ProjectionGeneration { projection: ProjectionName::ReadModel, generation: Generation(number) }]
    };
    let reason = || "a test".to_owned();
    let promoted = |number| ProjectionsPromoted { generations: generations(number), reason: reason() };
    let rolled_back = |number| ProjectionsRolledBack { generations: generations(number), reason: reason() };
    let dropped = |number| ProjectionsDropped { generations: generations(number), reason: reason() };
    let system = System::sqlite().await;
    let planned = async |direction| plan(&system.projections, direction, None).await;
    for number in [2, 3, 4] {
        system.record(None, promoted(number)).await;
    }
    let back = planned(SwitchDirection::RollBack).await.unwrap();
    assert_eq!(back.to[0].generation, Generation(3));
    system.record(None, dropped(3)).await;
    let refused = planned(SwitchDirection::RollBack).await.unwrap_err().to_string();
    assert!(refused.contains("was dropped") && refused.contains("read_model 2 would be live"), "{refused}");

    system.record(None, rolled_back(2)).await;
    system.record(None, rolled_back(1)).await;
    let again = planned(SwitchDirection::Promote).await.unwrap();
    assert_eq!(again.to[0].generation, Generation(2), "not the one that was live before the last rollback");
    system.record(None, dropped(2)).await;
    let refused = planned(SwitchDirection::Promote).await.unwrap_err().to_string();
    assert!(refused.contains("was dropped") && refused.contains("read_model 4 would be live"), "{refused}");
}

/// Polls a command until it has read which generations are live.
async fn begin(command: Pin<&mut impl Future>, progress: &watch::Sender<Progress>) {
    let mut progress = progress.subscribe();
    tokio::select! {
        biased;
        begun = progress.wait_for(|progress| !progress.generations.is_empty()) => assert!(begun.is_ok()),
        _ = command => panic!("the command has ended before it worked on a generation"),
    }
}

/// Runs two commands at once: neither makes a generation live before the other has read which generations are live.
/// Returns the errors.
async fn errors_of_both<T>(
    first: impl Future<Output = Result<T, ProjectionsError>>,
    second: impl Future<Output = Result<T, ProjectionsError>>,
    progress: &[watch::Sender<Progress>; 2],
) -> Vec<String> {
    let (mut first, mut second) = (pin!(first), pin!(second));
    begin(first.as_mut(), &progress[0]).await;
    begin(second.as_mut(), &progress[1]).await;
    let (first, second) = tokio::join!(first, second);
    [first, second].into_iter().filter_map(Result::err).map(|error| error.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_rebuilds_or_rollbacks_at_once_one_fails() {
    let system = System::sqlite().await;
    let options = RebuildOptions {
        names: vec![ProjectionName::ReadModel],
        from_scratch: false,
        until: None,
        // There is no live generation to compare with.
        accept_differences: true,
    };
    let new_progress = || [(); 2].map(|()| watch::channel(Progress::new()).0);
    let (progress, cancel, operator) = (new_progress(), watch::channel(false).1, operator());
    let run = |command: usize| {
        let (reason, progress) = ("a test".to_owned(), &progress[command]);
        rebuild(&system.projections, &operator, reason, &options, progress, &cancel)
    };
    let failed = errors_of_both(Box::pin(run(0)), Box::pin(run(1)), &progress).await;
    assert!(failed.len() == 1 && failed[0].contains("is live already"), "{failed:?}");
    let promoted = system.types().await.into_iter().filter(|name| name == "ProjectionsPromoted");
    assert_eq!(promoted.count(), 1);

    // After another rebuild, there is a generation to roll back to.
    run(0).await.unwrap();
    let (progress, names) = (new_progress(), Some(&[ProjectionName::ReadModel][..]));
    let run = |command: usize| {
        let (reason, direction, progress) =
            ("a test".to_owned(), SwitchDirection::RollBack, &progress[command]);
        switch_over(&system.projections, &operator, reason, direction, names, progress, &cancel)
    };
    let failed = errors_of_both(Box::pin(run(0)), Box::pin(run(1)), &progress).await;
    assert!(failed.len() == 1 && failed[0].contains("is live already"), "{failed:?}");
    let rolled_back = system.types().await.into_iter().filter(|name| name == "ProjectionsRolledBack");
    assert_eq!(rolled_back.count(), 1);
}
