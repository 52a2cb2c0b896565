//! Exports events as JSON lines or CSV, complete even if they can't be decoded.

use std::io::{self, Write};

use chat_ports::event_store::{EventStore, EventStoreError, RecordedEvent};
use thiserror::Error;

use super::event::AuditedEvent;
use super::filter::actor_kind_name;
use super::json_line;
use super::scan::Scan;

/// The format of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    /// One JSON object per line.
    JsonLines,
    /// A header line, then one line per event (RFC 4180).
    Csv,
}

/// Why an export failed.
#[derive(Debug, Error)]
pub enum ExportError {
    /// The log could not be read.
    #[error(transparent)]
    EventStore(#[from] EventStoreError),
    /// The events could not be written.
    #[error("the export can't be written")]
    Write(#[from] io::Error),
    /// An event could not be written as JSON.
    #[error("an event can't be written as JSON")]
    Json(#[from] serde_json::Error),
}

const COLUMNS: [&str; 18] = [
    "position",
    "id",
    "stream",
    "revision",
    "type",
    "schema_version",
    "recorded_at",
    "command",
    "actor_kind",
    "actor_name",
    "actor_address",
    "actor_user_agent",
    "correlation_id",
    "causation_id",
    "data",
    "data_base64",
    "metadata",
    "metadata_base64",
];

/// Writes all events that a scan finds, and returns their number. `on_progress` receives the number of events
/// scanned so far.
pub async fn export(
    log: &dyn EventStore,
    mut scan: Scan,
    format: ExportFormat,
    out: &mut (dyn Write + Send),
    mut on_progress: impl FnMut(u64),
) -> Result<u64, ExportError> {
    let (mut written, mut scanned) = (0, 0);
    let mut buffer = Vec::new();
    if format == ExportFormat::Csv {
        out.write_all(&csv_line(COLUMNS)?)?;
    }
    while let Some(batch) = scan.next_batch(log).await? {
        scanned += batch.scanned_events;
        for event in &batch.events {
            match format {
                ExportFormat::JsonLines => json_line::write(&mut buffer, event)?,
                ExportFormat::Csv => buffer.extend(csv_line(csv_columns(event))?),
            }
            out.write_all(&buffer)?;
            buffer.clear();
            written += 1;
        }
        on_progress(scanned);
    }
    out.flush()?;
    Ok(written)
}

fn csv_columns(event: &RecordedEvent) -> [String; 18] {
    let audited = AuditedEvent::from(event);
    let metadata = audited.parsed_metadata();
    let has_metadata = metadata.is_some();
    let metadata = metadata.unwrap_or_default();
    let actor = metadata.actor;
    let raw = |json: Option<Box<serde_json::value::RawValue>>| json.map(|json| json.get().to_owned());
    [
        audited.position.to_string(),
        audited.id.uuid().to_string(),
        audited.stream,
        audited.revision.to_string(),
        escape_formula(audited.event_type),
        audited.schema_version.0.to_string(),
        audited.recorded_at.to_string(),
        escape_formula(metadata.command),
        if has_metadata { actor_kind_name(actor.kind).to_owned() } else { String::new() },
        escape_formula(actor.name.unwrap_or_default()),
        escape_formula(actor.address.unwrap_or_default()),
        escape_formula(actor.user_agent.unwrap_or_default()),
        escape_formula(metadata.correlation_id),
        escape_formula(metadata.causation_id),
        raw(audited.data).unwrap_or_default(),
        audited.data_base64.unwrap_or_default(),
        raw(audited.metadata).unwrap_or_default(),
        audited.metadata_base64.unwrap_or_default(),
    ]
}

/// Puts an apostrophe in front of a text that a spreadsheet would interpret as a formula. Clients choose some texts,
/// such as the user agent, so a text may be an attack. The column `metadata` has the same texts without the
/// apostrophe, except for the event type, which is not in the metadata. Base64 is not escaped: it may begin with `+`,
/// but can't call a function.
fn escape_formula(text: String) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text }
}

fn csv_line<const N: usize>(columns: [impl AsRef<[u8]>; N]) -> Result<Vec<u8>, ExportError> {
    let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    writer.write_record(columns).map_err(io::Error::other)?;
    Ok(writer.into_inner().map_err(|error| io::Error::other(error.to_string()))?)
}
