//! The search field at the top of each page: it finds an event, a request, an app or a text.

use askama::Template;
use axum::extract::State;
use chat_domain::AppToken;
use chat_operations::audit::{EventFilter, EventSelector, ListRequest, Order, find_event, list};

use crate::app_address::app_path;
use crate::app_lookup::{FoundApps, find_apps};
use crate::console::{Console, MAX_SCANNED_EVENTS};
use crate::event_view::app_name;
use crate::form::VerifiedForm;
use crate::page::{ConsoleError, Page, PageResult, Section, render, see_other};
use crate::secret_text::{may_be_secret, token_in};
use crate::session::Session;

/// The minimum number of characters of a text that is looked up as the id of a trace or request.
const MIN_ID_CHARS: usize = 8;

/// A page that a text leads to.
struct FoundPage {
    name: String,
    kind: &'static str,
    path: String,
}

#[derive(Template)]
#[template(path = "find.html")]
struct FindPage {
    page: Page,
    query: String,
    found: Vec<FoundPage>,
}

/// `POST /console/find`: redirects to the page that a text leads to, or lists the pages if there are several. For a
/// text that leads to no page, redirects to the search in messages, unless the text may be a secret.
pub(crate) async fn find(
    session: Session,
    State(console): State<Console>,
    VerifiedForm(form): VerifiedForm,
) -> PageResult {
    let Some(text) = form.given("q") else { return Ok(see_other("/console")) };
    // A text that contains an app's token, such as a URL of the API, leads to the app.
    let text = token_in(&text).map_or(text, |token| token.expose().to_owned());
    let mut found: Vec<FoundPage> = find_events(&console, &text).await?.into_iter().collect();
    match find_apps(&console, &text).await? {
        FoundApps::None => {}
        FoundApps::One(position) => {
            let name = match crate::app_address::app_at(&console, position).await {
                Ok(app) => app_name(&console, app).await,
                Err(_) => "an app".to_owned(),
            };
            found.push(FoundPage { name, kind: "app", path: app_path(position) });
        }
        FoundApps::Several(apps) => {
            found.extend(apps.into_iter().map(|app| FoundPage {
                name: app.name,
                kind: "app",
                path: app.path,
            }));
        }
    }
    match found.as_slice() {
        [page] => return Ok(see_other(&page.path)),
        [] if !may_be_secret(&text) => {
            let query: String = form_urlencoded::byte_serialize(text.as_bytes()).collect();
            return Ok(see_other(&format!("/console/search?query={query}")));
        }
        _ => {}
    }
    let page = Page::new(Section::None, "Find", &session);
    render(&FindPage { page, query: text, found })
}

/// Finds the page of an event by the event's position or id, or the list of the events of a request or trace.
async fn find_events(console: &Console, text: &str) -> Result<Option<FoundPage>, ConsoleError> {
    let unavailable = |error| ConsoleError::unavailable(&error);
    let _permit = console.acquire_scan_permit().await?;
    if let Some(selector) = EventSelector::parse(text)
        && let Some(event) =
            find_event(console.log(), selector, MAX_SCANNED_EVENTS).await.map_err(unavailable)?
    {
        let name = format!("{} at position {}", event.event_type, event.position);
        return Ok(Some(FoundPage {
            name,
            kind: "event",
            path: format!("/console/events/{}", event.position),
        }));
    }
    let may_be_id = text.len() >= MIN_ID_CHARS && text.bytes().all(|byte| byte.is_ascii_graphic());
    if !may_be_id || AppToken::parse(text).is_ok() {
        return Ok(None);
    }
    let filter = EventFilter { correlation_id: Some(text.to_owned()), ..EventFilter::default() };
    let request =
        ListRequest { filter, order: Order::NewestFirst, limit: 1, max_scanned_events: MAX_SCANNED_EVENTS };
    let events = list(console.log(), request).await.map_err(unavailable)?.events;
    let query: String = form_urlencoded::byte_serialize(text.as_bytes()).collect();
    Ok(events.first().map(|_| FoundPage {
        name: format!("Events of the trace or request {text}"),
        kind: "events",
        path: format!("/console/events?correlation={query}"),
    }))
}
