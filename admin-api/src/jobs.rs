//! `GET /jobs`, `/jobs/{id}` and `/jobs/{id}/events`: the jobs that operators requested, and their progress.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use chat_operations::envelope::{Envelope, Report};
use chat_operations::jobs::{Job, JobId, Jobs};
use chat_web::admin_auth::ReadingOperator;
use chat_web::cursor::{Cursor, ListId};
use chat_web::extract::Query;
use chat_web::pagination::next_cursor_header;
use chat_web::{ErrorCode, Problem, openapi, problem_responses};
use futures::{Stream, stream};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::timeout;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::AdminApi;
use crate::api::{EnvelopeResult, StreamAccess, envelope};
use crate::query_params::{parse_cursor, parse_number};

/// The longest silence of a response that follows a job. It is the same for a tail of the log.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);

pub(crate) fn routes() -> OpenApiRouter<AdminApi> {
    OpenApiRouter::new().routes(routes!(list_jobs)).routes(routes!(show_job)).routes(routes!(follow_job))
}

/// The jobs to list.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListParams {
    /// The most jobs on a page, 1 to 1,000.
    #[param(value_type = Option<u64>, minimum = 1, maximum = 1_000, default = 50)]
    limit: Option<String>,
    /// The start of the page: the `Next-Cursor` of the previous page, unchanged.
    cursor: Option<String>,
}

/// A page of jobs.
#[derive(Serialize, ToSchema)]
struct JobList {
    /// The jobs, the newest first, without their reports.
    jobs: Vec<Job>,
}

impl Report for JobList {}

problem_responses!(ListProblems: AdminTokenMissing, AdminTokenWrong, EventStoreUnavailable);

/// List jobs
///
/// The newest first: those that have not ended, and the 500 that ended last.
#[utoipa::path(
    get, path = "/admin/v1/jobs", tag = openapi::JOBS, params(ListParams), security(("admin" = [])),
    responses(
        (status = 200, description = "The jobs", body = Envelope<JobList>, headers(
            ("Next-Cursor" = String, description = "The `cursor` of the next page, if there is one"),
        )),
        ListProblems,
    ),
)]
async fn list_jobs(
    _: ReadingOperator,
    State(api): State<AdminApi>,
    Query(params): Query<ListParams>,
) -> Result<Response, Problem> {
    let list = ListId::new('j', format_args!(""));
    let limit: usize = parse_number("limit", params.limit.as_deref(), 50, 1..=1_000)?;
    let before = parse_cursor(list, params.cursor.as_deref())?;
    let mut jobs = api.jobs.list(before, limit + 1).await?;
    let has_more = jobs.len() > limit;
    jobs.truncate(limit);
    let next_cursor = jobs
        .last()
        .filter(|_| has_more)
        .and_then(|oldest| next_cursor_header(Cursor { list, key: [oldest.position.get()] }));
    Ok((next_cursor, envelope(JobList { jobs })).into_response())
}

problem_responses!(JobProblems: AdminTokenMissing, AdminTokenWrong, JobNotFound, EventStoreUnavailable);

/// Show a job
///
/// Its state, its progress while it runs, and its report after its end. Any process answers, whichever runs the job.
#[utoipa::path(
    get, path = "/admin/v1/jobs/{id}", tag = openapi::JOBS,
    params(("id" = String, Path, description = "The job's id", example = "0199f3a2-5d3c-7c4e-9f6d-2b1a0c9e8f70")),
    security(("admin" = [])),
    responses((status = 200, description = "The job", body = Envelope<Job>), JobProblems),
)]
async fn show_job(
    _: ReadingOperator,
    State(api): State<AdminApi>,
    Path(id): Path<String>,
) -> EnvelopeResult<Job> {
    Ok(envelope(api.find_job(parse_id(&id)?).await?))
}

/// Follow a job
///
/// Server-sent events: each has the job as its `data`, at once and after each change. The stream ends when the job has
/// ended, the server stops or can't read the log, or the operator's token is withdrawn. After 5 seconds of silence, a
/// comment is sent. At most 64 streams of jobs and tails of the log run at a time.
#[utoipa::path(
    get, path = "/admin/v1/jobs/{id}/events", tag = openapi::JOBS,
    params(("id" = String, Path, description = "The job's id", example = "0199f3a2-5d3c-7c4e-9f6d-2b1a0c9e8f70")),
    security(("admin" = [])),
    responses(
        (status = 200, description = "The changes of the job", body = String, content_type = "text/event-stream"),
        JobProblems,
    ),
)]
async fn follow_job(
    ReadingOperator(operator): ReadingOperator,
    State(api): State<AdminApi>,
    Path(id): Path<String>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let id = parse_id(&id)?;
    api.find_job(id).await?;
    let permit = Arc::clone(&api.tail_permits).try_acquire_owned();
    let permit = permit.map_err(|error| Problem::from_code(ErrorCode::Overloaded).caused_by(error))?;
    let access = api.stream_access(operator);
    let follower =
        JobFollower { jobs: api.jobs, id, last_sent: None, access, shutdown: api.shutdown, _permit: permit };
    Ok(Sse::new(stream::unfold(follower, JobFollower::next)))
}

impl AdminApi {
    pub(crate) async fn find_job(&self, id: JobId) -> Result<Job, Problem> {
        self.jobs.get(id).await?.ok_or_else(|| ErrorCode::JobNotFound.into())
    }
}

fn parse_id(id: &str) -> Result<JobId, Problem> {
    JobId::parse(id).ok_or_else(|| ErrorCode::JobNotFound.into())
}

/// Sends a job to a client, at first and after each change.
struct JobFollower {
    jobs: Jobs,
    id: JobId,
    /// The job as it was last sent; `None` before the first event.
    last_sent: Option<Job>,
    access: StreamAccess,
    shutdown: watch::Receiver<bool>,
    _permit: OwnedSemaphorePermit,
}

impl JobFollower {
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        if self.last_sent.as_ref().is_some_and(|job| job.state.is_ended()) {
            return None;
        }
        let change = self.jobs.next_change(self.id, self.last_sent.as_ref());
        let change = tokio::select! {
            biased;
            // An error means that the sender was dropped, so the process is ending.
            _ = self.shutdown.wait_for(|stopping| *stopping) => return None,
            change = timeout(KEEP_ALIVE_INTERVAL, change) => change,
        };
        if self.access.is_withdrawn() {
            return None;
        }
        match change {
            Ok(Ok(Some(job))) => {
                // A job is strings, numbers and JSON, which always serialize.
                let data = serde_json::to_string(&job).ok()?;
                self.last_sent = Some(job);
                Some((Ok(Event::default().event("job").data(data)), self))
            }
            // The job is no longer listed: many others ended after it.
            Ok(Ok(None)) => None,
            Ok(Err(error)) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the stream of a job ends because the log can't be read"
                );
                None
            }
            Err(_) => Some((Ok(Event::default().comment("still here")), self)),
        }
    }
}
