//! `dead-letters show`: shows one dead letter with its stored event and what a retry would do.

use std::fmt::Write as _;

use chat_domain::Position;
use chat_operations::dead_letters::show::{DeadLetterDetails, StoredEvent, show};
use clap::Args;

use super::render::{dead_letters_table, dry_run_text};
use super::scope::{ScopeArgs, warn_of_unreadable_projections};
use crate::failure::Failure;
use crate::operator::answer::Answer;
use crate::operator::projections::common::projections_failure;
use crate::operator::server::ReadServerArgs;
use crate::operator::table::key_value_lines;
use crate::operator::terminal_text::{abbreviated_stream, escaped};

#[derive(Args)]
pub(crate) struct Options {
    /// The event's position
    position: u64,
    #[command(flatten)]
    server: ReadServerArgs,
    #[command(flatten)]
    pub(super) scope: ScopeArgs,
}

pub(super) async fn run(options: &Options) -> Result<Answer, Failure> {
    if let Some(server) = options.server.connect() {
        if options.scope.names().len() == 1 {
            return Err(Failure::new("with --server, show has no --projection: it shows both projections"));
        }
        return server?.read(&format!("dead-letters/{}", options.position), details_text).await;
    }
    let scope = options.scope.open().await?;
    let shown = show(&scope.projections, &scope.names, Position::new(options.position)).await;
    let shown = shown.map_err(projections_failure)?;
    let answer = Answer::new(&shown, details_text(&shown))?.with_finding(shown.has_findings());
    Ok(warn_of_unreadable_projections(answer, &scope.unreadable))
}

fn details_text(shown: &DeadLetterDetails) -> String {
    let mut text = dead_letters_table(&shown.dead_letters);
    for dead_letter in &shown.dead_letters {
        if let Some(discard) = &dead_letter.discarded {
            let _ = writeln!(
                text,
                "\n{} discarded it at {} by the operator action at position {}: {}",
                dead_letter.projection.as_str(),
                discard.at,
                discard.by,
                escaped(&discard.reason)
            );
        }
    }
    text.push('\n');
    match &shown.event {
        Some(event) => text += &stored_event_text(event),
        None => text += "The log no longer has the event.\n",
    }
    text.push('\n');
    match &shown.unreadable {
        Some(reason) => _ = writeln!(text, "This program can't read it: {}", escaped(reason)),
        None => text += "This program can read it.\n",
    }
    for dry_run in &shown.retry {
        text += &dry_run_text(dry_run);
    }
    text
}

/// Formats the stored event, with the abbreviated name of its stream, which `retry --stream` accepts.
fn stored_event_text(event: &StoredEvent) -> String {
    key_value_lines(&[
        ("position", event.position.to_string()),
        ("stream", abbreviated_stream(&event.stream)),
        ("revision", event.revision.to_string()),
        ("id", event.id.clone()),
        ("event", format!("{}, version {}", event.event_type, event.schema_version)),
        ("recorded", event.recorded_at.clone()),
        ("data", event.data.to_string()),
        ("metadata", event.metadata.to_string()),
    ])
}
