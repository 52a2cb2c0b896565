//! The dead letters of an app's or a chat's stream, with the chats and messages that their events name.

use chat_domain::Position;
use chat_ports::dead_letter::{DeadLetter, DeadLetterFilter, DeadLetterQuery};
use chat_ports::event_store::{ReadStart, StreamRead};
use serde_json::Value;

use crate::console::Console;
use crate::page::ConsoleError;
use crate::text::Time;

/// The number of dead letters that are read at once.
const BATCH_DEAD_LETTERS: usize = 100;

/// A dead letter of the read model.
pub(crate) struct StreamDeadLetter {
    pub(crate) position: Position,
    pub(crate) event_type: String,
    /// Why the read model could not apply it.
    pub(crate) reason: String,
    pub(crate) discard: Option<StreamDiscard>,
    /// The number of the chat or the message that the event names.
    pub(crate) number: Option<u64>,
}

/// How a dead letter was discarded.
#[derive(Clone)]
pub(crate) struct StreamDiscard {
    /// The position of the operator action.
    pub(crate) position: Position,
    pub(crate) at: Time,
    pub(crate) reason: String,
}

/// Those dead letters of a stream that `selected` accepts, oldest first. `field` is the payload's field that has the
/// number of the chat or the message. The caller holds a scan permit, because the event of each dead letter is read.
pub(crate) async fn dead_letters_of(
    console: &Console,
    stream: &str,
    field: &str,
    selected: impl Fn(&DeadLetter) -> bool,
) -> Result<Vec<StreamDeadLetter>, ConsoleError> {
    let read_model = console.read_model();
    let mut dead_letters = Vec::new();
    let mut after = Position::START;
    loop {
        let query = DeadLetterQuery {
            after,
            limit: BATCH_DEAD_LETTERS,
            filter: DeadLetterFilter::All,
            stream: Some(stream.to_owned()),
        };
        let page = read_model.dead_letter_page(query).await;
        let page = page.map_err(|error| ConsoleError::unavailable(&error))?;
        let is_last = page.dead_letters.len() < BATCH_DEAD_LETTERS;
        for listed in page.dead_letters {
            let dead_letter = listed.dead_letter;
            after = dead_letter.position;
            if selected(&dead_letter) {
                dead_letters.push(with_number(console, dead_letter, field).await?);
            }
        }
        if is_last {
            return Ok(dead_letters);
        }
    }
}

/// Reads the number that the event of a dead letter has in `field`.
async fn with_number(
    console: &Console,
    dead_letter: DeadLetter,
    field: &str,
) -> Result<StreamDeadLetter, ConsoleError> {
    let read = StreamRead::all(dead_letter.stream, ReadStart::Forwards(dead_letter.revision), 1);
    let event = console.log().read_stream(read).await;
    let event = event.map_err(|error| ConsoleError::unavailable(&error))?.pop();
    let payload = event.and_then(|event| serde_json::from_slice::<Value>(&event.data).ok());
    Ok(StreamDeadLetter {
        position: dead_letter.position,
        event_type: dead_letter.event_type,
        reason: dead_letter.reason,
        discard: dead_letter.discarded.map(|record| StreamDiscard {
            position: record.by,
            at: Time(record.at),
            reason: record.reason,
        }),
        number: payload.and_then(|payload| payload[field].as_u64()),
    })
}
