//! The list of apps, and finding one of them.

use askama::Template;
use axum::extract::State;
use chat_domain::Position;

use crate::app_address::app_path;
use crate::app_lookup::{AppEntry, FoundApps, PAGE_APPS, find_apps};
use crate::console::Console;
use crate::form::{Query, VerifiedForm};
use crate::page::{ConsoleError, Page, PageResult, Section, render, see_other};
use crate::session::Session;

#[derive(Template)]
#[template(path = "apps.html")]
struct AppsPage {
    page: Page,
    /// The text of the search.
    query: Option<String>,
    apps: Vec<AppEntry>,
    is_first: bool,
    next: Option<String>,
}

/// `GET /console/apps`
pub(crate) async fn show(session: Session, State(console): State<Console>, Query(form): Query) -> PageResult {
    let after = form.given("after").map(|after| Position::parse(&after)).transpose();
    let after =
        after.map_err(|_| ConsoleError::bad_request("`after` must be the position of an app’s creation."))?;
    let rows = console.read_model().apps(after.unwrap_or_default(), PAGE_APPS + 1).await;
    let rows = rows.map_err(|error| ConsoleError::unavailable(&error))?.value;
    let shown = &rows[..rows.len().min(PAGE_APPS)];
    let next = shown
        .last()
        .filter(|_| rows.len() > PAGE_APPS)
        .map(|last| format!("/console/apps?after={}", last.created_position));
    let page = Page::new(Section::Apps, "Apps", &session);
    let apps = shown.iter().map(|row| AppEntry::from_row(&console, row)).collect();
    render(&AppsPage { page, query: None, apps, is_first: after.is_none(), next })
}

/// `POST /console/apps`: finds apps. `POST`, because the text may be a token, which must not get into an address.
pub(crate) async fn find(
    session: Session,
    State(console): State<Console>,
    VerifiedForm(form): VerifiedForm,
) -> PageResult {
    let Some(text) = form.given("q") else { return Ok(see_other("/console/apps")) };
    let apps = match find_apps(&console, &text).await? {
        FoundApps::One(position) => return Ok(see_other(&app_path(position))),
        FoundApps::None => Vec::new(),
        FoundApps::Several(apps) => apps,
    };
    let page = Page::new(Section::Apps, "Apps", &session);
    render(&AppsPage { page, query: Some(text), apps, is_first: true, next: None })
}
