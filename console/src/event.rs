//! One event: its payload and metadata, its neighbours, what caused it and what it caused, and what it changed.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::{Path, State};
use chat_domain::StreamId;
use chat_operations::audit::{
    AffectedProjection, AuditedEvent, Effect, EntityEffect, EventSelector, SubjectKind, SubjectName,
    event_effects, find_event, show as show_event,
};
use serde_json::value::RawValue;

use crate::app_address::{app_path, position_of};
use crate::console::{Console, MAX_SCANNED_EVENTS};
use crate::event_view::{EventRow, ReferenceRow};
use crate::page::{ConsoleError, Page, PageResult, Section, render};
use crate::session::Session;

/// A field of a payload or of metadata.
pub(crate) struct FieldRow {
    pub(crate) name: String,
    pub(crate) value: String,
    /// Whether the value is a text that people wrote, and not a number or JSON.
    pub(crate) is_text: bool,
}

/// A row or document that an event changed.
struct EffectRow {
    projection: &'static str,
    subject: String,
    page: Option<String>,
    effect: &'static str,
    fields: String,
    current_fields: String,
}

#[derive(Template)]
#[template(path = "event.html")]
struct EventPageTemplate {
    page: Page,
    event: EventRow,
    id: String,
    revision: u64,
    schema_version: String,
    payload: Vec<FieldRow>,
    metadata: Vec<FieldRow>,
    raw_payload: String,
    payload_bytes: u64,
    raw_metadata: String,
    correlation: Option<String>,
    previous: Option<ReferenceRow>,
    following: Option<ReferenceRow>,
    caused_by: Vec<ReferenceRow>,
    caused: Vec<ReferenceRow>,
    effects: Vec<EffectRow>,
    dead_letter: Option<String>,
}

/// `GET /console/events/{event}`: by position or id.
pub(crate) async fn show(
    session: Session,
    State(console): State<Console>,
    Path(event): Path<String>,
) -> PageResult {
    let missing = || ConsoleError::not_found("No event has this position or id.");
    let selector = EventSelector::parse(&event).ok_or_else(missing)?;
    let unavailable = |error| ConsoleError::unavailable(&error);
    let permit = console.acquire_scan_permit().await?;
    let found = find_event(console.log(), selector, MAX_SCANNED_EVENTS).await.map_err(unavailable)?;
    let event = found.ok_or_else(missing)?;
    let shown = show_event(console.log(), &event).await.map_err(unavailable)?;
    let effects = event_effects(console.log(), &event).await.map_err(unavailable)?;
    drop(permit);
    let row = EventRow::of(&console, &shown.event).await?;
    let reference = async |event: &Option<_>| match event {
        Some(event) => ReferenceRow::of(&console, event).await.map(Some),
        None => Ok(None),
    };
    let mut effect_rows = Vec::new();
    for effect in &effects.effects {
        effect_rows.push(effect_row(&console, effect, &shown.event).await?);
    }
    let metadata = shown.event.parsed_metadata();
    let correlation = metadata.map(|metadata| metadata.correlation_id).filter(|id| !id.is_empty());
    let title = format!("{} at {}", row.event_type, row.position);
    let template = EventPageTemplate {
        page: Page::new(Section::Events, title, &session),
        id: shown.event.id.uuid().to_string(),
        revision: shown.event.revision.get(),
        schema_version: shown.event.schema_version.0.to_string(),
        payload: fields(shown.event.data.as_deref()),
        metadata: fields(shown.event.metadata.as_deref()),
        payload_bytes: event.data.len() as u64,
        raw_payload: raw(shown.event.data.as_deref(), shown.event.data_base64.as_deref()),
        raw_metadata: raw(shown.event.metadata.as_deref(), shown.event.metadata_base64.as_deref()),
        correlation,
        previous: reference(&shown.previous).await?,
        following: reference(&shown.following).await?,
        caused_by: ReferenceRow::all(&console, &shown.caused_by).await?,
        caused: ReferenceRow::all(&console, &shown.caused).await?,
        effects: effect_rows,
        dead_letter: effects.parked_because,
        event: row,
    };
    render(&template)
}

async fn effect_row(
    console: &Console,
    effect: &EntityEffect,
    event: &AuditedEvent,
) -> Result<EffectRow, ConsoleError> {
    let SubjectName { kind, chat_number, message_number, .. } = effect.subject;
    let (chat, message) = (chat_number.unwrap_or_default(), message_number.unwrap_or_default());
    let subject = match kind {
        SubjectKind::App => "the app".to_owned(),
        SubjectKind::Chat => format!("chat {chat}"),
        SubjectKind::Message => format!("message {message} of chat {chat}"),
    };
    let app = match StreamId::parse(&event.stream) {
        Ok(stream) => {
            position_of(console, *stream.app()).await.map_err(|error| ConsoleError::unavailable(&error))?
        }
        Err(_) => None,
    };
    let page = app.map(app_path).map(|app| match kind {
        SubjectKind::App => app,
        SubjectKind::Chat => format!("{app}/chats/{chat}"),
        SubjectKind::Message => format!("{app}/chats/{chat}/messages/{message}"),
    });
    Ok(EffectRow {
        projection: match effect.projection {
            AffectedProjection::ReadModel => "read model",
            AffectedProjection::SearchIndex => "search index",
        },
        subject,
        page,
        effect: match effect.effect {
            Effect::Created => "created",
            Effect::Changed => "changed",
            Effect::Removed => "removed",
        },
        fields: effect.fields.join(", "),
        current_fields: effect.current_fields.join(", "),
    })
}

/// The fields of a JSON object; none if it is not an object.
fn fields(json: Option<&RawValue>) -> Vec<FieldRow> {
    let parsed: Option<BTreeMap<String, Box<RawValue>>> =
        json.and_then(|json| serde_json::from_str(json.get()).ok());
    let rows = parsed.unwrap_or_default().into_iter().map(|(name, value)| {
        match serde_json::from_str::<String>(value.get()) {
            Ok(text) => FieldRow { name, value: text, is_text: true },
            Err(_) => FieldRow { name, value: value.get().to_owned(), is_text: false },
        }
    });
    rows.collect()
}

/// JSON as it is stored, or else its bytes in base64.
fn raw(json: Option<&RawValue>, base64: Option<&str>) -> String {
    json.map(|json| json.get().to_owned()).or_else(|| base64.map(str::to_owned)).unwrap_or_default()
}
