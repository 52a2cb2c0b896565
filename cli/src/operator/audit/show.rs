//! `audit show`: shows one event with its neighbours, its causes and its effects.

use chat_domain::Metadata;
use chat_operations::audit::{self, AuditedEvent, EventReference, EventSelector, ShownEvent, show};
use clap::Args;
use serde_json::Value;
use serde_json::value::RawValue;

use super::super::answer::Answer;
use super::super::table::key_value_lines;
use super::super::terminal_text::escaped;
use super::render;
use crate::failure::Failure;
use crate::operator::common_args::CommonArgs;
use crate::operator::context::{CommandContext, event_store_failure};

/// Arguments of `audit show`.
#[derive(Args)]
pub(crate) struct ShowArgs {
    /// The event's position in the log, or its id
    #[arg(value_name = "POSITION|EVENT_ID", value_parser = parse_event_selector)]
    selector: EventSelector,
    #[command(flatten)]
    pub(super) common: CommonArgs,
}

/// Parses a position or an event id.
pub(super) fn parse_event_selector(text: &str) -> Result<EventSelector, &'static str> {
    EventSelector::parse(text).ok_or("neither a position (a whole number) nor an event id (a UUID)")
}

pub(super) async fn run(arguments: &ShowArgs) -> Result<Answer, Failure> {
    let context = CommandContext::open(&arguments.common).await?;
    let event = find_event(&context, arguments.selector).await?;
    let shown = show(&*context.event_store, &event).await.map_err(event_store_failure)?;
    Answer::from_report(&shown, shown_event_text(&shown))
}

/// Finds an event. Fails if the log does not contain it.
pub(super) async fn find_event(
    context: &CommandContext,
    selector: EventSelector,
) -> Result<chat_ports::event_store::RecordedEvent, Failure> {
    let found =
        audit::find_event(&*context.event_store, selector, u64::MAX).await.map_err(event_store_failure)?;
    match (found, selector) {
        (Some(event), _) => Ok(event),
        (None, EventSelector::Position(position)) => {
            let head = context.event_store.head().await.map_err(event_store_failure)?;
            let hint = if position > head { format!(": the last event is at {head}") } else { String::new() };
            Err(Failure::new(format!("no event is at position {position}{hint}")))
        }
        (None, EventSelector::Id(id)) => Err(Failure::new(format!("no event has the id {}", id.uuid()))),
    }
}

fn shown_event_text(shown: &ShownEvent) -> String {
    let mut text = event_text(&shown.event);
    text.push('\n');
    text.push_str(&neighbours_text(shown));
    for (title, events) in [("Caused by", &shown.caused_by), ("Caused", &shown.caused)] {
        if !events.is_empty() {
            for part in ["\n", title, ", by the same correlation:\n", &render::references_table(events)] {
                text.push_str(part);
            }
        }
    }
    text
}

fn neighbours_text(shown: &ShownEvent) -> String {
    let neighbour = |event: &Option<EventReference>, none: &str| match event {
        Some(event) => render::reference_line(event),
        None => none.to_owned(),
    };
    key_value_lines(&[
        ("before it", neighbour(&shown.previous, "nothing: the stream begins with it")),
        ("after it", neighbour(&shown.following, "nothing yet")),
    ])
}

/// Formats a whole event.
pub(super) fn event_text(event: &AuditedEvent) -> String {
    let mut lines = vec![
        ("position", event.position.to_string()),
        ("id", event.id.uuid().to_string()),
        ("stream", format!("{}, revision {}", render::abbreviated_stream(&event.stream), event.revision)),
        ("type", format!("{}, version {}", escaped(&event.event_type), event.schema_version.0)),
        ("recorded at", event.recorded_at.to_string()),
    ];
    match event.parsed_metadata() {
        Some(metadata) => lines.extend(metadata_lines(&metadata)),
        None => lines.push((
            "metadata",
            stored_json_text(event.metadata.as_deref(), event.metadata_base64.as_deref()),
        )),
    }
    lines.push(("payload", stored_json_text(event.data.as_deref(), event.data_base64.as_deref())));
    if let Some(problem) = &event.problem {
        lines.push(("problem", escaped(problem)));
    }
    key_value_lines(&lines)
}

fn metadata_lines(metadata: &Metadata) -> Vec<(&'static str, String)> {
    let mut lines =
        vec![("command", escaped(&metadata.command)), ("by", render::actor_label(Some(&metadata.actor)))];
    if let (Some(_), Some(address)) = (&metadata.actor.name, &metadata.actor.address) {
        lines.push(("address", escaped(address)));
    }
    if let Some(agent) = &metadata.actor.user_agent {
        lines.push(("user agent", escaped(agent)));
    }
    lines.push(("correlation", escaped(&metadata.correlation_id)));
    lines.push(("request", escaped(&metadata.causation_id)));
    if let Some(idempotency) = &metadata.idempotency {
        lines.push(("idempotency", format!("payload {}", idempotency.fingerprint)));
    }
    lines
}

/// Formats a stored payload or stored metadata: JSON with its texts escaped for a terminal, or the base64 of other
/// bytes.
fn stored_json_text(json: Option<&RawValue>, base64: Option<&str>) -> String {
    match (json, base64) {
        (Some(json), _) => {
            let value: Option<Value> = serde_json::from_str(json.get()).ok();
            escaped(&value.map_or_else(|| json.get().to_owned(), |value| value.to_string()))
        }
        (None, Some(base64)) => format!("no JSON; in base64: {base64}"),
        (None, None) => String::new(),
    }
}
