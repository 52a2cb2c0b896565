//! Search, as clients search. Each hit says how it matched, and the page says how long the search took.

use std::time::{Duration, Instant};

use askama::Template;
use axum::extract::State;
use chat_domain::{ChatNumber, Position, SenderId};
use chat_operations::audit::time::parse_time;
use chat_ports::search_index::{Hit, Scope, SearchCursor, SearchPage, SearchRequest, Sort};
use tokio::time::timeout;

use crate::app_address::app_at;
use crate::app_lookup::{AppEntry, PAGE_APPS, find_one_app};
use crate::console::Console;
use crate::event_view::app_name;
use crate::field_problem::FieldProblem;
use crate::form::{Form, FormError, Query, VerifiedForm, refuse_secrets};
use crate::message_item::{SenderView, sender_view};
use crate::page::{ConsoleError, Page, PageResult, Section, render, render_form, see_other};
use crate::session::Session;
use crate::shown_value::to_parsable;
use crate::snippet_view::{SnippetPiece, first_mark_in, read_snippet};
use crate::text::{self, Time};

/// The longest wait for a permit to search.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(5);

/// The hits on a page, unless the form says otherwise.
const DEFAULT_HITS: usize = 20;

/// The hits that a page has at most.
const MAX_HITS: usize = 100;

/// The fields of the form.
const FIELDS: [&str; 9] = ["query", "app", "chat", "sender", "sort", "from", "to", "limit", "fuzzy"];

/// The fields of a search that are set.
pub(crate) struct SearchForm(Vec<(&'static str, String)>);

impl SearchForm {
    fn from_form(form: &Form) -> Self {
        Self(FIELDS.into_iter().filter_map(|name| Some((name, form.given(name)?))).collect())
    }

    /// The value of a field; empty if it is not set.
    pub(crate) fn value(&self, name: &str) -> &str {
        self.0.iter().find(|(field, _)| *field == name).map_or("", |(_, value)| value)
    }

    /// Whether a field other than query and app is set.
    pub(crate) fn has_options(&self) -> bool {
        self.0.iter().any(|(name, _)| !["query", "app"].contains(name))
    }

    /// The address of the search with this value of a field, or without the field if the value is empty.
    pub(crate) fn href(&self, name: &str, value: &str) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (field, value) in self.0.iter().filter(|(field, _)| *field != name) {
            query.append_pair(field, value);
        }
        if !value.is_empty() {
            query.append_pair(name, value);
        }
        format!("/console/search?{}", query.finish())
    }
}

/// A hit.
struct HitRow {
    chat: u64,
    chat_path: String,
    message: u64,
    message_path: String,
    sender: Option<SenderView>,
    pieces: Vec<SnippetPiece>,
    /// The start of the first match in the text, in characters from 1.
    first_match: Option<usize>,
    created_position: Position,
    created: Time,
}

/// The hits of a search, and the time that it took.
struct Results {
    app: String,
    app_path: String,
    hits: Vec<HitRow>,
    total: u64,
    /// The position of the snapshot of the index that was searched.
    position: Position,
    next: Option<String>,
    /// Whether this is the first page of hits.
    is_first: bool,
    /// How long the search waited for a permit.
    waiting_time: String,
    /// How long the search took after the wait.
    search_time: String,
}

#[derive(Template)]
#[template(path = "search.html")]
struct SearchTemplate {
    page: Page,
    form: SearchForm,
    /// The apps to choose from, if the form names no app.
    apps: Vec<AppEntry>,
    results: Option<Results>,
}

/// `POST /console/search`: turns the form into the address of a search. The app may be given by a token, which must
/// not get into an address.
pub(crate) async fn submit(
    session: Session,
    State(console): State<Console>,
    VerifiedForm(form): VerifiedForm,
) -> PageResult {
    let no_secrets = refuse_secrets(&form, &FIELDS);
    let form = SearchForm::from_form(&form);
    let app = match (no_secrets, form.value("app")) {
        (Err(problem), _) => Err(FormError::Field(problem)),
        (Ok(()), "") => Ok(String::new()),
        (Ok(()), app) => find_one_app(&console, app).await.map(|app| app.to_string()),
    };
    match app {
        Ok(app) => Ok(see_other(&form.href("app", &app))),
        Err(FormError::Field(problem)) => problem_page(&session, form, &problem),
        Err(FormError::Page(error)) => Err(error),
    }
}

/// Shows the form again with the problem of a field.
fn problem_page(session: &Session, form: SearchForm, problem: &FieldProblem) -> PageResult {
    let page = Page::new(Section::Search, "Search", session).with_problem(Some(problem.clone()));
    let template = SearchTemplate { page, form, apps: Vec::new(), results: None };
    render_form(&template, Some(problem))
}

/// `GET /console/search`
pub(crate) async fn show(
    session: Session,
    State(console): State<Console>,
    Query(fields): Query,
) -> PageResult {
    let form = SearchForm::from_form(&fields);
    let page = Page::new(Section::Search, "Search", &session);
    let empty = |page, form, apps| SearchTemplate { page, form, apps, results: None };
    if form.value("app").is_empty() {
        let rows = console.read_model().apps(Position::START, PAGE_APPS).await;
        let rows = rows.map_err(|error| ConsoleError::unavailable(&error))?.value;
        let apps = rows.iter().map(|row| AppEntry::from_row(&console, row)).collect();
        return render(&empty(page, form, apps));
    }
    let Ok(app) = Position::parse(form.value("app")) else {
        let message = "In an address, this must be the position of the event that created the app.";
        return problem_page(&session, form, &FieldProblem::new("app", message));
    };
    let token = app_at(&console, app).await?;
    let request = match parse_request(&form, token, fields.get("cursor")) {
        Ok(Some(request)) => request,
        Ok(None) => return render(&empty(page, form, Vec::new())),
        Err(problem) => return problem_page(&session, form, &problem),
    };
    let search = (console.ports.readers)().search;
    if search.check_query(&request.query).is_err() {
        let message = "The query is longer than the search index reads: 1,024 bytes and 32 words.";
        return problem_page(&session, form, &FieldProblem::new("query", message));
    }
    let began = Instant::now();
    let permit = timeout(QUEUE_TIMEOUT, console.acquire_search_permit()).await;
    let Ok(permit) = permit else {
        let detail = "Too many searches run at the same time. Try again in a few seconds.";
        return Err(ConsoleError::new(http::StatusCode::SERVICE_UNAVAILABLE, "Too many searches", detail));
    };
    let (permit, waited) = (permit?, began.elapsed());
    let search_request = request.clone();
    let began = Instant::now();
    let found = tokio::task::spawn_blocking(move || {
        // Held here, because the search runs to its end even if the browser leaves.
        let _permit = permit;
        search.search(&search_request)
    });
    let found = found.await.map_err(|error| ConsoleError::unavailable(&error))?;
    let found = found.map_err(|error| ConsoleError::unavailable(&error))?;
    let elapsed = began.elapsed();
    let SearchPage { position, hits, total, next } = found;
    let app_path = crate::app_address::app_path(app);
    let results = Results {
        app: app_name(&console, token).await,
        hits: hits.into_iter().map(|hit| hit_row(&app_path, hit, &request)).collect(),
        app_path,
        total: total.count(),
        position,
        next: next.map(|next| form.href("cursor", &format!("{}-{}", next.score, next.position))),
        is_first: request.cursor.is_none(),
        waiting_time: millis(waited),
        search_time: millis(elapsed),
    };
    render(&SearchTemplate { page, form, apps: Vec::new(), results: Some(results) })
}

/// Parses the form. Returns `None` if the form has no query. The error is the problem of a field whose value can't be
/// used.
fn parse_request(
    form: &SearchForm,
    app: chat_domain::AppToken,
    cursor: &str,
) -> Result<Option<SearchRequest>, FieldProblem> {
    let time = |name: &'static str| match form.value(name) {
        "" => Ok(None),
        text => {
            let time = parse_time(&to_parsable(text));
            time.map(Some)
                .ok_or_else(|| FieldProblem::new(name, "This must be a time, such as 2026-11-29 10:00."))
        }
    };
    let scope = match form.value("chat") {
        "" => Scope::App(app),
        chat => Scope::Chat(
            app,
            ChatNumber::parse(&to_parsable(chat))
                .map_err(|_| FieldProblem::new("chat", "This must be the number of a chat."))?,
        ),
    };
    let sender = match form.value("sender") {
        "" => None,
        sender => {
            let sender = SenderId::parse(sender.to_owned());
            Some(sender.map_err(|error| FieldProblem::new("sender", text::sentence(&error.to_string())))?)
        }
    };
    let sort = match form.value("sort") {
        "" | "relevance" => Sort::Relevance,
        "newest" => Sort::Newest,
        "oldest" => Sort::Oldest,
        _ => return Err(FieldProblem::new("sort", "This must be relevance, newest or oldest.")),
    };
    let limit = match form.value("limit") {
        "" => DEFAULT_HITS,
        limit => limit.parse().ok().filter(|limit| (1..=MAX_HITS).contains(limit)).ok_or_else(|| {
            FieldProblem::new("limit", format!("This must be a number from 1 to {MAX_HITS}."))
        })?,
    };
    let cursor = match cursor {
        "" => None,
        cursor => {
            let message = "The page of hits in the address does not exist. Search again.";
            Some(parse_cursor(cursor).ok_or_else(|| FieldProblem::new("query", message))?)
        }
    };
    if form.value("query").is_empty() {
        return Ok(None);
    }
    Ok(Some(SearchRequest {
        scope,
        sender,
        query: form.value("query").to_owned(),
        fuzzy: form.value("fuzzy") == "true",
        sort,
        created_from: time("from")?,
        created_until: time("to")?,
        limit,
        count_up_to: u64::MAX,
        cursor,
        min_position: None,
    }))
}

fn parse_cursor(text: &str) -> Option<SearchCursor> {
    let (score, position) = text.split_once('-')?;
    Some(SearchCursor { score: score.parse().ok()?, position: Position::parse(position).ok()? })
}

fn hit_row(app_path: &str, hit: Hit, request: &SearchRequest) -> HitRow {
    let document = hit.document;
    let pieces = read_snippet(&hit.snippet, &request.query, request.fuzzy);
    let chat_path = format!("{app_path}/chats/{}", document.key.chat);
    HitRow {
        chat: document.key.chat.get(),
        message: document.key.message.get(),
        message_path: format!("{chat_path}/messages/{}", document.key.message),
        sender: document.sender.as_ref().map(|sender| sender_view(&chat_path, sender)),
        chat_path,
        first_match: first_mark_in(&document.body, &pieces),
        pieces,
        created_position: document.created_position,
        created: Time(document.created_at),
    }
}

impl HitRow {
    /// The kinds of the marks, the best first, each once.
    fn kinds(&self) -> Vec<crate::snippet_view::MatchKind> {
        let mut kinds: Vec<_> = self.pieces.iter().filter_map(|piece| piece.kind).collect();
        kinds.sort_unstable_by(|a, b| b.cmp(a));
        kinds.dedup();
        kinds
    }
}

/// A duration in milliseconds, with one decimal: `1.2 ms`.
fn millis(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1_000.0)
}
