//! The page of one event: its payload and metadata, its neighbours in the stream, other events of its trace, and its
//! effects on rows and documents.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::{Path, State};
use chat_domain::{Metadata, Sender, StreamId};
use chat_operations::audit::{
    AffectedProjection, AuditedEvent, Effect, EntityEffect, EventSelector, SubjectKind, SubjectName,
    event_effects, find_event, show as show_event,
};
use serde_json::value::RawValue;

use crate::app_address::{app_path, creation_position};
use crate::console::{Console, MAX_SCANNED_EVENTS};
use crate::event_view::{EventRow, ReferenceRow, shortened_stream};
use crate::page::{ConsoleError, Page, PageResult, Section, render};
use crate::session::Session;
use crate::text;

/// A field of a payload or of metadata.
pub(crate) struct FieldRow {
    pub(crate) name: String,
    pub(crate) value: String,
    /// Whether the value is a text, and not a number or JSON.
    pub(crate) is_text: bool,
}

/// A row or document that an event changed.
struct EffectRow {
    projection: &'static str,
    subject: String,
    /// The path of the subject's page.
    page: Option<String>,
    effect: &'static str,
    /// The names of the fields that the event set.
    fields: String,
    /// The names of those fields that no later event has set.
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
    /// The correlation id.
    correlation: Option<String>,
    /// The id of the request that caused the event.
    request: Option<String>,
    /// The event before this one in the stream.
    previous: Option<ReferenceRow>,
    /// The event after this one in the stream.
    following: Option<ReferenceRow>,
    /// Earlier events of the same correlation id.
    caused_by: Vec<ReferenceRow>,
    /// Later events of the same correlation id.
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
    let event = found.ok_or_else(|| match selector {
        // Engines without contiguous positions have no index of ids either.
        EventSelector::Id(_) if !console.log().has_contiguous_positions() => ConsoleError::not_found(format!(
            "No event with this id is among the newest {}, the only ones that are searched by id. Use its position.",
            text::number(MAX_SCANNED_EVENTS)
        )),
        EventSelector::Id(_) | EventSelector::Position(_) => missing(),
    })?;
    let shown = show_event(console.log(), &event).await.map_err(unavailable)?;
    let effects = event_effects(console.log(), &event).await.map_err(unavailable)?;
    drop(permit);
    let row = EventRow::load(&console, &shown.event).await?;
    let reference = async |event: &Option<_>| match event {
        Some(event) => ReferenceRow::load(&console, event).await.map(Some),
        None => Ok(None),
    };
    let mut effect_rows = Vec::new();
    for effect in &effects.effects {
        effect_rows.push(effect_row(&console, effect, &shown.event).await?);
    }
    let metadata = shown.event.parsed_metadata();
    let correlation = metadata.as_ref().map(|metadata| metadata.correlation_id.clone());
    let correlation = correlation.filter(|id| !id.is_empty());
    let title = format!("{} at {}", row.event_type, row.position);
    let template = EventPageTemplate {
        page: Page::new(Section::Events, title, &session),
        id: shown.event.id.uuid().to_string(),
        revision: shown.event.revision.get(),
        schema_version: shown.event.schema_version.0.to_string(),
        payload: payload_fields(shown.event.data.as_deref()),
        metadata: metadata_fields(metadata.as_ref()),
        request: shown.request.filter(|id| !id.is_empty()),
        payload_bytes: event.data.len() as u64,
        raw_payload: String::from_utf8_lossy(&event.data).into_owned(),
        raw_metadata: String::from_utf8_lossy(&event.metadata).into_owned(),
        correlation,
        previous: reference(&shown.previous).await?,
        following: reference(&shown.following).await?,
        caused_by: ReferenceRow::load_all(&console, &shown.caused_by).await?,
        caused: ReferenceRow::load_all(&console, &shown.caused).await?,
        effects: effect_rows,
        dead_letter: effects.dead_letter_reason,
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
    let app_position = match StreamId::parse(&event.stream) {
        Ok(stream) => creation_position(console, *stream.app())
            .await
            .map_err(|error| ConsoleError::unavailable(&error))?,
        Err(_) => None,
    };
    let page = app_position.map(app_path).map(|path| match kind {
        SubjectKind::App => path,
        SubjectKind::Chat => format!("{path}/chats/{chat}"),
        SubjectKind::Message => format!("{path}/chats/{chat}/messages/{message}"),
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

/// The payload's fields that come first, in this order.
const FIRST_FIELDS: [&str; 6] = ["chat_number", "message_number", "name", "body", "sender", "data"];

/// The fields of a payload as pages show them; none if it is not an object.
pub(crate) fn payload_fields(json: Option<&RawValue>) -> Vec<FieldRow> {
    let parsed: Option<BTreeMap<String, Box<RawValue>>> =
        json.and_then(|json| serde_json::from_str(json.get()).ok());
    let mut fields: Vec<_> = parsed.unwrap_or_default().into_iter().collect();
    let rank = |name: &str| FIRST_FIELDS.iter().position(|first| *first == name).unwrap_or(usize::MAX);
    fields.sort_by_key(|(name, _)| rank(name));
    fields.into_iter().map(|(name, value)| payload_field(&name, value.get())).collect()
}

fn payload_field(name: &str, json: &str) -> FieldRow {
    let label = match name {
        "body" => "Text".to_owned(),
        name => text::in_words(name.trim_end_matches("_number")),
    };
    if name == "sender"
        && let Ok(sender) = serde_json::from_str::<Sender>(json)
    {
        let id = sender.id.as_str();
        let value = sender.name.map_or_else(|| id.to_owned(), |name| format!("{} ({id})", name.as_str()));
        return FieldRow { name: label, value, is_text: true };
    }
    match serde_json::from_str::<String>(json) {
        // Payloads of operator actions contain stream names, and a stream name contains an app's token. The page's
        // fields shorten it. Only the stored payload has the whole token.
        Ok(value) => {
            FieldRow { name: label, value: shortened_stream(&value).unwrap_or(value), is_text: true }
        }
        Err(_) => FieldRow { name: label, value: json.to_owned(), is_text: false },
    }
}

/// The metadata fields of the event's actor, client and command.
fn metadata_fields(metadata: Option<&Metadata>) -> Vec<FieldRow> {
    let Some(Metadata { command, actor, .. }) = metadata else { return Vec::new() };
    let fields = [
        ("Actor", Some(text::actor(actor))),
        ("Address", actor.address.clone()),
        ("Client", actor.user_agent.clone()),
        ("Command", Some(command.clone())),
    ];
    let row = |(name, value): (&str, Option<String>)| {
        value.map(|value| FieldRow { name: name.to_owned(), value, is_text: true })
    };
    fields.into_iter().filter_map(row).collect()
}
