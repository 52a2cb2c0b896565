//! What operators did: their actions, newest first.

use askama::Template;
use axum::extract::{OriginalUri, State};
use chat_domain::{OperatorAction, Position, operator_action};
use chat_operations::audit::{AuditedEvent, EventFilter};
use serde_json::Value;

use crate::console::Console;
use crate::event_view::payload_fields;
use crate::events::{Neighbours, find_page};
use crate::form::Form;
use crate::jobs::JobRow;
use crate::operator_action_view::Concern;
use crate::page::{ConsoleError, Page, PageResult, Section, render};
use crate::session::Session;
use crate::text::Time;

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
    /// Whether this program knows the action.
    is_known: bool,
}

#[derive(Template)]
#[template(path = "activity.html")]
struct ActivityPage {
    page: Page,
    running: Vec<JobRow>,
    actions: Vec<ActionRow>,
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
pub(crate) async fn show(
    session: Session,
    State(console): State<Console>,
    OriginalUri(uri): OriginalUri,
) -> PageResult {
    let form = Form::parse(uri.query().unwrap_or("").as_bytes());
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
    let Neighbours { newer, older } = Neighbours::of(&found, before, after, href);
    let page = Page::new(Section::Activity, "Activity", &session);
    let types = OperatorAction::TYPES;
    let running = JobRow::running(&console, "").await?;
    render(&ActivityPage { page, running, actions, types, selected_type, selected_operator, newer, older })
}

async fn action_row(console: &Console, event: &AuditedEvent) -> Result<ActionRow, ConsoleError> {
    let payload = event.data.as_ref().map_or("", |data| data.get());
    let action = OperatorAction::decode(&event.event_type, event.schema_version, payload.as_bytes()).ok();
    let concerns = match &action {
        Some(action) => Concern::all_of(console, event.id, action).await?,
        None => Vec::new(),
    };
    let reason = payload_fields(event).get("reason").and_then(Value::as_str).map(str::to_owned);
    let actor = event.parsed_metadata().map(|metadata| metadata.actor).unwrap_or_default();
    Ok(ActionRow {
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
