//! Text output of events.

use chat_domain::{Actor, operator_action};
use chat_operations::audit::filter::actor_kind_name;
use chat_operations::audit::{AuditedEvent, EventReference, FieldValue};
use serde_json::Value;

use super::super::table::{Column, Table, table, table_parts};
use super::super::terminal_text::{escaped, quoted, truncated};

pub(super) use super::super::terminal_text::{abbreviated_stream, abbreviated_token};

/// Maximum width of an event's type in a table or tree.
const MAX_TYPE_COLUMNS: usize = 24;

/// Maximum width of an event on one line. The line fits into 80 columns together with the branches of a tree before it.
const MAX_LINE_COLUMNS: usize = 74;

const POSITION: Column = Column::whole("POSITION");
const RECORDED_AT: Column = Column::whole("RECORDED AT");
const TYPE: Column = Column::shrinkable_to(10, "TYPE");
const STREAM: Column = Column::whole("STREAM");

/// Formats events as a table.
pub(super) fn events_table(events: &[AuditedEvent]) -> String {
    let Table { headings, rows } = events_table_parts(events);
    headings + &rows
}

/// Formats events as a table, with the headings apart.
pub(super) fn events_table_parts(events: &[AuditedEvent]) -> Table {
    let row = |event: &AuditedEvent| {
        let [position, recorded_at, event_type, stream] = event_cells(event);
        let actor = actor_label(event.parsed_metadata().map(|metadata| metadata.actor).as_ref());
        [position, recorded_at, event_type, stream, format!("{actor}: {}", summary(event))]
    };
    let rows: Vec<[String; 5]> = events.iter().map(row).collect();
    table_parts([POSITION, RECORDED_AT, TYPE, STREAM, Column::whole("BY: WHAT")], &rows)
}

fn event_cells(event: &AuditedEvent) -> [String; 4] {
    [
        event.position.to_string(),
        event.recorded_at.to_string(),
        truncated(&escaped(&event.event_type), MAX_TYPE_COLUMNS),
        abbreviated_stream(&event.stream),
    ]
}

/// Formats an event on one line, without the actor.
pub(super) fn event_line(event: &AuditedEvent) -> String {
    let [position, recorded_at, event_type, stream] = event_cells(event);
    let what = summary(event);
    truncated(&format!("{position} {recorded_at} {event_type} {stream} {what}"), MAX_LINE_COLUMNS)
}

/// Formats references to events as a table.
pub(super) fn references_table(events: &[EventReference]) -> String {
    let rows: Vec<[String; 5]> = events.iter().map(reference_row).collect();
    table([POSITION, RECORDED_AT, TYPE, STREAM, Column::whole("BY")], &rows)
}

fn reference_row(event: &EventReference) -> [String; 5] {
    [
        event.position.to_string(),
        event.recorded_at.to_string(),
        truncated(&escaped(&event.event_type), MAX_TYPE_COLUMNS),
        abbreviated_stream(&event.stream),
        actor_label(event.actor.as_ref()),
    ]
}

/// Formats a reference to an event on one line.
pub(super) fn reference_line(event: &EventReference) -> String {
    let (position, kind, at) = (event.position, escaped(&event.event_type), event.recorded_at);
    format!("{position} {kind} at {at} by {}", actor_label(event.actor.as_ref()))
}

/// Formats the actor, such as `operator alice@ops-1` or `app 10.0.0.7`.
pub(super) fn actor_label(actor: Option<&Actor>) -> String {
    let Some(actor) = actor else { return "?".to_owned() };
    let kind = actor_kind_name(actor.kind);
    match actor.name.as_ref().or(actor.address.as_ref()) {
        Some(name) => format!("{kind} {}", escaped(name)),
        None => kind.to_owned(),
    }
}

/// Summarizes an event's payload.
fn summary(event: &AuditedEvent) -> String {
    if let Some(problem) = &event.problem {
        return format!("can't be read: {}", escaped(problem));
    }
    let payload = event.data.as_ref().map(|data| serde_json::from_str(data.get()));
    let Some(Ok(Value::Object(payload))) = payload else { return String::new() };
    let mut words = Vec::new();
    for (name, value) in &payload {
        match (name.as_str(), value) {
            ("body" | "name", Value::String(text)) => words.push(quoted(text)),
            ("message_number", number) => words.insert(0, format!("message {number}")),
            ("chat_number", number) => words.insert(0, format!("chat {number}")),
            // `copies` is the stored name of an operator action's generations.
            ("copies", Value::Array(generations)) => words.extend(generations.iter().map(generation_label)),
            // After the loop, the reason of an operator action is inserted as the first word.
            ("reason", _) => {}
            (name, Value::String(text)) if event.stream == operator_action::STREAM => {
                words.push(format!("{name} {}", escaped(text)));
            }
            (name, value) => words.push(format!("{} {}", escaped(name), escaped(&value.to_string()))),
        }
    }
    if let Some(Value::String(reason)) = payload.get("reason") {
        words.insert(0, quoted(reason));
    }
    words.join(" ")
}

/// Formats a generation of a projection, such as `read_model/2`.
fn generation_label(generation: &Value) -> String {
    let name = generation["projection"].as_str().unwrap_or("?");
    format!("{}/{}", escaped(name), generation["generation"])
}

/// Formats the value of a field on one line.
pub(super) fn value_text(name: &str, value: &FieldValue) -> String {
    let value = match value {
        FieldValue::Json(value) => value,
        FieldValue::Data(data) => return escaped(data.as_str()),
    };
    match value {
        // Times need no quotes.
        Value::String(text) if name.ends_with("_at") => escaped(text),
        Value::String(token) if name == "app_token" => quoted(&abbreviated_token(token)),
        Value::String(text) => quoted(text),
        Value::Null => "-".to_owned(),
        other => escaped(&other.to_string()),
    }
}
