//! The page of a chat or a message whose creation event can't be found or decoded, but which dead letters name.

use askama::Template;
use chat_domain::StreamId;
use chat_operations::audit::{EventFilter, ListRequest, Order, Subject, list};
use chat_ports::dead_letter::DeadLetter;
use serde_json::Value;

use crate::console::{Console, MAX_SCANNED_EVENTS};
use crate::event_view::{EventRow, payload_fields};
use crate::page::{ConsoleError, Page, PageResult, Section, render};
use crate::session::Session;
use crate::stream_dead_letters::{StreamDeadLetter, dead_letters_of};
use crate::subject_address::SubjectAddress;

/// The number of newest events of the stream that are searched for events about the subject.
const MAX_READ_EVENTS: usize = 500;

#[derive(Template)]
#[template(path = "lost_subject.html")]
struct LostSubjectPage {
    page: Page,
    address: SubjectAddress,
    /// The dead letters about the subject.
    dead_letters: Vec<StreamDeadLetter>,
    events: Vec<EventRow>,
}

impl LostSubjectPage {
    /// Whether all dead letters about the subject were discarded.
    fn is_discarded(&self) -> bool {
        self.dead_letters.iter().all(|dead_letter| dead_letter.discard.is_some())
    }
}

/// Shows the dead letters and events about a chat or a message whose creation event can't be found or decoded.
/// Returns `missing` if no dead letter is about the subject, and always for an app.
pub(crate) async fn show_lost(
    session: &Session,
    console: &Console,
    address: SubjectAddress,
    missing: ConsoleError,
) -> PageResult {
    let app = address.subject.app();
    let (stream, field, number) = match address.subject {
        Subject::Message(_, chat, message) => {
            (StreamId::Chat(app, chat).to_string(), "message_number", message.get())
        }
        Subject::Chat(_, chat) => (StreamId::App(app).to_string(), "chat_number", chat.get()),
        Subject::App(_) => return Err(missing),
    };
    let permit = console.acquire_scan_permit().await?;
    let every_dead_letter = |_: &DeadLetter| true;
    let mut dead_letters = dead_letters_of(console, &stream, field, every_dead_letter).await?;
    dead_letters.retain(|dead_letter| dead_letter.number == Some(number));
    if dead_letters.is_empty() {
        return Err(missing);
    }
    let filter = EventFilter { stream: Some(stream.into()), ..EventFilter::default() };
    let request = ListRequest {
        filter,
        order: Order::NewestFirst,
        limit: MAX_READ_EVENTS,
        max_scanned_events: MAX_SCANNED_EVENTS,
    };
    let found = list(console.log(), request).await.map_err(|error| ConsoleError::unavailable(&error))?;
    drop(permit);
    let is_number = |value: Option<&Value>| value.and_then(Value::as_u64) == Some(number);
    let events = found.events.into_iter().filter(|event| is_number(payload_fields(event).get(field)));
    let events: Vec<_> = events.collect();
    let events = EventRow::load_all(console, &events).await?;
    let page = Page::new(Section::Apps, address.title(), session);
    render(&LostSubjectPage { page, address, dead_letters, events })
}
