//! The dead letters of the live generations, grouped by reason and event type.

use std::collections::BTreeSet;

use askama::Template;
use axum::extract::State;
use chat_domain::Position;
use chat_domain::projection::ProjectionName;
use chat_operations::counted::counted;
use chat_operations::dead_letters::list::{DeadLetterListing, ListOptions, ProjectionDeadLetters, list};
use chat_operations::dead_letters::{DeadLetterState, DeadLetterView, RefusedCommands};
use chat_operations::projections::ProjectionsError;
use chat_ports::dead_letter::BEHIND_DEAD_LETTER;

use crate::badge::Badge;
use crate::console::Console;
use crate::event_view::StreamView;
use crate::field_problem::FieldProblem;
use crate::form::{Form, Query};
use crate::page::{ConsoleError, Page, PageResult, Section, render_form};
use crate::session::Session;
use crate::text::{self, Time};

/// The approximate number of dead letters on a page.
const PAGE_DEAD_LETTERS: usize = 50;

/// The dead letters of a page that have the same reason and type.
struct Group {
    event_type: String,
    reason: String,
    dead_letters: Vec<DeadLetterRow>,
    streams: BTreeSet<String>,
    events: BTreeSet<Position>,
}

impl Group {
    fn new(dead_letter: &DeadLetterView) -> Self {
        Self {
            event_type: dead_letter.event_type.clone(),
            reason: dead_letter.reason.clone(),
            dead_letters: Vec::new(),
            streams: BTreeSet::new(),
            events: BTreeSet::new(),
        }
    }

    /// How many events and streams the group has on this page.
    fn extent(&self) -> String {
        let events = counted(self.events.len() as u64, "event");
        format!("{events} in {}", counted(self.streams.len() as u64, "stream"))
    }

    fn advice(&self) -> &'static str {
        advice(&self.reason)
    }
}

/// A dead letter in a list.
pub(crate) struct DeadLetterRow {
    pub(crate) position: Position,
    pub(crate) projection: ProjectionName,
    pub(crate) state: DeadLetterState,
    pub(crate) stream: StreamView,
    /// The number of later events of the stream that wait behind the dead letter.
    pub(crate) waiting: u64,
    /// When the event became a dead letter.
    pub(crate) since: Option<Time>,
    /// Whether the dead letter is selected in a form that is shown again.
    is_selected: bool,
}

impl DeadLetterRow {
    /// Whether an action on the dead letter is possible.
    fn is_selectable(&self) -> bool {
        matches!(self.state, DeadLetterState::Blocking | DeadLetterState::Discarded)
    }

    async fn load(console: &Console, dead_letter: &DeadLetterView) -> Result<Self, ConsoleError> {
        Ok(Self {
            position: dead_letter.position,
            projection: dead_letter.projection,
            state: dead_letter.state,
            stream: StreamView::load(console, &dead_letter.stream).await?,
            waiting: dead_letter.waiting,
            since: Time::parse(&dead_letter.dead_lettered_at),
            is_selected: false,
        })
    }
}

/// A stream whose commands are refused.
struct RefusedRow {
    /// The position of the dead letter that is the reason.
    position: Position,
    stream: StreamView,
    /// A clause that says which commands are refused.
    commands: &'static str,
}

/// How many dead letters a projection has.
struct CountRow {
    projection: ProjectionName,
    pending: Option<u64>,
    discarded: Option<u64>,
    /// Why the projection can't be read here.
    unreadable: Option<String>,
}

#[derive(Template)]
#[template(path = "dead_letters.html")]
struct DeadLettersPage {
    page: Page,
    counts: Vec<CountRow>,
    refused: Vec<RefusedRow>,
    groups: Vec<Group>,
    projection: Option<ProjectionName>,
    lists_all: bool,
    /// The position that the page begins after.
    after: Position,
    next: Option<String>,
    /// The reason that the operator had entered, if the form is shown again.
    reason: String,
}

/// The filter of a page of dead letters.
struct DeadLetterFilter {
    projection: Option<ProjectionName>,
    lists_all: bool,
    /// The position that the page begins after.
    after: Position,
}

impl DeadLettersPage {
    /// The address of the first page of this list.
    fn first_path(&self) -> String {
        list_path(self.projection, self.lists_all, None)
    }

    /// The address of the list of another projection, or of all projections.
    fn path_of(&self, projection: Option<&ProjectionName>) -> String {
        list_path(projection.copied(), self.lists_all, None)
    }

    /// The address of the list of the dead letters that need attention.
    fn attention_path(&self) -> String {
        list_path(self.projection, false, None)
    }

    /// The address of the list of all dead letters.
    fn all_path(&self) -> String {
        list_path(self.projection, true, None)
    }
}

/// `GET /console/dead-letters`
pub(crate) async fn show(session: Session, State(console): State<Console>, Query(form): Query) -> PageResult {
    let filter = DeadLetterFilter {
        projection: form.given("projection").map(|name| parse_projection(&name)).transpose()?,
        lists_all: form.get("all") == "true",
        after: form.position("after")?.unwrap_or(Position::START),
    };
    dead_letters_page(&session, &console, filter, None).await
}

/// The page of the list with its form again, after the form's selection was refused.
pub(crate) async fn form_page(
    session: &Session,
    console: &Console,
    form: &Form,
    problem: FieldProblem,
) -> PageResult {
    // Hidden fields of the form: the filter of the list that the form was on.
    let filter = DeadLetterFilter {
        projection: form.given("of_projection").map(|name| parse_projection(&name)).transpose()?,
        lists_all: form.get("of_all") == "true",
        after: form.position("after")?.unwrap_or(Position::START),
    };
    dead_letters_page(session, console, filter, Some((form, problem))).await
}

async fn dead_letters_page(
    session: &Session,
    console: &Console,
    filter: DeadLetterFilter,
    returned: Option<(&Form, FieldProblem)>,
) -> PageResult {
    let DeadLetterFilter { projection, lists_all, after } = filter;
    let options = ListOptions {
        projections: projection.map_or_else(|| ProjectionName::ALL.to_vec(), |projection| vec![projection]),
        stream: None,
        all: lists_all,
        after,
        limit: PAGE_DEAD_LETTERS,
    };
    let listing = list(&console.ports.projections, &options).await.map_err(projections_error)?;
    let last = listing.dead_letters.last().filter(|_| listing.more);
    let mut groups = load_groups(console, &listing).await?;
    if let Some((form, _)) = &returned {
        for row in groups.iter_mut().flat_map(|group| &mut group.dead_letters) {
            let value = format!("{}/{}", row.projection.as_str(), row.position);
            row.is_selected = form.all("dead_letter").any(|selected| selected == value);
        }
    }
    let reason = returned.as_ref().map(|(form, _)| form.get("reason").to_owned()).unwrap_or_default();
    let problem = returned.map(|(_, problem)| problem);
    let template = DeadLettersPage {
        page: Page::new(Section::DeadLetters, "Dead letters", session).with_problem(problem.clone()),
        reason,
        counts: listing.projections.iter().map(count_row).collect(),
        refused: refused_rows(console, &listing).await?,
        next: last.map(|last| list_path(projection, lists_all, Some(last.position))),
        groups,
        projection,
        lists_all,
        after,
    };
    render_form(&template, problem.as_ref())
}

/// Parses the name of a projection.
pub(crate) fn parse_projection(name: &str) -> Result<ProjectionName, ConsoleError> {
    let found = ProjectionName::ALL.into_iter().find(|projection| projection.as_str() == name);
    found.ok_or_else(|| {
        ConsoleError::bad_request("`projection` must be `read_model` or `search_index`, or left out.")
    })
}

/// The error page for an error of the projections.
pub(crate) fn projections_error(error: ProjectionsError) -> ConsoleError {
    match error {
        ProjectionsError::NotFound(reason) => ConsoleError::not_found(text::sentence(&reason)),
        error => ConsoleError::unavailable(&error),
    }
}

fn list_path(projection: Option<ProjectionName>, lists_all: bool, after: Option<Position>) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    if let Some(projection) = projection {
        query.append_pair("projection", projection.as_str());
    }
    if lists_all {
        query.append_pair("all", "true");
    }
    if let Some(after) = after {
        query.append_pair("after", &after.to_string());
    }
    match query.finish().as_str() {
        "" => "/console/dead-letters".to_owned(),
        query => format!("/console/dead-letters?{query}"),
    }
}

fn count_row(counts: &ProjectionDeadLetters) -> CountRow {
    CountRow {
        projection: counts.projection,
        pending: counts.pending,
        discarded: counts.discarded,
        unreadable: counts.unreadable.clone(),
    }
}

async fn refused_rows(
    console: &Console,
    listing: &DeadLetterListing,
) -> Result<Vec<RefusedRow>, ConsoleError> {
    let mut rows = Vec::new();
    for dead_letter in &listing.dead_letters {
        let Some(refused) = dead_letter.refused_commands else { continue };
        rows.push(RefusedRow {
            position: dead_letter.position,
            stream: StreamView::load(console, &dead_letter.stream).await?,
            commands: match refused {
                RefusedCommands::All => "all commands are refused",
                RefusedCommands::EditsAndDeletions => "edits and deletions are refused",
            },
        });
    }
    Ok(rows)
}

async fn load_groups(console: &Console, listing: &DeadLetterListing) -> Result<Vec<Group>, ConsoleError> {
    let mut groups: Vec<Group> = Vec::new();
    for dead_letter in &listing.dead_letters {
        let row = DeadLetterRow::load(console, dead_letter).await?;
        let found = groups.iter().position(|group| {
            group.event_type == dead_letter.event_type && group.reason == dead_letter.reason
        });
        let index = found.unwrap_or_else(|| {
            groups.push(Group::new(dead_letter));
            groups.len() - 1
        });
        let group = &mut groups[index];
        group.streams.insert(dead_letter.stream.clone());
        group.events.insert(dead_letter.position);
        group.dead_letters.push(row);
    }
    Ok(groups)
}

/// Returns advice on a dead letter, with the usual cause of its reason if there is one.
pub(crate) fn advice(reason: &str) -> &'static str {
    if reason == BEHIND_DEAD_LETTER {
        "Resolve the dead letter that blocks the stream: the events behind it are then applied."
    } else if reason.starts_with("unknown event type") || reason.starts_with("schema version") {
        "Usual cause: a newer program wrote it. Upgrade the program, then retry."
    } else if reason.starts_with("its payload is") {
        "Usual cause: the stored event is damaged, or another program wrote it. Restore the log from a backup, or discard this event: it stays in the log, and projections pass over it."
    } else {
        "Look at the event and its stream. After a repair of the program, retry."
    }
}

/// The state of a dead letter, as a badge.
pub(crate) fn state_badge(state: DeadLetterState) -> Badge {
    match state {
        DeadLetterState::Blocking => Badge::new("error", "blocks its stream"),
        DeadLetterState::Waiting => Badge::new("warn", "waits behind another"),
        DeadLetterState::Discarded => Badge::new("warn", "discarded, not acknowledged"),
        DeadLetterState::Acknowledged => Badge::new("", "discarded"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_a_list_leaves_out_default_values() {
        let read_model = Some(ProjectionName::ReadModel);
        assert_eq!(list_path(None, false, None), "/console/dead-letters");
        let whole = list_path(read_model, true, Some(Position::new(7)));
        assert_eq!(whole, "/console/dead-letters?projection=read_model&all=true&after=7");
    }
}
