//! The dead letters of an app's or a chat's stream, with the chats and messages that their events name.

use chat_domain::Position;
use chat_ports::dead_letter::{DeadLetterFilter, DeadLetterQuery};
use chat_ports::event_store::{ReadStart, StreamRead};
use serde_json::Value;

use crate::console::Console;
use crate::page::ConsoleError;
use crate::text::Time;

/// The dead letters of a stream that a page reads. Each needs a read of its event.
const MAX_DEAD_LETTERS: usize = 100;

/// A dead letter of the read model.
pub(crate) struct StreamDeadLetter {
    pub(crate) position: Position,
    pub(crate) event_type: String,
    /// Why the read model could not apply it.
    pub(crate) reason: String,
    pub(crate) discard: Option<StreamDiscard>,
    /// The chat or the message that the event names.
    pub(crate) number: Option<u64>,
}

/// How a dead letter was discarded.
#[derive(Clone)]
pub(crate) struct StreamDiscard {
    /// The position of the operator action.
    pub(crate) by: Position,
    pub(crate) at: Time,
    pub(crate) reason: String,
}

/// The dead letters of a stream, oldest first. `field` is the payload's field of the number.
pub(crate) async fn dead_letters_of(
    console: &Console,
    stream: &str,
    field: &str,
) -> Result<Vec<StreamDeadLetter>, ConsoleError> {
    let query = DeadLetterQuery {
        after: Position::START,
        limit: MAX_DEAD_LETTERS,
        filter: DeadLetterFilter::All,
        stream: Some(stream.to_owned()),
    };
    let page = console.read_model().dead_letter_page(query).await;
    let page = page.map_err(|error| ConsoleError::unavailable(&error))?;
    let mut dead_letters = Vec::with_capacity(page.dead_letters.len());
    for listed in page.dead_letters {
        let dead_letter = listed.dead_letter;
        let read = StreamRead::all(stream, ReadStart::Forwards(dead_letter.revision), 1);
        let event = console.log().read_stream(read).await;
        let event = event.map_err(|error| ConsoleError::unavailable(&error))?.pop();
        let payload = event.and_then(|event| serde_json::from_slice::<Value>(&event.data).ok());
        dead_letters.push(StreamDeadLetter {
            position: dead_letter.position,
            event_type: dead_letter.event_type,
            reason: dead_letter.reason,
            discard: dead_letter.discarded.map(|record| StreamDiscard {
                by: record.by,
                at: Time(record.at),
                reason: record.reason,
            }),
            number: payload.and_then(|payload| payload[field].as_u64()),
        });
    }
    Ok(dead_letters)
}
