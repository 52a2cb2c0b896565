//! The state of an app, a chat or a message at a point in the log, and the changes between two points.

use askama::Template;
use axum::extract::{Path, State};
use chat_domain::{Position, Sender, Timestamp};
use chat_operations::audit::{
    Existence, FieldValue, LogPoint, PastMessage, PastMessages, Subject, difference, neighbouring_changes,
    past_messages, state_at,
};
use chat_ports::event_store::creation_lookup;
use serde_json::Value;

use crate::console::{Console, MAX_SCANNED_EVENTS};
use crate::event_view::{EventRow, ReferenceRow, shorten_lines};
use crate::field_problem::FieldProblem;
use crate::form::{Form, Query};
use crate::message_item::{DeletedEntry, MessageEntry, MessageItem, PAGE_MESSAGES, SHOWN_CHARS, sender_view};
use crate::origin::Origin;
use crate::page::{ConsoleError, Page, PageResult, Section, render, render_form};
use crate::session::Session;
use crate::shown_value::to_parsable;
use crate::subject_address::{SubjectAddress, TrailLink};
use crate::text::{self, Time};
use crate::text_difference::{Piece, text_difference};

/// The problem of a field whose value is not a point in the log.
const INVALID_POINT: &str = "Give a position, such as 1200, or a time, such as 2026-11-29 21:58.";

/// The value of a field as pages show it.
pub(crate) enum FieldText {
    None,
    Text(String),
    Code(String),
    Time(Time),
}

impl FieldText {
    fn from_field(name: &str, value: &FieldValue) -> Self {
        let text = match value {
            FieldValue::Data(data) => return Self::Code(data.as_str().to_owned()),
            FieldValue::Json(Value::Null) => return Self::None,
            FieldValue::Json(Value::String(text)) => text,
            FieldValue::Json(value) => return sender_text(value),
        };
        match (name, Timestamp::parse_rfc3339(text)) {
            ("app_token", _) => Self::Code(text::short_secret(text)),
            ("created_at" | "updated_at" | "deleted_at", Some(time)) => Self::Time(Time(time)),
            _ => Self::Text(text.clone()),
        }
    }
}

/// A sender by name and id; other JSON as it is.
fn sender_text(value: &Value) -> FieldText {
    match serde_json::from_value::<Sender>(value.clone()) {
        Ok(Sender { id, name: Some(name) }) => {
            FieldText::Text(format!("{} ({})", name.as_str(), id.as_str()))
        }
        Ok(Sender { id, name: None }) => FieldText::Text(id.into_string()),
        Err(_) => FieldText::Code(value.to_string()),
    }
}

/// Whether a subject existed, as pages show it.
struct ExistenceView {
    name: &'static str,
    class: &'static str,
}

impl ExistenceView {
    fn from_existence(existence: Existence) -> Self {
        let (name, class) = match existence {
            Existence::Absent => ("not created yet", ""),
            Existence::Present => ("present", "ok"),
            Existence::Deleted => ("deleted", "error"),
        };
        Self { name, class }
    }
}

/// A field with the event that set it.
struct FieldRow {
    name: &'static str,
    value: FieldText,
    set_by: ReferenceRow,
}

#[derive(Template)]
#[template(path = "past_state.html")]
struct StatePage {
    page: Page,
    address: SubjectAddress,
    trail: Vec<TrailLink>,
    /// The position of the requested point, at most the head.
    position: Position,
    /// The warning that the requested point is beyond the head or in the future.
    remark: Option<String>,
    /// When the event at the position was recorded. `None` if there is none.
    recorded: Option<Time>,
    /// The position of the subject's creation.
    created: Position,
    head: Position,
    existence: ExistenceView,
    fields: Vec<FieldRow>,
    /// The last messages, if the subject is a chat.
    items: Vec<MessageItem>,
    /// Whether `items` may lack edits and deletions.
    is_incomplete: bool,
    /// The positions of the subject's last change before `position`, and of its first change after it.
    previous: Option<Position>,
    next: Option<Position>,
}

/// Shows the state of a subject at a point in the log.
pub(crate) async fn show_state(
    session: &Session,
    console: &Console,
    address: SubjectAddress,
    point: LogPoint,
) -> PageResult {
    let unavailable = |error| ConsoleError::unavailable(&error);
    let created = creation(console, address.subject, address.app).await?;
    let permit = console.acquire_scan_permit().await?;
    let resolved = point.resolve_up_to_head(console.log()).await.map_err(unavailable)?;
    let position = resolved.position;
    let state = state_at(console.log(), position, address.subject).await.map_err(unavailable)?;
    let messages = match address.subject {
        Subject::Chat(app, chat) => {
            past_messages(console.log(), (app, chat), position, PAGE_MESSAGES).await.map_err(unavailable)?
        }
        Subject::App(_) | Subject::Message(..) => PastMessages::default(),
    };
    let changes =
        neighbouring_changes(console.log(), address.subject, position).await.map_err(unavailable)?;
    drop(permit);
    let head = console.log().head().await.map_err(unavailable)?;
    let event = console.log().event_at(position).await.map_err(unavailable)?;
    let mut fields = Vec::with_capacity(state.fields.len());
    for field in &state.fields {
        let set_by = ReferenceRow::load(console, &field.set_by).await?;
        fields.push(FieldRow {
            name: field.name,
            value: FieldText::from_field(field.name, &field.value),
            set_by,
        });
    }
    let items = messages.messages.into_iter().map(|message| past_item(&address, position, message)).collect();
    let title = format!("{} as of position {}", address.title(), text::number(position.get()));
    let template = StatePage {
        page: Page::new(Section::Apps, title, session),
        trail: address.trail_with_self(),
        address,
        position,
        remark: resolved.remark.map(|remark| remark.message),
        recorded: event.map(|event| Time(event.recorded_at)),
        created,
        head,
        existence: ExistenceView::from_existence(state.existence),
        fields,
        items,
        is_incomplete: messages.is_incomplete,
        previous: changes.previous,
        next: changes.next,
    };
    render(&template)
}

/// A message of a chat as it was at a position.
fn past_item(chat: &SubjectAddress, position: Position, message: PastMessage) -> MessageItem {
    let number = message.number.get();
    let path = format!("{}/messages/{number}", chat.path());
    if let Some(deletion) = &message.deletion {
        return MessageItem::Deleted(DeletedEntry {
            number,
            path,
            position: deletion.position,
            deleted: Time(deletion.recorded_at),
            origin: Origin::from_event(deletion),
        });
    }
    let (text, is_shortened) = shorten_lines(message.body, SHOWN_CHARS);
    MessageItem::Message(MessageEntry {
        number,
        path: format!("{path}?at={position}"),
        sender: message.sender.as_ref().map(|sender| sender_view(&chat.path(), sender)),
        created: Time(message.created_at),
        versions: message.versions,
        text,
        is_shortened,
        data: message.data.map(|data| data.as_str().to_owned()),
    })
}

/// Returns the position of a subject's creation. `app_position` is the position of the app's creation.
async fn creation(
    console: &Console,
    subject: Subject,
    app_position: Position,
) -> Result<Position, ConsoleError> {
    let (event, name) = match subject {
        Subject::App(_) => return Ok(app_position),
        Subject::Chat(app, chat) => {
            (creation_lookup::find_chat_created(console.log(), app, chat).await, format!("chat {chat}"))
        }
        Subject::Message(app, chat, message) => (
            creation_lookup::find_message_created(console.log(), app, chat, message).await,
            format!("message {message} in chat {chat}"),
        ),
    };
    let event = event.map_err(|error| ConsoleError::unavailable(&error))?;
    let event = event.ok_or_else(|| ConsoleError::not_found(format!("The app has no {name}.")))?;
    Ok(event.position)
}

/// Parses the point in the log that a field of a form names. `None` if the field is not set.
pub(crate) fn given_point(form: &Form, field: &'static str) -> Result<Option<LogPoint>, FieldProblem> {
    let point = form.given(field).map(|text| LogPoint::parse(&to_parsable(&text)));
    point.map(|point| point.ok_or_else(|| FieldProblem::new(field, INVALID_POINT))).transpose()
}

/// A field that changed.
struct ChangeRow {
    name: &'static str,
    before: FieldText,
    after: FieldText,
    /// The difference of the values if both are texts. It is shown instead of the values.
    pieces: Vec<Piece>,
    /// The event that set the value `after`; `None` if the field has no value then.
    set_by: Option<ReferenceRow>,
}

#[derive(Template)]
#[template(path = "difference.html")]
struct DifferencePage {
    page: Page,
    address: SubjectAddress,
    trail: Vec<TrailLink>,
    /// The points of the form: positions, or the text as it was entered.
    from: String,
    to: String,
    /// `None` if the form can't be used.
    found: Option<FoundDifference>,
}

/// The changes between two positions.
struct FoundDifference {
    from: Position,
    to: Position,
    before: ExistenceView,
    after: ExistenceView,
    changes: Vec<ChangeRow>,
    events: Vec<EventRow>,
    /// Whether there may be more events than `events` has.
    may_have_more: bool,
}

/// `GET /console/apps/{app}/diff`
pub(crate) async fn show_app_difference(
    session: Session,
    State(console): State<Console>,
    Path(app): Path<String>,
    Query(form): Query,
) -> PageResult {
    let address = SubjectAddress::resolve(&console, &[&app]).await?;
    show_difference(&session, &console, address, &form).await
}

/// `GET /console/apps/{app}/chats/{chat}/diff`
pub(crate) async fn show_chat_difference(
    session: Session,
    State(console): State<Console>,
    Path((app, chat)): Path<(String, String)>,
    Query(form): Query,
) -> PageResult {
    let address = SubjectAddress::resolve(&console, &[&app, &chat]).await?;
    show_difference(&session, &console, address, &form).await
}

/// `GET /console/apps/{app}/chats/{chat}/messages/{message}/diff`
pub(crate) async fn show_message_difference(
    session: Session,
    State(console): State<Console>,
    Path((app, chat, message)): Path<(String, String, String)>,
    Query(form): Query,
) -> PageResult {
    let address = SubjectAddress::resolve(&console, &[&app, &chat, &message]).await?;
    show_difference(&session, &console, address, &form).await
}

/// Shows the changes after the point `from`, up to the point `to`. Without `from`, begins after the subject's
/// creation; without `to`, ends at the head.
async fn show_difference(
    session: &Session,
    console: &Console,
    address: SubjectAddress,
    form: &Form,
) -> PageResult {
    let unavailable = |error| ConsoleError::unavailable(&error);
    let (from, to) = match (given_point(form, "from"), given_point(form, "to")) {
        (Ok(from), Ok(to)) => (from, to),
        (Err(problem), _) | (_, Err(problem)) => return difference_problem(session, address, form, &problem),
    };
    let created = creation(console, address.subject, address.app).await?;
    let _permit = console.acquire_scan_permit().await?;
    let head = console.log().head().await.map_err(unavailable)?;
    let from = match from {
        Some(point) => point.resolve_up_to_head(console.log()).await.map_err(unavailable)?.position,
        None => created,
    };
    let to = match to {
        Some(point) => point.resolve_up_to_head(console.log()).await.map_err(unavailable)?.position,
        None => head,
    };
    if from > to {
        let problem = if form.given("from").is_some() {
            FieldProblem::new("from", "This must not be after the other point.")
        } else {
            FieldProblem::new("to", "This must not be before the creation.")
        };
        return difference_problem(session, address, form, &problem);
    }
    let found = difference(console.log(), from, to, address.subject, MAX_SCANNED_EVENTS).await;
    let found = found.map_err(unavailable)?;
    let mut changes = Vec::with_capacity(found.changes.len());
    for change in &found.changes {
        let set_by = match &change.set_by {
            Some(event) => Some(ReferenceRow::load(console, event).await?),
            None => None,
        };
        let (before, after) = (
            FieldText::from_field(change.name, &change.before),
            FieldText::from_field(change.name, &change.after),
        );
        let pieces = match (&before, &after) {
            (FieldText::Text(before), FieldText::Text(after)) => text_difference(before, after),
            _ => Vec::new(),
        };
        changes.push(ChangeRow { name: change.name, before, after, pieces, set_by });
    }
    let events = EventRow::load_all(console, &found.events).await?;
    let found = FoundDifference {
        from,
        to,
        before: ExistenceView::from_existence(found.before),
        after: ExistenceView::from_existence(found.after),
        changes,
        events,
        may_have_more: found.more,
    };
    let title = format!("Changes of {}", address.title());
    let template = DifferencePage {
        page: Page::new(Section::Apps, title, session),
        trail: address.trail_with_self(),
        address,
        from: from.to_string(),
        to: to.to_string(),
        found: Some(found),
    };
    render(&template)
}

/// Shows the form again with the problem of a field.
fn difference_problem(
    session: &Session,
    address: SubjectAddress,
    form: &Form,
    problem: &FieldProblem,
) -> PageResult {
    let title = format!("Changes of {}", address.title());
    let template = DifferencePage {
        page: Page::new(Section::Apps, title, session).with_problem(Some(problem.clone())),
        trail: address.trail_with_self(),
        address,
        from: form.get("from").to_owned(),
        to: form.get("to").to_owned(),
        found: None,
    };
    render_form(&template, Some(problem))
}
