//! `POST` and `GET …/messages/search`, in a chat and in an app

use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use chat_domain::{Position, Timestamp};
use chat_ports::read_model::{Missing, ReadModelError, Snapshot};
use chat_ports::search_index::{Hit, Scope, SearchCursor, SearchRequest, Sort};
use chat_web::consistency::Freshness;
use chat_web::extract::{AppPath, ChatPath, JsonBody, Query};
use chat_web::{ErrorCode, Problem, openapi, problem_responses};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::time;
use crate::api::QueryContext;
use crate::pagination::{Cursor, PageLimits, malformed_parameter};
use crate::response_position::{ResponsePosition, require_existing};

/// What to search for.
#[derive(Deserialize, ToSchema)]
pub(super) struct SearchBody {
    /// Words that must all match; `"two words"` is a phrase. At most 1,024 bytes and 32 words.
    #[schema(example = "fox")]
    query: String,
    /// Whether typing errors are forgiven: one in words of 4–7 letters, two from 8.
    fuzzy: Option<bool>,
    /// `relevance` unless given.
    #[schema(value_type = Option<Order>)]
    sort: Option<String>,
    /// Only messages created at this time or later.
    #[schema(format = DateTime)]
    from: Option<String>,
    /// Only messages created at this time or earlier.
    #[schema(format = DateTime)]
    to: Option<String>,
    /// Hits on a page, 1 to 100; 20 unless given.
    #[schema(minimum = 1, maximum = 100)]
    limit: Option<i64>,
    /// Where the page starts: `next` of the page before, as it is.
    cursor: Option<String>,
}

/// What to search for, in the URL.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct SearchParams {
    /// Words that must all match; `"two words"` is a phrase. At most 1,024 bytes and 32 words.
    #[param(required, value_type = String, example = "fox")]
    query: Option<String>,
    /// Whether typing errors are forgiven: one in words of 4–7 letters, two from 8.
    #[param(value_type = Option<bool>)]
    fuzzy: Option<String>,
    /// `relevance` unless given.
    #[param(value_type = Option<Order>)]
    sort: Option<String>,
    /// Only messages created at this time or later.
    #[param(format = DateTime)]
    from: Option<String>,
    /// Only messages created at this time or earlier.
    #[param(format = DateTime)]
    to: Option<String>,
    /// Hits on a page, 1 to 100; 20 unless given.
    #[param(value_type = Option<u64>, minimum = 1, maximum = 100)]
    limit: Option<String>,
    /// Where the page starts: `next` of the page before, as it is.
    cursor: Option<String>,
}

/// The order of hits: better matches first (the newest first among equals), newest first, or oldest first.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "only described by it: a wrong word is a malformed query, not malformed JSON")]
enum Order {
    Relevance,
    Newest,
    Oldest,
}

/// Hits.
#[derive(Serialize, ToSchema)]
pub(super) struct Hits {
    #[schema(example = "success")]
    status: &'static str,
    /// In the order asked for.
    messages: Vec<FoundMessage>,
    /// How many messages match, on all pages.
    #[schema(example = 3)]
    total: u64,
    /// The `cursor` of the next page, null on the last one.
    #[schema(required)]
    next: Option<String>,
}

/// A message that matches.
#[derive(Serialize, ToSchema)]
pub(super) struct FoundMessage {
    /// Its chat's number: in the answer to a search of the whole app.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 1, minimum = 1)]
    chat_number: Option<u64>,
    /// Its number in its chat.
    #[schema(example = 1, minimum = 1)]
    message_number: u64,
    /// Its text.
    #[schema(example = "The quick brown fox")]
    body: String,
    #[serde(serialize_with = "time")]
    #[schema(value_type = String, format = DateTime, example = "2026-09-21T14:13:20.007Z")]
    created_at: Timestamp,
    /// When it was last edited, or else created.
    #[serde(serialize_with = "time")]
    #[schema(value_type = String, format = DateTime, example = "2026-09-21T14:13:20.007Z")]
    updated_at: Timestamp,
    /// HTML: the escaped text around the match, with `<mark>` around what matched.
    #[schema(example = "The quick brown <mark>fox</mark>")]
    snippet: String,
    /// How well it matches; only the order means anything.
    score: u64,
}

impl FoundMessage {
    fn from_hit(hit: Hit, scope: Scope) -> Self {
        let document = hit.document;
        Self {
            chat_number: matches!(scope, Scope::App(_)).then_some(document.key.chat.get()),
            message_number: document.key.message.get(),
            body: document.body,
            created_at: document.created_at,
            updated_at: document.updated_at,
            snippet: hit.snippet,
            score: hit.score,
        }
    }
}

impl SearchBody {
    fn into_request(self, scope: Scope) -> Result<SearchRequest, Problem> {
        let limit = match self.limit {
            None => PageLimits::SEARCH.default,
            given => PageLimits::SEARCH.validate(given)?,
        };
        let fuzzy = self.fuzzy.unwrap_or(false);
        build_request(
            scope,
            self.query,
            fuzzy,
            limit,
            &CommonParams { sort: self.sort, from: self.from, to: self.to, cursor: self.cursor },
        )
    }
}

impl SearchParams {
    fn into_request(self, scope: Scope) -> Result<SearchRequest, Problem> {
        let limit = PageLimits::SEARCH.parse(self.limit.as_deref())?;
        let fuzzy = match self.fuzzy.as_deref() {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => return Err(malformed_parameter("fuzzy", "`true` or `false`")),
        };
        build_request(
            scope,
            self.query.unwrap_or_default(),
            fuzzy,
            limit,
            &CommonParams { sort: self.sort, from: self.from, to: self.to, cursor: self.cursor },
        )
    }
}

/// The parameters that read the same in a body and in a URL.
struct CommonParams {
    sort: Option<String>,
    from: Option<String>,
    to: Option<String>,
    cursor: Option<String>,
}

fn build_request(
    scope: Scope,
    query: String,
    fuzzy: bool,
    limit: usize,
    params: &CommonParams,
) -> Result<SearchRequest, Problem> {
    let sort = match params.sort.as_deref() {
        None | Some("relevance") => Sort::Relevance,
        Some("newest") => Sort::Newest,
        Some("oldest") => Sort::Oldest,
        Some(_) => return Err(malformed_parameter("sort", "`relevance`, `newest` or `oldest`")),
    };
    let from = parse_time("from", params.from.as_deref())?;
    let to = parse_time("to", params.to.as_deref())?;
    let cursor = params.cursor.as_deref().map(parse_cursor).transpose()?;
    if query.trim().is_empty() {
        return Err(ErrorCode::QueryBlank.into());
    }
    Ok(SearchRequest {
        scope,
        query,
        fuzzy,
        sort,
        created_from: from,
        created_until: to,
        limit,
        cursor,
        min_position: None,
    })
}

fn parse_time(parameter: &str, text: Option<&str>) -> Result<Option<Timestamp>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let time = Timestamp::parse_rfc3339(text);
    time.map(Some)
        .ok_or_else(|| malformed_parameter(parameter, "an RFC 3339 time, such as 2026-09-21T14:13:20Z"))
}

fn parse_cursor(text: &str) -> Result<SearchCursor, Problem> {
    let [score, position] = Cursor::<2>::parse('s', text)?.key;
    Ok(SearchCursor { score, position: Position::new(position) })
}

impl QueryContext {
    /// Searches, once `exists` has found the scope.
    async fn search_messages<T, F>(
        &self,
        freshness: Freshness,
        request: SearchRequest,
        find_scope: impl Fn() -> F,
    ) -> Result<Response, Problem>
    where
        F: Future<Output = Result<Snapshot<Result<T, Missing>>, ReadModelError>>,
    {
        let asked = Instant::now();
        self.projections.search.check_query(&request.query)?;
        require_existing(self, self.query_read_model(freshness, find_scope).await?).await?;
        // The client waits for both projections together no longer than it said.
        let freshness =
            Freshness { max_wait: freshness.max_wait.saturating_sub(asked.elapsed()), ..freshness };
        let freshness = self.minimum_positions.raise_search_freshness(freshness);
        let request = SearchRequest { min_position: freshness.min_position, ..request };
        let progress = self.projections.progress.search.as_ref();
        let search = || self.projections.search.search(&request);
        let page = self.shared.consistency_waiter.query_when_fresh(freshness, progress, search).await?.value;
        self.record_search_answer(page.position);
        let standing = ResponsePosition::for_projection(self, page.position).await;
        let next =
            page.next.map(|next| Cursor { kind: 's', key: [next.score, next.position.get()] }.to_string());
        let messages = page.hits.into_iter().map(|hit| FoundMessage::from_hit(hit, request.scope)).collect();
        let body = Hits { status: "success", messages, total: page.total, next };
        Ok((standing, Json(body)).into_response())
    }

    async fn search_messages_in_chat(
        &self,
        path: ChatPath,
        freshness: Freshness,
        request: SearchRequest,
    ) -> Result<Response, Problem> {
        let chat = || self.projections.read_model.chat(path.app_token, path.chat_number);
        self.search_messages(freshness, request, chat).await
    }

    async fn search_messages_in_app(
        &self,
        path: AppPath,
        freshness: Freshness,
        request: SearchRequest,
    ) -> Result<Response, Problem> {
        self.search_messages(freshness, request, || self.projections.read_model.app(path.app_token)).await
    }
}

problem_responses!(pub(super) SearchChatFails:
    MalformedQuery, AppNotFound, ChatNotFound, QueryBlank, QueryTooLong, ReadModelUnavailable, ReadModelBehind);
problem_responses!(pub(super) PostSearchChatFails:
    MalformedJson, MalformedQuery, AppNotFound, ChatNotFound, RequestTimeout, PayloadTooLarge,
    UnsupportedMediaType, QueryBlank, QueryTooLong, ReadModelUnavailable, ReadModelBehind);
problem_responses!(pub(super) SearchAppFails:
    MalformedQuery, AppNotFound, QueryBlank, QueryTooLong, ReadModelUnavailable, ReadModelBehind);
problem_responses!(pub(super) PostSearchAppFails:
    MalformedJson, MalformedQuery, AppNotFound, RequestTimeout, PayloadTooLarge, UnsupportedMediaType,
    QueryBlank, QueryTooLong, ReadModelUnavailable, ReadModelBehind);

/// Search a chat
///
/// Case and diacritics do not matter. Every word must match: as a whole word, as the start of one, or inside one.
#[utoipa::path(
    post, path = "/apps/{app_token}/chats/{chat_number}/messages/search", tag = openapi::SEARCH,
    params(ChatPath, openapi::FreshnessHeaders), request_body = SearchBody,
    responses(
        (status = 200, description = "Hits; none: an empty array", body = Hits, headers(
            ("Consistency-Token" = String, description = "The snapshot that this was answered from"),
            ("Read-Model-Lag" = u64, description = "Milliseconds by which that trails the log"),
        )),
        PostSearchChatFails,
    ),
)]
pub(super) async fn search_chat(
    State(api): State<QueryContext>,
    path: ChatPath,
    freshness: Freshness,
    JsonBody(body): JsonBody<SearchBody>,
) -> Result<Response, Problem> {
    let request = body.into_request(Scope::Chat(path.app_token, path.chat_number))?;
    api.search_messages_in_chat(path, freshness, request).await
}

/// Search a chat, by URL
#[utoipa::path(
    get, path = "/apps/{app_token}/chats/{chat_number}/messages/search", tag = openapi::SEARCH,
    params(ChatPath, SearchParams, openapi::FreshnessHeaders),
    responses(
        (status = 200, description = "Hits; none: an empty array", body = Hits, headers(
            ("Consistency-Token" = String, description = "The snapshot that this was answered from"),
            ("Read-Model-Lag" = u64, description = "Milliseconds by which that trails the log"),
        )),
        SearchChatFails,
    ),
)]
pub(super) async fn search_chat_by_url(
    State(api): State<QueryContext>,
    path: ChatPath,
    freshness: Freshness,
    Query(params): Query<SearchParams>,
) -> Result<Response, Problem> {
    let request = params.into_request(Scope::Chat(path.app_token, path.chat_number))?;
    api.search_messages_in_chat(path, freshness, request).await
}

/// Search all chats of an app
///
/// As in one chat; each hit says its chat.
#[utoipa::path(
    post, path = "/apps/{app_token}/messages/search", tag = openapi::SEARCH,
    params(AppPath, openapi::FreshnessHeaders), request_body = SearchBody,
    responses(
        (status = 200, description = "Hits; none: an empty array", body = Hits, headers(
            ("Consistency-Token" = String, description = "The snapshot that this was answered from"),
            ("Read-Model-Lag" = u64, description = "Milliseconds by which that trails the log"),
        )),
        PostSearchAppFails,
    ),
)]
pub(super) async fn search_app(
    State(api): State<QueryContext>,
    path: AppPath,
    freshness: Freshness,
    JsonBody(body): JsonBody<SearchBody>,
) -> Result<Response, Problem> {
    let request = body.into_request(Scope::App(path.app_token))?;
    api.search_messages_in_app(path, freshness, request).await
}

/// Search all chats of an app, by URL
#[utoipa::path(
    get, path = "/apps/{app_token}/messages/search", tag = openapi::SEARCH,
    params(AppPath, SearchParams, openapi::FreshnessHeaders),
    responses(
        (status = 200, description = "Hits; none: an empty array", body = Hits, headers(
            ("Consistency-Token" = String, description = "The snapshot that this was answered from"),
            ("Read-Model-Lag" = u64, description = "Milliseconds by which that trails the log"),
        )),
        SearchAppFails,
    ),
)]
pub(super) async fn search_app_by_url(
    State(api): State<QueryContext>,
    path: AppPath,
    freshness: Freshness,
    Query(params): Query<SearchParams>,
) -> Result<Response, Problem> {
    let request = params.into_request(Scope::App(path.app_token))?;
    api.search_messages_in_app(path, freshness, request).await
}
