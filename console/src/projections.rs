//! The generations of the projections, with the actions on them.

use askama::Template;
use axum::extract::State;
use chat_domain::projection::{Generation, ProjectionGeneration, ProjectionName};
use chat_domain::{OperatorAction, Position, operator_action};
use chat_operations::projections::list::{ListedGeneration, ListedProjectorState, list};
use chat_ports::event_store::{EventTypeFilter, ReadStart, StreamRead};
use chat_projector::generations::{GenerationHistory, GenerationState};

use crate::badge::Badge;
use crate::console::Console;
use crate::dead_letters::projections_error;
use crate::field_problem::FieldProblem;
use crate::jobs::JobRow;
use crate::operator_action_view::{generation_name, projection_title};
use crate::overview::{state_class, state_name};
use crate::page::{ConsoleError, Page, PageResult, Section, render_form};
use crate::session::Session;
use crate::text;

/// The number of newest rebuilds that are read.
const MAX_REBUILDS: usize = 50;

/// A generation in the list.
struct GenerationRow {
    name: String,
    projection: ProjectionName,
    state: Badge,
    projector: Badge,
    position: Option<Position>,
    lag: String,
    rate: String,
    dead_letters: Option<u64>,
    is_live: bool,
    error: Option<String>,
    location: String,
}

/// A projection or a generation that an action can be done on.
struct Choice {
    /// The value of its check box.
    value: String,
    name: String,
    /// Whether it is selected at first.
    is_selected: bool,
}

/// A form for an action on generations.
struct ActionForm {
    /// The kind of action, such as `projections.rebuild`.
    kind: &'static str,
    /// The id of the form on the page.
    id: &'static str,
    title: &'static str,
    /// The effect of the action.
    purpose: &'static str,
    /// The name of the check boxes: `projection` or `generation`.
    field: &'static str,
    choices: Vec<Choice>,
    /// The text that is shown if there is nothing to choose.
    no_choice: &'static str,
    /// An example of a reason.
    example: &'static str,
    /// The reason, if the form is shown again.
    reason: String,
}

#[derive(Template)]
#[template(path = "projections.html")]
struct ProjectionsPage {
    page: Page,
    unfinished_jobs: Vec<JobRow>,
    head: Position,
    generations: Vec<GenerationRow>,
    forms: Vec<ActionForm>,
}

/// `GET /console/projections`
pub(crate) async fn show(session: Session, State(console): State<Console>) -> PageResult {
    projections_page(&session, &console, "", None).await
}

/// Renders the page. If the selection in a form was refused, `problem` names the form, which is shown again with its
/// `reason` and without a selection.
pub(crate) async fn projections_page(
    session: &Session,
    console: &Console,
    reason: &str,
    problem: Option<FieldProblem>,
) -> PageResult {
    let projections = &console.ports.projections;
    let listed = list(projections).await.map_err(projections_error)?;
    let generations = projections.generations().await.map_err(projections_error)?;
    let choices_of = |choose: fn(&GenerationHistory) -> Option<Generation>| {
        let chosen = ProjectionName::ALL.into_iter().filter_map(|projection| {
            let generation = choose(generations.for_projection(projection))?;
            let name = generation_name(ProjectionGeneration { projection, generation });
            Some(Choice { value: projection.as_str().to_owned(), name, is_selected: true })
        });
        chosen.collect()
    };
    let projection_choices = ProjectionName::ALL.map(|projection| Choice {
        value: projection.as_str().to_owned(),
        name: projection_title(projection).to_owned(),
        is_selected: true,
    });
    let droppable = listed.iter().filter(|listed| listed.generation_state != GenerationState::Live);
    let droppable = droppable.map(|listed| Choice {
        value: format!("{}/{}", listed.projection.as_str(), listed.generation.0),
        name: format!("{}, {}", name_of(listed), state_badge(listed.generation_state).text),
        is_selected: listed.generation_state == GenerationState::LeftOver,
    });
    let mut forms = vec![
        ActionForm {
            kind: "projections.rebuild",
            id: "rebuild",
            title: "Rebuild",
            purpose: "Builds new generations beside the live ones, compares them, and promotes them unless rows differ. Clients notice nothing.",
            field: "projection",
            choices: projection_choices.into(),
            no_choice: "",
            example: "chats were counted wrong",
            reason: String::new(),
        },
        ActionForm {
            kind: "projections.promote",
            id: "promote",
            title: "Promote",
            purpose: "Makes built or left-over generations live. Queries move to them in one step.",
            field: "projection",
            choices: choices_of(GenerationHistory::next_promoted),
            no_choice: "There is no generation to promote. A rebuild makes one.",
            example: "the old rows lacked an event",
            reason: String::new(),
        },
        ActionForm {
            kind: "projections.rollback",
            id: "rollback",
            title: "Roll back",
            purpose: "Brings the previous generations up to date, and makes them live again.",
            field: "projection",
            choices: choices_of(GenerationHistory::previous),
            no_choice: "There is no previous generation.",
            example: "hits are missing",
            reason: String::new(),
        },
        ActionForm {
            kind: "projections.drop",
            id: "drop",
            title: "Drop",
            purpose: "Removes generations that are not live, with their data.",
            field: "generation",
            choices: droppable.collect(),
            no_choice: "All generations are live.",
            example: "the new ones have proved good",
            reason: String::new(),
        },
    ];
    if let Some(form) =
        forms.iter_mut().find(|form| problem.as_ref().is_some_and(|refused| refused.field == form.id))
    {
        reason.clone_into(&mut form.reason);
        for choice in &mut form.choices {
            choice.is_selected = false;
        }
    }
    let unfinished_jobs = JobRow::load_unfinished(console, "projections.").await?;
    let starts = rebuild_starts(console).await?;
    let generations =
        listed.iter().map(|listed| generation_row(listed, &starts, !unfinished_jobs.is_empty())).collect();
    let page = ProjectionsPage {
        page: Page::new(Section::Projections, "Projections", session).with_problem(problem.clone()),
        unfinished_jobs,
        head: listed.iter().map(|listed| listed.head).max().unwrap_or_default(),
        generations,
        forms,
    };
    render_form(&page, problem.as_ref())
}

fn name_of(listed: &ListedGeneration) -> String {
    generation_name(ProjectionGeneration { projection: listed.projection, generation: listed.generation })
}

/// The state of a generation, as a badge.
fn state_badge(state: GenerationState) -> Badge {
    match state {
        GenerationState::Live => Badge::new("ok", "live"),
        GenerationState::Previous => Badge::new("", "previous"),
        GenerationState::Building => Badge::new("info", "building"),
        // Rolled back from, live before the previous one, or abandoned while it was built.
        GenerationState::LeftOver => Badge::new("warn", "left over"),
    }
}

/// The positions at which rebuilds of generations were started, newest first.
async fn rebuild_starts(console: &Console) -> Result<Vec<(ProjectionGeneration, Position)>, ConsoleError> {
    let read = StreamRead::all(operator_action::STREAM, ReadStart::End, MAX_REBUILDS)
        .filtered(EventTypeFilter::Only("RebuildStarted"));
    let events = console.log().read_stream(read).await.map_err(|error| ConsoleError::unavailable(&error))?;
    let mut starts = Vec::new();
    for event in events {
        let action = OperatorAction::decode(&event.event_type, event.schema_version, &event.data);
        if let Ok(OperatorAction::RebuildStarted(started)) = action {
            starts.extend(started.generations.into_iter().map(|id| (id, event.position)));
        }
    }
    Ok(starts)
}

/// The state of a generation that no projector builds any more. The generation is built if it has all events that the
/// log had when its rebuild was started. Otherwise its build was interrupted.
fn stopped_build_badge(listed: &ListedGeneration, starts: &[(ProjectionGeneration, Position)]) -> Badge {
    let id = ProjectionGeneration { projection: listed.projection, generation: listed.generation };
    let start = starts.iter().find(|(started, _)| *started == id).map(|(_, start)| *start);
    if start.is_some_and(|start| listed.position.is_some_and(|position| position >= start)) {
        Badge::new("info", "built, not promoted")
    } else {
        Badge::new("warn", "not built to the end")
    }
}

fn generation_row(
    listed: &ListedGeneration,
    starts: &[(ProjectionGeneration, Position)],
    has_unfinished_jobs: bool,
) -> GenerationRow {
    let is_live = listed.generation_state == GenerationState::Live;
    let mut projector = Badge::new(state_class(listed.state), state_name(listed.state));
    if !is_live && projector.class == "error" {
        // Only the live generation needs a projector.
        projector.class = "";
    }
    let lag = match (listed.lag_events, listed.lag_ms) {
        (Some(events), Some(millis)) => format!("{}, {}", text::number(events), text::duration(millis)),
        (None, Some(millis)) => text::duration(millis),
        (_, None) => "unknown".to_owned(),
    };
    GenerationRow {
        name: name_of(listed),
        projection: listed.projection,
        state: match (listed.generation_state, listed.state) {
            (GenerationState::Building, ListedProjectorState::NotRunning) if !has_unfinished_jobs => {
                stopped_build_badge(listed, starts)
            }
            (generation_state, _) => state_badge(generation_state),
        },
        projector,
        position: listed.position,
        lag,
        rate: listed.events_per_second.map_or_else(|| "–".to_owned(), text::number),
        dead_letters: listed.pending_dead_letters,
        is_live,
        error: listed.last_error.as_deref().map(text::shorten_tokens),
        location: listed.location.clone(),
    }
}
