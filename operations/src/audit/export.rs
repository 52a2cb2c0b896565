//! Events for other programs: JSON lines or CSV, written as they are read. Nothing is lost of what can't be read.

use std::io::{self, Write};

use chat_domain::Metadata;
use chat_ports::event_store::{EventStore, EventStoreError, RecordedEvent};
use thiserror::Error;

use super::event::AuditedEvent;
use super::filter::actor_kind_name;
use super::json_line;
use super::scan::Scan;

/// How events are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    /// One JSON object a line.
    JsonLines,
    /// A line of column names, then one line an event (RFC 4180).
    Csv,
}

/// Why an export ended early.
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

/// Writes all that a scan finds; answers how many events that were. `progress` is told how many were looked at.
pub async fn export(
    log: &dyn EventStore,
    mut scan: Scan,
    format: ExportFormat,
    out: &mut (dyn Write + Send),
    mut progress: impl FnMut(u64),
) -> Result<u64, ExportError> {
    let (mut written, mut looked_at) = (0, 0);
    let mut buffer = Vec::new();
    if format == ExportFormat::Csv {
        out.write_all(&csv_line(COLUMNS)?)?;
    }
    while let Some(found) = scan.next_batch(log).await? {
        looked_at += found.scanned_events;
        for event in &found.events {
            match format {
                ExportFormat::JsonLines => json_line::write(&mut buffer, event)?,
                ExportFormat::Csv => buffer.extend(csv_line(csv_columns(event))?),
            }
            out.write_all(&buffer)?;
            buffer.clear();
            written += 1;
        }
        progress(looked_at);
    }
    out.flush()?;
    Ok(written)
}

fn csv_columns(event: &RecordedEvent) -> [String; 18] {
    let audited = AuditedEvent::from(event);
    let metadata: Metadata = audited.parsed_metadata().unwrap_or_default();
    let known = audited.parsed_metadata().is_some();
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
        if known { actor_kind_name(actor.kind).to_owned() } else { String::new() },
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

/// What clients sent (a `User-Agent`, say) must not become a formula in a spreadsheet: such texts get an apostrophe in
/// front. The columns `data` and `metadata` have all of it unchanged.
fn escape_formula(text: String) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text }
}

fn csv_line<const N: usize>(columns: [impl AsRef<[u8]>; N]) -> Result<Vec<u8>, ExportError> {
    let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    writer.write_record(columns).map_err(io::Error::other)?;
    Ok(writer.into_inner().map_err(|error| io::Error::other(error.to_string()))?)
}
