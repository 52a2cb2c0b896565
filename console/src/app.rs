//! The page of an app: its chats, its token, and its history in the log.

use askama::Template;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use chat_domain::{AppToken, ChatNumber, Event, Position, StreamId};
use chat_operations::audit::Subject;
use chat_ports::event_store::{EventStoreError, EventTypeFilter, ReadStart, RecordedEvent, StreamRead};
use chat_ports::read_model::{AppRow, ChatRow};
use http::HeaderMap;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};

use crate::agreement::Agreement;
use crate::app_address::app_path;
use crate::console::Console;
use crate::field_problem::FieldProblem;
use crate::form::{Form, Query, VerifiedForm};
use crate::origin::Origin;
use crate::page::{ConsoleError, Page, PageResult, Section, render, render_form, see_other};
use crate::past_state;
use crate::session::Session;
use crate::shown_value::to_parsable;
use crate::subject_address::{SubjectAddress, TrailLink};
use crate::text::{self, Time};

/// The number of chats on a page.
const PAGE_CHATS: u64 = 50;

/// The maximum number of earlier names that a page shows.
const MAX_NAMES: usize = 20;

/// A chat in a list.
struct ChatEntry {
    number: u64,
    path: String,
    messages: u64,
    created: Time,
    updated: Time,
}

/// An earlier name, and the position of the event that replaced it.
struct EarlierName {
    name: String,
    until: Position,
}

#[derive(Template)]
#[template(path = "app.html")]
struct AppPage {
    page: Page,
    /// The query parameters.
    form: Form,
    address: SubjectAddress,
    token: String,
    /// `None` if the read model does not have the app.
    row: Option<AppRow>,
    created: Time,
    origin: Origin,
    earlier_names: Vec<EarlierName>,
    agreement: Agreement,
    chats: Vec<ChatEntry>,
    /// The address of the page of later chats, if there are any.
    newer: Option<String>,
    older: Option<String>,
}

/// `GET /console/apps/{app}`: the app with its chats, newest first. `before` limits the list to chats below a number.
/// With `chat`, redirects to the chat of this number. With `at`, shows the app's state at a point in the log.
pub(crate) async fn show(
    session: Session,
    State(console): State<Console>,
    Path(app): Path<String>,
    Query(form): Query,
) -> PageResult {
    let address = SubjectAddress::resolve(&console, &[&app]).await?;
    let problem = match past_state::given_point(&form, "at") {
        Ok(Some(point)) => return past_state::show_state(&session, &console, address, point).await,
        Ok(None) => None,
        Err(problem) => Some(problem),
    };
    let chat_number = |name: &str| {
        let number = form.given(name).map(|number| ChatNumber::parse(&to_parsable(&number))).transpose();
        number.map_err(|_| "This must be the number of a chat.")
    };
    let problem = match chat_number("chat") {
        Ok(Some(chat)) => return Ok(see_other(&format!("{}/chats/{chat}", address.path()))),
        Ok(None) => problem,
        Err(message) => Some(FieldProblem::new("chat-number", message)),
    };
    let token = address.subject.app();
    let unavailable = |error: EventStoreError| ConsoleError::unavailable(&error);
    let created = console.log().event_at(address.app).await.map_err(unavailable)?;
    let created = created.ok_or_else(|| ConsoleError::not_found("No app was created at this position."))?;
    let row = console.read_model().app(token).await;
    let row = row.map_err(|error| ConsoleError::unavailable(&error))?.value.ok();
    let last = row.as_ref().and_then(|row| row.last_chat).map_or(0, ChatNumber::get);
    let before = chat_number("before");
    let before = before.map_err(|_| ConsoleError::bad_request("`before` must be the number of a chat."))?;
    let end = before.map_or(last, |before| (before.get() - 1).min(last));
    let start = end.saturating_sub(PAGE_CHATS);
    let chats = chats_between(&console, &address, start, end).await?;
    let link = |before: u64| format!("{}?before={before}", address.path());
    let newer = (end < last).then(|| link(end.saturating_add(PAGE_CHATS).min(last) + 1));
    let older = (start > 0).then(|| link(start + 1));
    let template = AppPage {
        page: Page::new(Section::Apps, address.title(), &session).with_problem(problem.clone()),
        form,
        token: text::short_token(&token),
        created: Time(created.recorded_at),
        origin: Origin::from_event(&created),
        earlier_names: earlier_names(&console, token).await.map_err(unavailable)?,
        agreement: Agreement::check(&console, Subject::App(token)).await,
        row,
        address,
        chats,
        newer,
        older,
    };
    render_form(&template, problem.as_ref())
}

/// Reads the chats with numbers above `start`, up to `end`; newest first.
async fn chats_between(
    console: &Console,
    address: &SubjectAddress,
    start: u64,
    end: u64,
) -> Result<Vec<ChatEntry>, ConsoleError> {
    let limit = usize::try_from(end - start).unwrap_or(usize::MAX);
    if limit == 0 {
        return Ok(Vec::new());
    }
    let after = ChatNumber::try_from(start).ok();
    let rows = console.read_model().chats(address.subject.app(), after, limit).await;
    let rows = rows.map_err(|error| ConsoleError::unavailable(&error))?.value.unwrap_or_default();
    let entry = |row: ChatRow| ChatEntry {
        number: row.number.get(),
        path: format!("{}/chats/{}", address.app_path(), row.number),
        messages: row.message_count,
        created: Time(row.created_at),
        updated: Time(row.updated_at),
    };
    Ok(rows.into_iter().filter(|row| row.number.get() <= end).rev().map(entry).collect())
}

/// Reads up to [`MAX_NAMES`] names that the app had before, newest first.
async fn earlier_names(console: &Console, app: AppToken) -> Result<Vec<EarlierName>, EventStoreError> {
    let stream = StreamId::App(app).to_string();
    let read = StreamRead::all(stream, ReadStart::End, MAX_NAMES + 1)
        .filtered(EventTypeFilter::Except("ChatCreated"));
    let events = console.log().read_stream(read).await?;
    let new_name = |event: &RecordedEvent| match event.decode() {
        Ok(Event::AppCreated(created)) => Some(created.name.into_string()),
        Ok(Event::AppRenamed(renamed)) => Some(renamed.name.into_string()),
        _ => None,
    };
    let named: Vec<(String, Position)> =
        events.iter().filter_map(|event| Some((new_name(event)?, event.position))).collect();
    // The newest comes first, so each name was replaced by the event before it in the list.
    let earlier = named.windows(2).filter_map(|pair| {
        let [(_, until), (name, _)] = pair else { return None };
        Some(EarlierName { name: name.clone(), until: *until })
    });
    Ok(earlier.collect())
}

#[derive(Template)]
#[template(path = "token.html")]
struct TokenPage {
    page: Page,
    address: SubjectAddress,
    trail: Vec<TrailLink>,
    token: String,
}

/// `GET /console/apps/{app}/token`: goes to the app's page, which has the form.
pub(crate) async fn redirect_to_app(Path(app): Path<String>) -> Response {
    match Position::parse(&app) {
        Ok(app) => see_other(&app_path(app)),
        Err(_) => see_other("/console/apps"),
    }
}

/// `POST /console/apps/{app}/token`: the whole token, as plain text for the page's script, or else as a page.
pub(crate) async fn show_token(
    session: Session,
    State(console): State<Console>,
    Path(app): Path<String>,
    headers: HeaderMap,
    _: VerifiedForm,
) -> PageResult {
    let address = SubjectAddress::resolve(&console, &[&app]).await?;
    let token = address.subject.app().expose().to_owned();
    let accepted = headers.get(ACCEPT).and_then(|accepted| accepted.to_str().ok());
    let mut response = if accepted == Some("text/plain") {
        ([(CONTENT_TYPE, "text/plain; charset=utf-8")], token).into_response()
    } else {
        let trail = address.trail_with_self();
        let page = Page::new(Section::Apps, format!("Token of {}", address.app_name), &session);
        render(&TokenPage { page, address, trail, token })?
    };
    response.headers_mut().insert(CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
    Ok(response)
}
