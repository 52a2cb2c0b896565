//! `dead-letters show`

use std::fmt::Write as _;

use chat_domain::Position;
use chat_operations::dead_letters::show::{Shown, Stored, show};
use clap::Args;

use super::shown::{letters, tried};
use super::{Where, note_unreadable};
use crate::failure::Failure;
use crate::operator::answer::Answer;
use crate::operator::projections::failure;

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

fn text(shown: &Shown) -> String {
    let mut text = letters(&shown.letters);
    for letter in &shown.letters {
        if let Some(given_up) = &letter.discarded {
            let _ = writeln!(
                text,
                "\n{} gave it up at {} by the act at position {}: {}",
                letter.projection.as_str(),
                given_up.at,
                given_up.by,
                given_up.reason
            );
        }
    }
    text.push('\n');
    match &shown.event {
        Some(event) => stored(&mut text, event),
        None => text += "The log does not have the event any more.\n",
    }
    text.push('\n');
    match &shown.unreadable {
        Some(reason) => _ = writeln!(text, "This program can't read it: {reason}"),
        None => text += "This program can read it.\n",
    }
    for tried_out in &shown.retry {
        text += &tried(tried_out);
    }
    text
}

fn stored(text: &mut String, event: &Stored) {
    let _ = writeln!(
        text,
        "position    {}\nstream      {}\nrevision    {}\nid          {}\nevent       {}, version {}\n\
         recorded    {}\ndata        {}\nmetadata    {}",
        event.position,
        event.stream,
        event.revision,
        event.id,
        event.event_type,
        event.schema_version,
        event.recorded_at,
        event.data,
        event.metadata
    );
}
