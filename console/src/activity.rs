//! The actions of operators, newest first.

use std::collections::BTreeSet;

use askama::Template;
use axum::extract::State;
use chat_domain::{OperatorAction, Position, operator_action};
use chat_operations::audit::{AuditedEvent, EventFilter};
use chat_operations::jobs::JobId;
use serde_json::Value;

use crate::console::Console;
use crate::event_view::payload_fields;
use crate::events::{Neighbours, find_page};
use crate::form::Query;
use crate::jobs::JobRow;
use crate::operator_action_view::{Concern, job_path};
use crate::page::{ConsoleError, Page, PageResult, Section, render};
use crate::session::Session;
use crate::text::Time;

/// The maximal number of jobs whose titles and states are read. Older jobs are shown without them. Their actions come
/// from the log.
const MAX_JOBS: usize = 500;

/// The actions of a job, newest first, or a single action that belongs to no job.
struct ActionGroup {
    job: Option<JobHead>,
    actions: Vec<ActionRow>,
}

/// The job of a group of actions.
struct JobHead {
    id: String,
    path: String,
    /// The job with its state; `None` if the job is not among the newest [`MAX_JOBS`].
    row: Option<JobRow>,
}

/// An action of an operator.
struct ActionRow {
    position: Position,
    recorded_at: Time,
    event_type: String,
    operator: String,
    /// The program that the operator used.
    program: String,
    concerns: Vec<Concern>,
    reason: String,
    /// Whether this version of the console can decode the action.
    is_known: bool,
    /// The id of the action's job. For an action without a job, the action's own id. `None` if the action does not have
    /// the metadata to tell.
    job: Option<String>,
}

#[derive(Template)]
#[template(path = "activity.html")]
struct ActivityPage {
    page: Page,
    unfinished_jobs: Vec<JobRow>,
    groups: Vec<ActionGroup>,
    /// The positions of the oldest and the newest action of the page.
    range: Option<(Position, Position)>,
    types: &'static [&'static str],
    selected_type: String,
    selected_operator: String,
    newer: Option<String>,
    older: Option<String>,
}

impl ActivityPage {
    fn has_filter(&self) -> bool {
        !self.selected_type.is_empty() || !self.selected_operator.is_empty()
    }
}

/// `GET /console/activity`
pub(crate) async fn show(session: Session, State(console): State<Console>, Query(form): Query) -> PageResult {
    let (before, after) = (form.position("before")?, form.position("after")?);
    let (selected_type, selected_operator) = (form.given("type"), form.given("operator"));
    let filter = EventFilter {
        stream: Some(operator_action::STREAM.into()),
        types: selected_type.iter().cloned().collect(),
        actor: selected_operator.clone(),
        ..EventFilter::default()
    };
    let found = find_page(&console, filter, before, after).await?;
    let mut actions = Vec::with_capacity(found.events.len());
    // The progress of a job is on its own page.
    let is_progress = |event: &AuditedEvent| ["JobStarted", "JobEnded"].contains(&event.event_type.as_str());
    for event in found.events.iter().filter(|event| selected_type.is_some() || !is_progress(event)) {
        actions.push(action_row(&console, event).await?);
    }
    let (selected_type, selected_operator) =
        (selected_type.unwrap_or_default(), selected_operator.unwrap_or_default());
    let href = |bound: &'static str, position: Position| {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, value) in [("operator", &selected_operator), ("type", &selected_type)] {
            if !value.is_empty() {
                query.append_pair(name, value);
            }
        }
        format!("/console/activity?{}", query.append_pair(bound, &position.to_string()).finish())
    };
    let Neighbours { newer, older } = Neighbours::from_page(&found, before, after, href);
    let page = Page::new(Section::Activity, "Activity", &session);
    let types = OperatorAction::TYPES;
    let unfinished_jobs = JobRow::load_unfinished(&console, "").await?;
    let range =
        actions.last().zip(actions.first()).map(|(oldest, newest)| (oldest.position, newest.position));
    let groups = group_by_job(&console, actions).await?;
    render(&ActivityPage {
        page,
        unfinished_jobs,
        groups,
        range,
        types,
        selected_type,
        selected_operator,
        newer,
        older,
    })
}

/// Groups the actions of each job. A group takes the place of its newest action in the list.
async fn group_by_job(console: &Console, actions: Vec<ActionRow>) -> Result<Vec<ActionGroup>, ConsoleError> {
    let jobs = console.ports.jobs.list(None, MAX_JOBS).await;
    let jobs = jobs.map_err(|error| ConsoleError::unavailable(&error))?;
    // Actions of the command line have an id in `ActionRow::job` too, but no job has this id.
    let job_events = actions.iter().filter(|action| action.event_type.starts_with("Job"));
    let ids: BTreeSet<String> = job_events
        .filter_map(|action| action.job.clone())
        .chain(jobs.iter().map(|job| job.id.clone()))
        .collect();
    let mut groups: Vec<ActionGroup> = Vec::new();
    for action in actions {
        let Some(id) = action.job.clone().filter(|id| ids.contains(id)) else {
            groups.push(ActionGroup { job: None, actions: vec![action] });
            continue;
        };
        let same = groups.iter_mut().find(|group| group.job.as_ref().is_some_and(|job| job.id == id));
        if let Some(group) = same {
            group.actions.push(action);
            continue;
        }
        let row = match jobs.iter().find(|job| job.id == id) {
            Some(job) => Some(JobRow::load(console, job).await?),
            None => None,
        };
        let job = JobHead { path: job_path(&id), id, row };
        groups.push(ActionGroup { job: Some(job), actions: vec![action] });
    }
    Ok(groups)
}

async fn action_row(console: &Console, event: &AuditedEvent) -> Result<ActionRow, ConsoleError> {
    let payload = event.data.as_ref().map_or("", |data| data.get());
    let action = OperatorAction::decode(&event.event_type, event.schema_version, payload.as_bytes()).ok();
    let concerns = match &action {
        Some(action) => Concern::load_all(console, event.id, action).await?,
        None => Vec::new(),
    };
    let reason = payload_fields(event).get("reason").and_then(Value::as_str).map(str::to_owned);
    let metadata = event.parsed_metadata().unwrap_or_default();
    let actor = metadata.actor;
    // The correlation id of a job's actions is the job's id, which is the id of the event that requested the job.
    let job = match &action {
        Some(OperatorAction::JobRequested(_)) => Some(event.id.uuid().to_string()),
        _ => JobId::parse(&metadata.correlation_id).map(|job| job.to_string()),
    };
    Ok(ActionRow {
        job,
        position: event.position,
        recorded_at: Time(event.recorded_at),
        event_type: event.event_type.clone(),
        operator: actor.name.unwrap_or_default(),
        program: actor.user_agent.unwrap_or_default(),
        concerns,
        reason: reason.unwrap_or_default(),
        is_known: action.is_some(),
    })
}
