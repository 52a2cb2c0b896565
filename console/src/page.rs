//! The frame of every page, and the page of an error.

use askama::Template;
use axum::response::{Html, IntoResponse, Redirect, Response};
use chat_ports::error_chain;
use chat_web::request_middleware::CustomErrorBody;
use http::StatusCode;

use crate::field_problem::FieldProblem;
use crate::session::Session;

/// A part of the console, as the navigation lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    Overview,
    Events,
    Apps,
    Search,
    Projections,
    DeadLetters,
    Proofs,
    Activity,
    /// Pages outside the navigation.
    None,
}

impl Section {
    /// The sections in the order of the navigation, with path, title and the key that opens them after `g`.
    pub(crate) const NAVIGATION: [(Self, &'static str, &'static str, char); 8] = [
        (Self::Overview, "/console", "Overview", 'o'),
        (Self::Events, "/console/events", "Events", 'e'),
        (Self::Apps, "/console/apps", "Apps", 'a'),
        (Self::Search, "/console/search", "Search", 's'),
        (Self::Projections, "/console/projections", "Projections", 'p'),
        (Self::DeadLetters, "/console/dead-letters", "Dead letters", 'd'),
        (Self::Proofs, "/console/proofs", "Proofs", 'r'),
        (Self::Activity, "/console/activity", "Activity", 't'),
    ];

    /// The section of a path of the console. The overview, too, is [`Section::None`] here.
    pub(crate) fn from_path(path: &str) -> Self {
        let rest = path.strip_prefix("/console/").unwrap_or_default();
        match rest.split(['/', '.']).next() {
            Some("events") => Self::Events,
            Some("apps") => Self::Apps,
            Some("search") => Self::Search,
            Some("projections") => Self::Projections,
            Some("dead-letters") => Self::DeadLetters,
            Some("proofs") => Self::Proofs,
            Some("activity" | "jobs") => Self::Activity,
            _ => Self::None,
        }
    }

    /// The title of the section in the navigation; empty for pages outside it.
    pub(crate) fn title(self) -> &'static str {
        let found = Self::NAVIGATION.into_iter().find(|(section, ..)| *section == self);
        found.map_or("", |(_, _, title, _)| title)
    }

    /// The section's address and title; those of the overview for pages outside the navigation.
    pub(crate) fn link(self) -> (&'static str, &'static str) {
        let found = Self::NAVIGATION.into_iter().find(|(section, ..)| *section == self);
        found.map_or(("/console", "Overview"), |(_, path, title, _)| (path, title))
    }
}

/// The data that the frame of a page shows.
pub(crate) struct Page {
    /// The title of the page.
    pub(crate) title: String,
    /// The section that the navigation marks.
    pub(crate) section: Section,
    /// The session of the operator. `None` on pages that anyone may see.
    pub(crate) session: Option<Session>,
    /// The field whose value can't be used, if a form is shown again.
    pub(crate) problem: Option<FieldProblem>,
}

impl Page {
    /// The frame of a page for an operator.
    pub(crate) fn new(section: Section, title: impl Into<String>, session: &Session) -> Self {
        Self { title: title.into(), section, session: Some(session.clone()), problem: None }
    }

    /// Sets the problem of a field, if a form is shown again with one.
    pub(crate) fn with_problem(self, problem: Option<FieldProblem>) -> Self {
        Self { problem, ..self }
    }

    /// The problem of the field with this id, if there is one.
    pub(crate) fn problem_of(&self, field: &str) -> Option<&str> {
        self.problem.as_ref().filter(|problem| problem.field == field).map(|problem| problem.message.as_str())
    }

    /// The frame of a page that anyone may see.
    pub(crate) fn public(title: impl Into<String>) -> Self {
        Self { title: title.into(), section: Section::None, session: None, problem: None }
    }

    /// Whether the operator may act.
    pub(crate) fn may_act(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.may_act)
    }

    /// The token that every `POST` form of the operator must send.
    pub(crate) fn form_token(&self) -> &str {
        self.session.as_ref().map_or("", |session| &session.form_token)
    }
}

/// Renders a page.
pub(crate) fn render(template: &impl Template) -> Result<Response, ConsoleError> {
    template.render().map(|page| Html(page).into_response()).map_err(|error| ConsoleError::internal(&error))
}

/// Renders a page. The status is 422 if a form on it is shown again with the problem of a field.
pub(crate) fn render_form(template: &impl Template, problem: Option<&FieldProblem>) -> PageResult {
    let page = render(template)?;
    if problem.is_none() {
        return Ok(page);
    }
    let mut response = (StatusCode::UNPROCESSABLE_ENTITY, page).into_response();
    // Without this extension, the request middleware would replace the page by a problem document.
    response.extensions_mut().insert(CustomErrorBody);
    Ok(response)
}

/// An error as a page.
#[derive(Clone, Debug)]
pub(crate) struct ConsoleError {
    status: StatusCode,
    pub(crate) title: &'static str,
    pub(crate) detail: String,
}

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage<'a> {
    page: Page,
    error: &'a ConsoleError,
}

impl ConsoleError {
    pub(crate) fn new(status: StatusCode, title: &'static str, detail: impl Into<String>) -> Self {
        Self { status, title, detail: detail.into() }
    }

    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "Not found", detail)
    }

    pub(crate) fn is_not_found(&self) -> bool {
        self.status == StatusCode::NOT_FOUND
    }

    pub(crate) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "The request can't be understood", detail)
    }

    pub(crate) fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "Not allowed", detail)
    }

    /// The error with another sentence at the end of its detail.
    pub(crate) fn followed_by(mut self, sentence: &str) -> Self {
        if !self.detail.ends_with('.') {
            self.detail.push('.');
        }
        self.detail = format!("{} {sentence}", self.detail);
        self
    }

    /// The page of the error, in the frame `page`.
    pub(crate) fn to_page(&self, page: Page) -> Response {
        let body = ErrorPage { page, error: self }.render().unwrap_or_else(|_| self.detail.clone());
        let mut response = (self.status, Html(body)).into_response();
        response.extensions_mut().insert(CustomErrorBody);
        response
    }

    /// An engine that can't be reached, or can't be read.
    pub(crate) fn unavailable(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::warn!(error, "a page of the console could not read an engine");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "An engine does not answer", error_chain(error))
    }

    /// A fault of the program, or of the machine that it runs on.
    pub(crate) fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error, "a page of the console could not be made");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "The page could not be made",
            "The error is in the log of the server.",
        )
    }
}

impl IntoResponse for ConsoleError {
    fn into_response(self) -> Response {
        let mut response = self.to_page(Page::public(self.title));
        // If the request has a session, `frame_errors` renders the error again, with the operator's frame.
        response.extensions_mut().insert(self);
        response
    }
}

/// The result of a handler.
pub(crate) type PageResult = Result<Response, ConsoleError>;

/// Redirects the browser to another page, which it loads with `GET`.
pub(crate) fn see_other(path: &str) -> Response {
    Redirect::to(path).into_response()
}
