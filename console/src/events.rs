//! The events of the log: a list with filters, and its live tail.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::extract::State;
use axum::response::sse::{Event as SentEvent, Sse};
use axum::response::{IntoResponse, Response};
use chat_domain::{Event, OperatorAction, Position};
use chat_operations::audit::{
    AuditedEvent, EventFilter, EventFilterParams, EventPage, ListRequest, LogPoint, Order, Tail, list,
};
use chat_ports::clock;
use futures::{Stream, stream};
use http::HeaderMap;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, timeout_at};

use crate::app_address::app_at;
use crate::app_lookup::find_one_app;
use crate::console::{Console, MAX_SCANNED_EVENTS};
use crate::event_view::EventRow;
use crate::field_problem::FieldProblem;
use crate::form::{Form, FormError, Query, VerifiedForm, refuse_secrets};
use crate::page::{ConsoleError, Page, PageResult, Section, render, render_form, see_other};
use crate::session::{Session, session_of};
use crate::shown_value::to_parsable;

/// The number of events on a page.
const PAGE_EVENTS: usize = 50;

/// The longest silence of a live tail: proxies may close idle connections.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// The fields of the filter, with the names that they have in the command line and the admin API.
const FILTER_FIELDS: [&str; 10] =
    ["type", "app", "chat", "sender", "text", "actor", "address", "correlation", "from", "to"];

/// The filter of a list, from a form or from the query string of an address.
#[derive(Debug, Default)]
pub(crate) struct FilterForm {
    /// The names and values of the fields that are set.
    fields: Vec<(&'static str, String)>,
}

impl FilterForm {
    fn from_form(form: &Form) -> Self {
        let fields = FILTER_FIELDS.into_iter().filter_map(|name| {
            let values: Vec<&str> = form.all(name).map(str::trim).filter(|value| !value.is_empty()).collect();
            (!values.is_empty()).then(|| (name, values.join(",")))
        });
        Self { fields: fields.collect() }
    }

    /// The value of a field; empty if it is not set.
    pub(crate) fn value(&self, name: &str) -> &str {
        self.fields.iter().find(|(field, _)| *field == name).map_or("", |(_, value)| value)
    }

    /// Whether an event type is selected.
    pub(crate) fn selects(&self, event_type: &str) -> bool {
        self.value("type").split(',').any(|selected| selected == event_type)
    }

    /// The fields that are set.
    pub(crate) fn fields(&self) -> &[(&'static str, String)] {
        &self.fields
    }

    /// The number of fields that are set.
    pub(crate) fn count(&self) -> usize {
        self.fields.len()
    }

    fn set(&mut self, name: &'static str, value: String) {
        self.fields.retain(|(field, _)| *field != name);
        self.fields.push((name, value));
    }

    /// The query string of the filter, followed by the parameters `more`.
    fn query(&self, more: &[(&str, String)]) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, value) in &self.fields {
            query.append_pair(name, value);
        }
        for (name, value) in more {
            query.append_pair(name, value);
        }
        query.finish()
    }

    /// The address of the newest events with this filter.
    pub(crate) fn page_href(&self) -> String {
        self.href(&[])
    }

    fn href(&self, more: &[(&str, String)]) -> String {
        match self.query(more).as_str() {
            "" => "/console/events".to_owned(),
            query => format!("/console/events?{query}"),
        }
    }

    /// Parses the fields into a filter of events. The form names an app by the position of its creation, the filter by
    /// its token.
    async fn resolve(&self, console: &Console) -> Result<EventFilter, FormError> {
        let given = |name: &str| Some(self.value(name).to_owned()).filter(|value| !value.is_empty());
        let app = match self.value("app") {
            "" => None,
            position => {
                let message = "In an address, this must be the position of the event that created the app.";
                let position = Position::parse(position)
                    .map_err(|_| FormError::Field(FieldProblem::new("app", message)))?;
                Some(app_at(console, position).await?.expose().to_owned())
            }
        };
        let params = EventFilterParams {
            types: self.value("type").split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
            app,
            chat: given("chat").map(|chat| to_parsable(&chat)),
            sender: given("sender"),
            text: given("text"),
            actor: given("actor"),
            address: given("address"),
            correlation: given("correlation"),
            from: given("from").map(|time| to_parsable(&time)),
            to: given("to").map(|time| to_parsable(&time)),
            ..EventFilterParams::default()
        };
        EventFilter::parse(params, clock::now()).map_err(|error| {
            FormError::Field(FieldProblem::new(
                error.parameter,
                format!("This must be {}.", error.requirement),
            ))
        })
    }
}

#[derive(Template)]
#[template(path = "events.html")]
struct EventsPage {
    page: Page,
    filter: FilterForm,
    /// The text of the input for a position or time, if the form is shown again with a problem. In HTML the input's id
    /// is `jump`, and its name is `at`.
    jump: String,
    types: Vec<&'static str>,
    events: Vec<EventRow>,
    /// The address of newer events; `None` on the page of the newest events.
    newer: Option<String>,
    older: Option<String>,
    unfinished: Option<UnfinishedScan>,
    /// The address of the live tail, on the page of the newest events.
    tail: Option<String>,
    head: Position,
}

#[derive(Template)]
#[template(path = "event_row.html")]
struct EventRowTemplate<'a> {
    event: &'a EventRow,
}

/// `GET /console/events`
pub(crate) async fn show(session: Session, State(console): State<Console>, Query(form): Query) -> PageResult {
    let filter = FilterForm::from_form(&form);
    let (before, after) = (form.position("before")?, form.position("after")?);
    let unavailable = |error| ConsoleError::unavailable(&error);
    let head = console.log().head().await.map_err(unavailable)?;
    let resolved = match filter.resolve(&console).await {
        Ok(resolved) => resolved,
        Err(FormError::Field(problem)) => {
            return problem_page(&session, filter, String::new(), head, &problem);
        }
        Err(FormError::Page(error)) => return Err(error),
    };
    let found = find_page(&console, resolved, before, after).await?;
    let events = EventRow::load_all(&console, &found.events).await?;
    let is_newest = before.is_none() && after.is_none();
    let href = |bound: &'static str, position: Position| filter.href(&[(bound, position.to_string())]);
    let Neighbours { newer, older } = Neighbours::from_page(&found, before, after, href);
    let unfinished = UnfinishedScan::from_page(&found, after, href);
    let tail = is_newest.then(|| {
        let query = filter.query(&[("after", head.to_string())]);
        format!("/console/events/tail?{query}")
    });
    let page = Page::new(Section::Events, "Events", &session);
    let (jump, types) = (String::new(), types());
    render(&EventsPage { page, filter, jump, types, events, newer, older, unfinished, tail, head })
}

/// The event types that the filter offers.
fn types() -> Vec<&'static str> {
    Event::TYPES.iter().chain(OperatorAction::TYPES).copied().collect()
}

/// Shows the form again with the problem of a field, and no events.
fn problem_page(
    session: &Session,
    filter: FilterForm,
    jump: String,
    head: Position,
    problem: &FieldProblem,
) -> PageResult {
    let page = Page::new(Section::Events, "Events", session).with_problem(Some(problem.clone()));
    let events = EventsPage {
        page,
        filter,
        jump,
        types: types(),
        events: Vec::new(),
        newer: None,
        older: None,
        unfinished: None,
        tail: None,
        head,
    };
    render_form(&events, Some(problem))
}

/// A scan that ended before its page had `PAGE_EVENTS` events, although more may follow: it reached the maximum number
/// of scanned events, or the maximum size of a page.
struct UnfinishedScan {
    /// The number of scanned events.
    scanned: u64,
    /// The address of the page that continues the scan.
    next: String,
}

impl UnfinishedScan {
    /// Returns the scan of a page if the scan is unfinished. A page with the bound `after` continues with newer events,
    /// any other page with older ones. `href` returns the address of a list with a bound.
    fn from_page(
        found: &EventPage,
        after: Option<Position>,
        href: impl Fn(&'static str, Position) -> String,
    ) -> Option<Self> {
        let next = found.next.filter(|_| found.events.len() < PAGE_EVENTS)?;
        let bound = if after.is_some() { "after" } else { "before" };
        Some(Self { scanned: found.looked_at, next: href(bound, next) })
    }
}

/// The addresses of the pages beside a page of events.
pub(crate) struct Neighbours {
    pub(crate) newer: Option<String>,
    pub(crate) older: Option<String>,
}

impl Neighbours {
    /// The neighbours of a page that was found with these bounds. `href` returns the address of a list with a bound.
    pub(crate) fn from_page(
        found: &EventPage,
        before: Option<Position>,
        after: Option<Position>,
        href: impl Fn(&'static str, Position) -> String,
    ) -> Self {
        if after.is_some() {
            // The page was read from older events to newer ones, but lists the newest first. So older events are before
            // its last row, and there are no newer ones if the read reached the head of the log.
            let older = found.events.last().map(|event| href("before", event.position));
            return Self { older, newer: found.next.map(|next| href("after", next)) };
        }
        let first = found.events.first().filter(|_| before.is_some());
        let newer = first.map(|event| href("after", event.position));
        Self { older: found.next.map(|next| href("before", next)), newer }
    }
}

/// Finds a page of events, newest first: the last events before `before`, or the first events after `after`.
pub(crate) async fn find_page(
    console: &Console,
    mut filter: EventFilter,
    before: Option<Position>,
    after: Option<Position>,
) -> Result<EventPage, ConsoleError> {
    let order = if after.is_some() { Order::OldestFirst } else { Order::NewestFirst };
    // Without a filter, the read ends when the page is full: too few events to need a permit.
    let _permit =
        if filter == EventFilter::default() { None } else { Some(console.acquire_scan_permit().await?) };
    filter.before = before;
    filter.after = after;
    let request = ListRequest { filter, order, limit: PAGE_EVENTS, max_scanned_events: MAX_SCANNED_EVENTS };
    let mut found = list(console.log(), request).await.map_err(|error| ConsoleError::unavailable(&error))?;
    if order == Order::OldestFirst {
        found.events.reverse();
    }
    Ok(found)
}

/// `POST /console/events/filter`: turns the form into the address of a list. An app may be given by a token, which
/// must not get into an address.
pub(crate) async fn filter(
    session: Session,
    State(console): State<Console>,
    VerifiedForm(form): VerifiedForm,
) -> PageResult {
    let mut filter = FilterForm::from_form(&form);
    match filter_address(&console, &form, &mut filter).await {
        Ok(address) => Ok(see_other(&address)),
        Err(FormError::Field(problem)) => {
            let head = console.log().head().await.map_err(|error| ConsoleError::unavailable(&error))?;
            problem_page(&session, filter, form.given("at").unwrap_or_default(), head, &problem)
        }
        Err(FormError::Page(error)) => Err(error),
    }
}

/// The address of the list that a form describes. In `filter`, replaces the app's name or token by the position
/// of the app's creation.
async fn filter_address(
    console: &Console,
    form: &Form,
    filter: &mut FilterForm,
) -> Result<String, FormError> {
    refuse_secrets(form, &FILTER_FIELDS).map_err(FormError::Field)?;
    let app = filter.value("app").to_owned();
    if !app.is_empty() {
        let position = find_one_app(console, &app).await?;
        filter.set("app", position.to_string());
    }
    filter.resolve(console).await?;
    let Some(point) = form.given("at") else { return Ok(filter.href(&[])) };
    let problem = "Give a position, such as 1200, or a time, such as 2026-11-29 21:58.";
    let point = LogPoint::parse(&to_parsable(&point));
    let point = point.ok_or_else(|| FormError::Field(FieldProblem::new("jump", problem)))?;
    let unavailable = |error| ConsoleError::unavailable(&error);
    let position = point.resolve(console.log()).await.map_err(unavailable)?;
    // The list is to begin with the event at the position, and the bound `before` leaves out its own position.
    let before = if console.log().has_contiguous_positions() {
        Some(Position::new(position.get().saturating_add(1)))
    } else {
        // The bound must be the position of an event.
        let next = console.log().read_all(position, 1).await.map_err(unavailable)?.pop();
        next.map(|event| event.position)
    };
    Ok(match before {
        Some(before) => filter.href(&[("before", before.to_string())]),
        None => filter.href(&[]),
    })
}

/// `GET /console/events/tail`: new events as server-sent events, each a row of the list in HTML.
pub(crate) async fn tail(
    _: Session,
    State(console): State<Console>,
    Query(form): Query,
    headers: HeaderMap,
) -> Result<Response, ConsoleError> {
    let filter = FilterForm::from_form(&form).resolve(&console).await.map_err(|error| match error {
        FormError::Field(problem) => ConsoleError::bad_request(problem.message),
        FormError::Page(error) => error,
    })?;
    let last_id = headers.get("last-event-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
    let after = last_id.or_else(|| form.given("after"));
    let after = match after.map(|after| Position::parse(&after)) {
        Some(Ok(after)) => after,
        Some(Err(_)) => return Err(ConsoleError::bad_request("`after` must be a position in the log.")),
        None => console.log().head().await.map_err(|error| ConsoleError::unavailable(&error))?,
    };
    let Ok(permit) = Arc::clone(&console.tail_permits).try_acquire_owned() else {
        let detail =
            "Too many pages follow the log or jobs at the same time. Reload this page to see new events.";
        return Err(ConsoleError::new(http::StatusCode::SERVICE_UNAVAILABLE, "Too many live pages", detail));
    };
    let tail = Tail::start_after(Arc::clone(&console.ports.event_store), filter, after);
    let shutdown = console.shutdown.clone();
    let sent = TailStream {
        console,
        headers,
        tail,
        pending: VecDeque::new(),
        keep_alive_due: Instant::now() + KEEP_ALIVE_INTERVAL,
        shutdown,
        _permit: permit,
    };
    Ok(Sse::new(sent.into_events()).into_response())
}

/// A tail that is being sent to a browser.
struct TailStream {
    console: Console,
    /// The headers of the request, with the cookie of its session.
    headers: HeaderMap,
    tail: Tail,
    /// Events that were read and not yet sent.
    pending: VecDeque<AuditedEvent>,
    keep_alive_due: Instant,
    shutdown: watch::Receiver<bool>,
    _permit: OwnedSemaphorePermit,
}

impl TailStream {
    fn into_events(self) -> impl Stream<Item = Result<SentEvent, Infallible>> {
        stream::unfold(self, Self::next)
    }

    async fn next(mut self) -> Option<(Result<SentEvent, Infallible>, Self)> {
        loop {
            // The operator's token may have been withdrawn, or the session may have ended.
            session_of(&self.console.access, &self.headers, clock::now())?;
            if let Some(event) = self.pending.pop_front() {
                self.keep_alive_due = Instant::now() + KEEP_ALIVE_INTERVAL;
                let row = EventRow::load(&self.console, &event).await.ok()?;
                let html = EventRowTemplate { event: &row }.render().ok()?;
                let sent = SentEvent::default().event("row").id(event.position.to_string()).data(html);
                return Some((Ok(sent), self));
            }
            let batch = tokio::select! {
                biased;
                _ = self.shutdown.wait_for(|stopping| *stopping) => return None,
                batch = timeout_at(self.keep_alive_due, self.tail.next_batch()) => batch,
            };
            match batch {
                Ok(Ok(batch)) => self.pending.extend(batch.events),
                Ok(Err(error)) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "a live page ends: the log can't be read"
                    );
                    return None;
                }
                Err(_) => {
                    self.keep_alive_due = Instant::now() + KEEP_ALIVE_INTERVAL;
                    let comment =
                        SentEvent::default().comment("still here").id(self.tail.up_to().to_string());
                    return Some((Ok(comment), self));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unfinished_scan_continues_in_its_own_direction() {
        let (next, looked_at) = (Some(Position::new(7)), MAX_SCANNED_EVENTS);
        let found = EventPage { events: Vec::new(), next, looked_at, unknown_types: Vec::new() };
        let href = |name: &'static str, position: Position| format!("{name}={position}");
        let next = |after| UnfinishedScan::from_page(&found, after, href).map(|scan| scan.next);
        assert_eq!(next(Some(Position::new(5))).as_deref(), Some("after=7"));
        assert_eq!(next(None).as_deref(), Some("before=7"));
    }
}
