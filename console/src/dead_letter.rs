//! The page of one dead letter: its event, its state in each projection, and the dry run of a retry.

use askama::Template;
use axum::extract::{Path, State};
use chat_domain::projection::ProjectionName;
use chat_domain::{Metadata, Position, Timestamp};
use chat_operations::dead_letters::dry_run::ResolutionDryRun;
use chat_operations::dead_letters::show::{StoredEvent, show as show_dead_letter};
use chat_operations::dead_letters::{DeadLetterState, DeadLetterView, DiscardView};
use chat_ports::clock;

use crate::console::Console;
use crate::dead_letters::{advice, projections_error};
use crate::event_view::StreamView;
use crate::page::{ConsoleError, Page, PageResult, Section, render};
use crate::session::Session;
use crate::text::{self, Time};

/// The dead letter in one projection.
struct ProjectionRow {
    projection: ProjectionName,
    state: DeadLetterState,
    reason: String,
    advice: &'static str,
    since: Option<Time>,
    /// The number of later events of the stream that wait behind the dead letter.
    waiting: u64,
    discard: Option<DiscardRow>,
}

impl ProjectionRow {
    /// Whether an action on the dead letter is possible.
    fn is_selectable(&self) -> bool {
        matches!(self.state, DeadLetterState::Blocking | DeadLetterState::Discarded)
    }
}

/// A discard: its operator and reason.
struct DiscardRow {
    position: Position,
    operator: String,
    reason: String,
    at: Option<Time>,
    /// The position of the action that acknowledged the discard.
    acknowledged_by: Option<Position>,
}

/// The predicted outcome of a retry of one stream.
pub(crate) struct DryRunRow {
    pub(crate) projection: ProjectionName,
    pub(crate) stream: StreamView,
    /// The number of the stream's dead letters.
    pub(crate) dead_letters: u64,
    /// The number of them that would be applied.
    pub(crate) applied: u64,
    /// The event that would block the stream again, and why.
    pub(crate) stop: Option<(Position, String)>,
    /// Whether the stream was tried up to its end or to `stop`.
    pub(crate) is_complete: bool,
}

impl DryRunRow {
    pub(crate) async fn load_all(
        console: &Console,
        dry_runs: &[ResolutionDryRun],
    ) -> Result<Vec<Self>, ConsoleError> {
        let mut rows = Vec::with_capacity(dry_runs.len());
        for dry_run in dry_runs {
            let stop = dry_run.would_stop.as_ref();
            rows.push(Self {
                projection: dry_run.projection,
                stream: StreamView::load(console, &dry_run.stream).await?,
                dead_letters: dry_run.pending,
                applied: dry_run.would_apply,
                stop: stop.map(|stop| (stop.position, stop.reason.clone())),
                is_complete: dry_run.complete,
            });
        }
        Ok(rows)
    }
}

#[derive(Template)]
#[template(path = "dead_letter.html")]
struct DeadLetterPage {
    page: Page,
    position: Position,
    stream: StreamView,
    event_type: String,
    projections: Vec<ProjectionRow>,
    event: Option<StoredEvent>,
    recorded_at: Option<Time>,
    actor: String,
    payload: String,
    /// Why this program can't decode the event.
    unreadable: Option<String>,
    retry: Vec<DryRunRow>,
    tried_at: Time,
}

impl DeadLetterPage {
    fn is_actionable(&self) -> bool {
        self.projections.iter().any(ProjectionRow::is_selectable)
    }

    /// Whether the event blocks its stream in a projection.
    fn blocks(&self) -> bool {
        self.projections.iter().any(|row| row.state == DeadLetterState::Blocking)
    }

    /// Whether the event was discarded from a projection, and the discard is not acknowledged.
    fn has_discard(&self) -> bool {
        self.projections.iter().any(|row| row.state == DeadLetterState::Discarded)
    }
}

/// `GET /console/dead-letters/{position}`
pub(crate) async fn show(
    session: Session,
    State(console): State<Console>,
    Path(position): Path<String>,
) -> PageResult {
    let missing = || ConsoleError::not_found("No dead letter is at this position.");
    let position = Position::parse(&position).map_err(|_| missing())?;
    let details = show_dead_letter(&console.ports.projections, &ProjectionName::ALL, position).await;
    let details = details.map_err(projections_error)?;
    let first = details.dead_letters.first().ok_or_else(missing)?;
    let (stream, event_type) = (StreamView::load(&console, &first.stream).await?, first.event_type.clone());
    let mut projections = Vec::new();
    for dead_letter in &details.dead_letters {
        projections.push(projection_row(&console, dead_letter).await?);
    }
    let event = details.event;
    let metadata = event.as_ref().map(|event| serde_json::from_value::<Metadata>(event.metadata.clone()));
    let actor = metadata.and_then(Result::ok).map(|metadata| text::actor(&metadata.actor));
    let payload = event.as_ref().map(|event| match event.data.as_str() {
        Some(text) => text.to_owned(),
        None => event.data.to_string(),
    });
    let title = format!("Dead letter at {}", text::number(position.get()));
    render(&DeadLetterPage {
        page: Page::new(Section::DeadLetters, title, &session),
        position,
        stream,
        event_type,
        projections,
        recorded_at: event.as_ref().and_then(|event| Time::parse(&event.recorded_at)),
        actor: actor.unwrap_or_default(),
        payload: payload.unwrap_or_default(),
        event,
        unreadable: details.unreadable,
        retry: DryRunRow::load_all(&console, &details.retry).await?,
        tried_at: Time(clock::now()),
    })
}

async fn projection_row(
    console: &Console,
    dead_letter: &DeadLetterView,
) -> Result<ProjectionRow, ConsoleError> {
    let discard = match &dead_letter.discarded {
        Some(discarded) => Some(discard_row(console, discarded).await?),
        None => None,
    };
    Ok(ProjectionRow {
        projection: dead_letter.projection,
        state: dead_letter.state,
        reason: dead_letter.reason.clone(),
        advice: advice(&dead_letter.reason),
        since: Time::parse(&dead_letter.dead_lettered_at),
        waiting: dead_letter.waiting,
        discard,
    })
}

async fn discard_row(console: &Console, discarded: &DiscardView) -> Result<DiscardRow, ConsoleError> {
    let action = console.log().event_at(discarded.by).await;
    let action = action.map_err(|error| ConsoleError::unavailable(&error))?;
    let metadata = action.and_then(|action| serde_json::from_slice::<Metadata>(&action.metadata).ok());
    Ok(DiscardRow {
        position: discarded.by,
        operator: metadata.and_then(|metadata| metadata.actor.name).unwrap_or_default(),
        reason: discarded.reason.clone(),
        at: Timestamp::parse_rfc3339(&discarded.at).map(Time),
        acknowledged_by: discarded.acknowledged_by,
    })
}
