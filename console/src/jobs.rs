//! The list of jobs, and the page of one job with its progress and its report.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::extract::{Path, State};
use axum::response::sse::{Event as SentEvent, Sse};
use axum::response::{IntoResponse, Response};
use chat_domain::Position;
use chat_domain::projection::ProjectionGeneration;
use chat_operations::jobs::{Job, JobId, JobProgress, JobState};
use chat_operations::proof::checkpoint::Checkpoint;
use chat_ports::clock;
use futures::{Stream, stream};
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::timeout;

use crate::badge::Badge;
use crate::console::Console;
use crate::form::Query;
use crate::operator_action_view::{generation_name, job_path, job_section, job_title};
use crate::page::{ConsoleError, Page, PageResult, Section, render};
use crate::report_view::ReportView;
use crate::session::{Session, session_of};
use crate::text::{self, Time};

/// The number of jobs on a page.
const PAGE_JOBS: usize = 50;

/// The number of newest jobs that are searched for jobs that have not ended.
const NEWEST_JOBS: usize = 100;

/// The longest silence of a job's progress stream: proxies may close idle connections.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// A job in a list.
pub(crate) struct JobRow {
    pub(crate) path: String,
    pub(crate) title: String,
    pub(crate) position: Position,
    pub(crate) state: Badge,
    pub(crate) operator: String,
    pub(crate) reason: String,
    pub(crate) requested_at: Option<Time>,
    pub(crate) progress: ProgressView,
}

impl JobRow {
    pub(crate) async fn load(console: &Console, job: &Job) -> Result<Self, ConsoleError> {
        Ok(Self {
            path: job_path(&job.id),
            title: title(console, job).await?,
            position: job.position,
            state: state_badge(job.state),
            operator: job.operator.clone(),
            reason: job.reason.clone(),
            requested_at: Time::parse(&job.requested_at),
            progress: ProgressView::from_job(job),
        })
    }

    pub(crate) async fn load_all<'a>(
        console: &Console,
        jobs: impl Iterator<Item = &'a Job>,
    ) -> Result<Vec<Self>, ConsoleError> {
        let mut rows = Vec::new();
        for job in jobs {
            rows.push(Self::load(console, job).await?);
        }
        Ok(rows)
    }

    /// Searches the newest jobs for those that wait or run and whose kind begins with `kind_prefix`. Newest first.
    pub(crate) async fn load_unfinished(
        console: &Console,
        kind_prefix: &str,
    ) -> Result<Vec<Self>, ConsoleError> {
        let jobs = console.ports.jobs.list(None, NEWEST_JOBS).await;
        let jobs = jobs.map_err(|error| ConsoleError::unavailable(&error))?;
        let unfinished = jobs.iter().filter(|job| !job.state.is_ended() && job.kind.starts_with(kind_prefix));
        Self::load_all(console, unfinished).await
    }
}

/// The progress of a job.
pub(crate) struct ProgressView {
    pub(crate) phase: String,
    /// The fraction that is done, from 0 to 1 with three decimals; `None` if the total is unknown.
    pub(crate) fraction: Option<String>,
    pub(crate) percent: Option<u64>,
    pub(crate) details: String,
    /// The generations that the job builds: the name, the position reached, and the position to reach.
    pub(crate) generations: Vec<(String, Position, Position)>,
}

impl ProgressView {
    fn from_job(job: &Job) -> Self {
        let waiting = || JobProgress { phase: "waiting for a process".to_owned(), ..JobProgress::default() };
        let progress = job.progress.clone().unwrap_or_else(waiting);
        let (done, total) = (progress.done, progress.total.filter(|total| *total > 0));
        let thousandths = done.zip(total).map(|(done, total)| done.min(total).saturating_mul(1_000) / total);
        let mut details = Vec::new();
        if let Some((done, total)) = done.zip(total) {
            details.push(format!("{} of {}", text::number(done), text::counted(total, "event")));
        }
        if let Some(rate) = progress.events_per_second {
            details.push(format!("{rate:.0} events/s"));
        }
        if let Some(seconds) = progress.seconds_left {
            details.push(format!("{} left", text::duration(seconds.saturating_mul(1_000))));
        }
        let generations = progress.generations.iter().map(|built| {
            let id = ProjectionGeneration { projection: built.projection, generation: built.generation };
            (generation_name(id), built.position, built.head)
        });
        Self {
            phase: progress.phase.clone(),
            fraction: thousandths.map(|done| format!("{}.{:03}", done / 1_000, done % 1_000)),
            percent: thousandths.map(|done| done / 10),
            details: details.join(", "),
            generations: generations.collect(),
        }
    }
}

#[derive(Template)]
#[template(path = "jobs.html")]
struct JobsPage {
    page: Page,
    jobs: Vec<JobRow>,
    /// The position before which the page's jobs were requested; `None` on the page of the newest jobs.
    before: Option<Position>,
    /// The address of the page of older jobs.
    older: Option<String>,
}

#[derive(Template)]
#[template(path = "job.html")]
struct JobPage {
    page: Page,
    title: String,
    job: Job,
    state: Badge,
    progress: ProgressView,
    report: ReportView,
    diagnostics: Vec<String>,
    error: Option<String>,
    requested_at: Option<Time>,
    started_at: Option<Time>,
    ended_at: Option<Time>,
    /// The path of the console section that the job belongs to.
    section_path: &'static str,
    section_title: &'static str,
}

#[derive(Template)]
#[template(path = "job_progress.html")]
struct ProgressFragment {
    progress: ProgressView,
}

/// `GET /console/jobs`
pub(crate) async fn list(session: Session, State(console): State<Console>, Query(form): Query) -> PageResult {
    let before = form.position("before")?;
    let jobs = console.ports.jobs.list(before, PAGE_JOBS + 1).await;
    let jobs = jobs.map_err(|error| ConsoleError::unavailable(&error))?;
    let mut rows = JobRow::load_all(&console, jobs.iter()).await?;
    let has_more = rows.len() > PAGE_JOBS;
    rows.truncate(PAGE_JOBS);
    let oldest = rows.last().filter(|_| has_more);
    let older = oldest.map(|oldest| format!("/console/jobs?before={}", oldest.position));
    render(&JobsPage { page: Page::new(Section::Activity, "Jobs", &session), jobs: rows, before, older })
}

/// `GET /console/jobs/{id}`
pub(crate) async fn show(
    session: Session,
    State(console): State<Console>,
    Path(id): Path<String>,
) -> PageResult {
    let job = find(&console, &id).await?;
    let report = match &job.report {
        Some(report) => ReportView::load(&console, &job.kind, report).await?,
        None => ReportView::default(),
    };
    let diagnostics =
        job.diagnostics.iter().map(|remark| text::sentence(&text::shorten_tokens(&remark.message)));
    let (title, (_, section_path, section_title)) = (title(&console, &job).await?, job_section(&job.kind));
    let time = |text: Option<&String>| text.and_then(|text| Time::parse(text));
    render(&JobPage {
        page: Page::new(Section::Activity, title.clone(), &session),
        title,
        state: state_badge(job.state),
        progress: ProgressView::from_job(&job),
        report,
        diagnostics: diagnostics.collect(),
        error: job.error.as_ref().map(|error| text::sentence(&text::shorten_tokens(error))),
        requested_at: time(Some(&job.requested_at)),
        started_at: time(job.started_at.as_ref()),
        ended_at: time(job.ended_at.as_ref()),
        section_path,
        section_title,
        job,
    })
}

/// `GET /console/jobs/{id}/checkpoint`: the signed checkpoint that a job made, as a file.
pub(crate) async fn checkpoint(
    _: Session,
    State(console): State<Console>,
    Path(id): Path<String>,
) -> PageResult {
    let job = find(&console, &id).await?;
    let note = job.report.as_ref().and_then(|report| report["note"].as_str());
    let note = note.ok_or_else(|| ConsoleError::not_found("The job made no checkpoint."))?;
    // A checkpoint of a newer program may have another format.
    let position = Checkpoint::parse_note(note).map_or(job.position, |checkpoint| checkpoint.position);
    let name = format!("attachment; filename=\"{position}.checkpoint\"");
    let headers = [(CONTENT_TYPE, "text/plain; charset=utf-8".to_owned()), (CONTENT_DISPOSITION, name)];
    Ok((headers, note.to_owned()).into_response())
}

/// `GET /console/jobs/{id}/events`: the progress as server-sent events, each a fragment of HTML. The last one is `end`
/// with the job's state.
pub(crate) async fn follow(
    _: Session,
    State(console): State<Console>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ConsoleError> {
    let id = JobId::parse(&id).ok_or_else(missing)?;
    find(&console, &id.to_string()).await?;
    let Ok(permit) = Arc::clone(&console.tail_permits).try_acquire_owned() else {
        let detail =
            "Too many pages follow the log or jobs at the same time. Reload this page to see the progress.";
        return Err(ConsoleError::new(StatusCode::SERVICE_UNAVAILABLE, "Too many live pages", detail));
    };
    let shutdown = console.shutdown.clone();
    let follower = JobFollower { console, headers, id, seen: None, shutdown, _permit: permit };
    Ok(Sse::new(follower.into_events()).into_response())
}

fn missing() -> ConsoleError {
    ConsoleError::not_found(
        "There is no such job, or 500 other jobs have ended after it. The activity has its events.",
    )
}

async fn find(console: &Console, id: &str) -> Result<Job, ConsoleError> {
    let id = JobId::parse(id).ok_or_else(missing)?;
    let job = console.ports.jobs.get(id).await.map_err(|error| ConsoleError::unavailable(&error))?;
    job.ok_or_else(missing)
}

/// Returns the title of a job, such as `Rebuild: read model and search index`, or
/// `Retry of MessagePinned at position 17: read model`.
async fn title(console: &Console, job: &Job) -> Result<String, ConsoleError> {
    let projections = job.options["projections"].as_array().into_iter().flatten();
    let names: Vec<String> =
        projections.filter_map(Value::as_str).map(|name| name.replace('_', " ")).collect();
    let projections = names.join(" and ");
    if let Some(position) = job.options["position"].as_u64().map(Position::new) {
        let event = console.log().event_at(position).await;
        let event = event.map_err(|error| ConsoleError::unavailable(&error))?;
        let event_type = event.map_or_else(|| "the event".to_owned(), |event| event.event_type);
        let action = match job.kind.as_str() {
            "dead_letters.retry" => "Retry",
            "dead_letters.discard" => "Discard",
            _ => "Acknowledgement of the discard",
        };
        let position = text::number(position.get());
        return Ok(format!("{action} of {event_type} at position {position}: {projections}"));
    }
    let title = job_title(&job.kind);
    Ok(match (names.is_empty(), job.options["generation"].as_u64()) {
        (true, _) => title.to_owned(),
        (false, Some(generation)) => format!("{title}: {projections} {generation}"),
        (false, None) => format!("{title}: {projections}"),
    })
}

/// The state of a job, as a badge.
fn state_badge(state: JobState) -> Badge {
    match state {
        JobState::Waiting => Badge::new("", "waiting"),
        JobState::Running => Badge::new("info", "running"),
        JobState::Ok => Badge::new("ok", "done"),
        JobState::Finding => Badge::new("warn", "ended with findings"),
        JobState::Failed => Badge::new("error", "failed"),
    }
}

/// Follows a job for a page.
struct JobFollower {
    console: Console,
    /// The headers of the request, with the cookie of its session.
    headers: HeaderMap,
    id: JobId,
    /// The job as the page shows it; `None` before the first event.
    seen: Option<Job>,
    shutdown: watch::Receiver<bool>,
    _permit: OwnedSemaphorePermit,
}

impl JobFollower {
    fn into_events(self) -> impl Stream<Item = Result<SentEvent, Infallible>> {
        stream::unfold(self, Self::next)
    }

    async fn next(mut self) -> Option<(Result<SentEvent, Infallible>, Self)> {
        if self.seen.as_ref().is_some_and(|job| job.state.is_ended()) {
            return None;
        }
        let change = self.console.ports.jobs.next_change(self.id, self.seen.as_ref());
        let change = tokio::select! {
            biased;
            // An error means that the sender was dropped, so the process is ending.
            _ = self.shutdown.wait_for(|stopping| *stopping) => return None,
            change = timeout(KEEP_ALIVE_INTERVAL, change) => change,
        };
        // The operator's token may have been withdrawn, or the session may have ended.
        session_of(&self.console.access, &self.headers, clock::now())?;
        let sent = match change {
            Ok(Ok(Some(job))) => {
                let sent = if job.state.is_ended() {
                    SentEvent::default().event("end").data(job.state.as_str())
                } else {
                    let html = ProgressFragment { progress: ProgressView::from_job(&job) }.render().ok()?;
                    SentEvent::default().event("fragment").data(html)
                };
                self.seen = Some(job);
                sent
            }
            Ok(Ok(None)) => return None,
            Ok(Err(error)) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "a live page ends: the log can't be read"
                );
                return None;
            }
            Err(_) => SentEvent::default().comment("still here"),
        };
        Some((Ok(sent), self))
    }
}
