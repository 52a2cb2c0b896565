//! The page of a message: its text, and its versions with their differences.

use std::time::{Duration, Instant};

use askama::Template;
use axum::extract::{Path, State};
use chat_domain::event::MessageCreated;
use chat_domain::{DataChange, Event, Position};
use chat_operations::audit::{Subject, message_versions};
use chat_ports::event_store::{EventStoreError, RecordedEvent, creation_lookup};
use chat_ports::read_model::{MessageRow, Missing};

use crate::agreement::Agreement;
use crate::console::Console;
use crate::form::{Form, Query};
use crate::lost_subject::show_lost;
use crate::message_item::{SenderView, sender_view};
use crate::origin::Origin;
use crate::page::{ConsoleError, Page, PageResult, Section, render_form};
use crate::past_state;
use crate::session::Session;
use crate::subject_address::SubjectAddress;
use crate::text::Time;
use crate::text_difference::{Piece, text_difference};

/// The number of versions on a page.
const PAGE_VERSIONS: usize = 50;

/// The time after which further differences of a page are not computed word by word.
const DIFFERENCES_TIMEOUT: Duration = Duration::from_millis(300);

/// A version of the message: the event that made it, and the difference of its text from the version before.
struct VersionEntry {
    event_type: String,
    position: Position,
    recorded: Time,
    origin: Origin,
    is_deletion: bool,
    pieces: Vec<Piece>,
    /// The data that the event set, or `removed` if the event removed it. `None` if the event left the data as it was.
    data: Option<String>,
}

/// The state of a message in the read model.
enum MessageState {
    Present(MessageRow),
    Deleted,
    /// The read model does not have the message.
    Absent,
}

#[derive(Template)]
#[template(path = "message.html")]
struct MessageTemplate {
    page: Page,
    /// The query string of the request, whose field `at` the form shows again.
    form: Form,
    address: SubjectAddress,
    chat_path: String,
    state: MessageState,
    sender: Option<SenderView>,
    created: Time,
    created_position: Position,
    versions: Vec<VersionEntry>,
    /// Whether the page begins with the newest version.
    is_newest: bool,
    /// The address of the page of older versions.
    older: Option<String>,
    agreement: Agreement,
}

/// `GET /console/apps/{app}/chats/{chat}/messages/{message}`: the message and its versions, newest first. `before`
/// limits the versions to those before a position in the log. With `at`, shows the message's state at a point in the
/// log.
pub(crate) async fn show(
    session: Session,
    State(console): State<Console>,
    Path((app, chat, message)): Path<(String, String, String)>,
    Query(form): Query,
) -> PageResult {
    let address = SubjectAddress::resolve(&console, &[&app, &chat, &message]).await?;
    let Subject::Message(token, chat, number) = address.subject else {
        return Err(ConsoleError::not_found("No message has this address."));
    };
    let problem = match past_state::given_point(&form, "at") {
        Ok(Some(point)) => return past_state::show_state(&session, &console, address, point).await,
        Ok(None) => None,
        Err(problem) => Some(problem),
    };
    let before = form.given("before").map(|before| Position::parse(&before)).transpose();
    let before =
        before.map_err(|_| ConsoleError::bad_request("`before` must be the position of an event."))?;
    let missing = || ConsoleError::not_found(format!("Chat {chat} has no message {number}."));
    let unavailable = |error: EventStoreError| ConsoleError::unavailable(&error);
    let created = creation_lookup::find_message_created(console.log(), token, chat, number).await;
    let created = created.map_err(unavailable)?;
    let decoded = created.as_ref().and_then(|event| event.decode().ok());
    let (Some(created), Some(Event::MessageCreated(payload))) = (created, decoded) else {
        return show_lost(&session, &console, address, missing()).await;
    };
    // One version more than shown, because the oldest shown one is compared with it.
    let found = message_versions(console.log(), (token, chat, number), before, PAGE_VERSIONS + 1).await;
    let found = found.map_err(unavailable)?.ok_or_else(missing)?;
    let has_more = found.events.len() > PAGE_VERSIONS || found.next.is_some();
    let shown = found.events.len().min(PAGE_VERSIONS);
    let older = match found.next {
        _ if found.events.len() > PAGE_VERSIONS => found.events.get(shown - 1).map(|last| last.position),
        next => next,
    };
    let older = older.filter(|_| has_more).map(|before| format!("{}?before={before}", address.path()));
    let versions = tokio::task::spawn_blocking(move || version_entries(&found.events, shown)).await;
    let versions = versions.map_err(|error| ConsoleError::unavailable(&error))?;
    let state = console.read_model().message(token, chat, number).await;
    let state = match state.map_err(|error| ConsoleError::unavailable(&error))?.value {
        Ok(row) => MessageState::Present(row),
        Err(Missing::Deleted) => MessageState::Deleted,
        Err(Missing::App | Missing::Chat | Missing::Message) => MessageState::Absent,
    };
    let chat_path = format!("{}/chats/{chat}", address.app_path());
    let template = MessageTemplate {
        page: Page::new(Section::Apps, address.title(), &session).with_problem(problem.clone()),
        form,
        state,
        sender: payload.sender.as_ref().map(|sender| sender_view(&chat_path, sender)),
        created: Time(created.recorded_at),
        created_position: created.position,
        versions,
        is_newest: before.is_none(),
        older,
        agreement: Agreement::check(&console, address.subject).await,
        address,
        chat_path,
    };
    render_form(&template, problem.as_ref())
}

/// The first `shown` events as versions. Each event is compared with the one after it in `events`, which is older.
fn version_entries(events: &[RecordedEvent], shown: usize) -> Vec<VersionEntry> {
    let began = Instant::now();
    let bodies: Vec<Option<String>> = events.iter().map(body).collect();
    let entry = |(index, event): (usize, &RecordedEvent)| {
        let later = bodies.get(index).cloned().flatten();
        let earlier = bodies.get(index + 1).cloned().flatten();
        let (is_deletion, data) = match event.decode() {
            Ok(Event::MessageDeleted(_)) => (true, None),
            Ok(Event::MessageCreated(MessageCreated { data, .. })) => {
                (false, data.map(|data| data.as_str().to_owned()))
            }
            Ok(Event::MessageEdited(edited)) => (false, data_text(edited.data)),
            _ => (false, None),
        };
        let pieces = match (earlier, later) {
            (Some(earlier), Some(later)) if began.elapsed() < DIFFERENCES_TIMEOUT => {
                text_difference(&earlier, &later)
            }
            (Some(earlier), Some(later)) => vec![Piece::Removed(earlier), Piece::Added(later)],
            (None, Some(later)) => vec![Piece::Same(later)],
            (Some(earlier), None) => vec![Piece::Removed(earlier)],
            (None, None) => Vec::new(),
        };
        VersionEntry {
            event_type: event.event_type.clone(),
            position: event.position,
            recorded: Time(event.recorded_at),
            origin: Origin::from_event(event),
            is_deletion,
            pieces,
            data,
        }
    };
    events.iter().take(shown).enumerate().map(entry).collect()
}

/// The body that an event gave the message; `None` for a deletion, or if the event can't be decoded.
fn body(event: &RecordedEvent) -> Option<String> {
    match event.decode() {
        Ok(Event::MessageCreated(created)) => Some(created.body.into_string()),
        Ok(Event::MessageEdited(edited)) => Some(edited.body.into_string()),
        _ => None,
    }
}

/// The data that an edit set, or `removed` if the edit removed it; `None` if the edit kept the data.
fn data_text(change: DataChange) -> Option<String> {
    if change.is_keep() {
        return None;
    }
    Some(change.apply(None).map_or_else(|| "removed".to_owned(), |data| data.as_str().to_owned()))
}
