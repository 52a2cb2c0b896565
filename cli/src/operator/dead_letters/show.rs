//! `dead-letters show`

use std::fmt::Write as _;

use chat_domain::Position;
use chat_operations::dead_letters::show::{DeadLetterDetails, StoredEvent, show};
use clap::Args;

use super::shown::{letters, tried};
use super::{Where, note_unreadable};
use crate::failure::Failure;
use crate::operator::answer::Answer;
use crate::operator::projections::failure;
use crate::operator::table::pairs;
use crate::operator::text::escaped;

#[derive(Args)]
pub(crate) struct Options {
    /// The event's position
    position: u64,
    #[command(flatten)]
    pub(super) place: Where,
}

pub(super) async fn run(options: &Options) -> Result<Answer, Failure> {
    let meant = options.place.open().await?;
    let shown = show(&meant.projections, &meant.names, Position::new(options.position)).await;
    let shown = shown.map_err(failure)?;
    Ok(note_unreadable(Answer::new(&shown, text(&shown))?, &meant.unreadable))
}

fn text(shown: &DeadLetterDetails) -> String {
    let mut text = letters(&shown.letters);
    for letter in &shown.letters {
        if let Some(given_up) = &letter.discarded {
            let _ = writeln!(
                text,
                "\n{} gave it up at {} by the act at position {}: {}",
                letter.projection.as_str(),
                given_up.at,
                given_up.by,
                escaped(&given_up.reason)
            );
        }
    }
    text.push('\n');
    match &shown.event {
        Some(event) => text += &stored(event),
        None => text += "The log does not have the event any more.\n",
    }
    text.push('\n');
    match &shown.unreadable {
        Some(reason) => _ = writeln!(text, "This program can't read it: {}", escaped(reason)),
        None => text += "This program can read it.\n",
    }
    for tried_out in &shown.retry {
        text += &tried(tried_out);
    }
    text
}

/// With the stream's name in full: `retry --stream` is to be given it.
fn stored(event: &StoredEvent) -> String {
    pairs(&[
        ("position", event.position.to_string()),
        ("stream", event.stream.clone()),
        ("revision", event.revision.to_string()),
        ("id", event.id.clone()),
        ("event", format!("{}, version {}", event.event_type, event.schema_version)),
        ("recorded", event.recorded_at.clone()),
        ("data", event.data.to_string()),
        ("metadata", event.metadata.to_string()),
    ])
}
