//! Search queries: `POST` and `GET …/messages/search`, in a chat and in an app.

use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use chat_domain::{MessageData, Position, Sender, SenderId, Timestamp};
use chat_ports::read_model::{Missing, ReadModelError, Snapshot};
use chat_ports::search_index::{Hit, Scope, SearchCursor, SearchRequest, Sort, Total};
use chat_web::consistency::Freshness;
use chat_web::cursor::{Cursor, ListId};
use chat_web::extract::{AppPath, ChatPath, JsonBody, Query, malformed_parameter, refuse_unescaped_plus};
use chat_web::message_fields::{MessageDataSchema, SenderSchema};
use chat_web::pagination::next_cursor_header;
use chat_web::{ErrorCode, Problem, openapi, problem_responses};
use serde::{Deserialize, Serialize};
use serde_json::Number;
use utoipa::{IntoParams, ToSchema};

use super::json::serialize_rfc3339;
use super::messages::parse_sender;
use crate::api::QueryContext;
use crate::fair_share::Tenant;
use crate::monotonic_reads::raise_freshness;
use crate::pagination::PageLimits;
use crate::response_position::{ResponsePosition, require_existing};

/// A search request.
#[derive(Deserialize, ToSchema)]
#[schema(as = SearchRequest, example = json!({ "query": "fox" }))]
pub(super) struct SearchBody {
    /// Words, all of which must match. `"two words"` is a phrase. At most 1,024 bytes and 32 words.
    #[schema(example = "fox")]
    query: String,
    /// Whether typing errors are tolerated: one in words of 4 to 7 letters, two in longer words.
    #[schema(default = false)]
    fuzzy: Option<bool>,
    /// Only messages of the sender with this id.
    #[schema(min_length = 1, max_length = 128, example = "u-17")]
    sender: Option<String>,
    /// The order of the hits.
    #[schema(value_type = Option<SearchOrder>)]
    sort: Option<String>,
    /// Only messages created at this time or later.
    #[schema(format = DateTime)]
    from: Option<String>,
    /// Only messages created at this time or earlier.
    #[schema(format = DateTime)]
    to: Option<String>,
    /// The number of hits on the page, 1 to 100.
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 100, default = 20)]
    limit: Option<Number>,
    /// The number up to which matches are counted, 0 to 1,000,000,000. A low number makes searches with many matches faster.
    #[schema(value_type = Option<u64>, minimum = 0, maximum = 1_000_000_000, default = 1_000)]
    track_total: Option<Number>,
    /// The start of the page: the `next` or `Next-Cursor` of the previous page, unchanged.
    cursor: Option<String>,
}

/// A search request in the URL.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct SearchParams {
    /// Words, all of which must match. `"two words"` is a phrase. At most 1,024 bytes and 32 words.
    #[param(required, value_type = String, example = "fox")]
    query: Option<String>,
    /// Whether typing errors are tolerated: one in words of 4 to 7 letters, two in longer words.
    #[param(value_type = Option<bool>, default = false)]
    fuzzy: Option<String>,
    /// Only messages of the sender with this id.
    #[param(min_length = 1, max_length = 128)]
    sender: Option<String>,
    /// The order of the hits.
    #[param(value_type = Option<SearchOrder>)]
    sort: Option<String>,
    /// Only messages created at this time or later.
    #[param(format = DateTime)]
    from: Option<String>,
    /// Only messages created at this time or earlier.
    #[param(format = DateTime)]
    to: Option<String>,
    /// The number of hits on the page, 1 to 100.
    #[param(value_type = Option<u64>, minimum = 1, maximum = 100, default = 20)]
    limit: Option<String>,
    /// The number up to which matches are counted, 0 to 1,000,000,000. A low number makes searches with many matches faster.
    #[param(value_type = Option<u64>, minimum = 0, maximum = 1_000_000_000, default = 1_000)]
    track_total: Option<String>,
    /// The start of the page: the `next` or `Next-Cursor` of the previous page, unchanged.
    cursor: Option<String>,
}

/// The order of hits: best match first (the newest first among equal matches), newest first, or oldest first.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase", default = "relevance")]
#[expect(
    dead_code,
    reason = "documentation only: `build_request` parses the word, so that the problem names the orders"
)]
enum SearchOrder {
    Relevance,
    Newest,
    Oldest,
}

/// A page of hits.
#[derive(Serialize, ToSchema)]
#[schema(as = SearchPage)]
pub(super) struct Hits {
    #[schema(example = "success")]
    status: &'static str,
    /// In the requested order.
    messages: Vec<FoundMessage>,
    /// The number of matching messages on all pages, up to `track_total`.
    #[schema(example = 1)]
    total: u64,
    /// `eq`: `total` is exact. `gte`: more messages match.
    #[schema(example = "eq")]
    total_relation: &'static str,
    /// The `cursor` of the next page, or null on the last page.
    #[schema(required)]
    next: Option<String>,
}

/// A matching message.
#[derive(Serialize, ToSchema)]
#[schema(as = SearchHit)]
pub(super) struct FoundMessage {
    /// The chat's number. Only in a search of the whole app.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 1, minimum = 1, nullable = false)]
    chat_number: Option<u64>,
    /// The message's number in its chat.
    #[schema(example = 1, minimum = 1)]
    message_number: u64,
    /// The message's text.
    #[schema(example = "The quick brown fox")]
    body: String,
    /// The sender, if the application named one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = SenderSchema, required = false)]
    sender: Option<Sender>,
    /// The application's data, if there is any.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = MessageDataSchema, required = false)]
    data: Option<MessageData>,
    #[serde(serialize_with = "serialize_rfc3339")]
    #[schema(value_type = String, format = DateTime, example = "2026-09-21T14:13:20.007Z")]
    created_at: Timestamp,
    /// The time of the last edit, or else of the creation.
    #[serde(serialize_with = "serialize_rfc3339")]
    #[schema(value_type = String, format = DateTime, example = "2026-09-21T14:13:20.007Z")]
    updated_at: Timestamp,
    /// HTML: the escaped text around the match, with `<mark>` around the matching parts.
    #[schema(example = "The quick brown <mark>fox</mark>")]
    snippet: String,
    /// How well the message matches. Only the order of scores is meaningful.
    score: u64,
}

impl FoundMessage {
    fn from_hit(hit: Hit, scope: Scope) -> Self {
        let document = hit.document;
        Self {
            chat_number: matches!(scope, Scope::App(_)).then_some(document.key.chat.get()),
            message_number: document.key.message.get(),
            body: document.body,
            sender: document.sender,
            data: document.data,
            created_at: document.created_at,
            updated_at: document.updated_at,
            snippet: hit.snippet,
            score: hit.score,
        }
    }
}

impl SearchBody {
    fn into_request(self, scope: Scope) -> Result<SearchRequest, Problem> {
        self.parse(scope).map_err(|problem| match problem.code() {
            // The parameters have the same names in a body and in a URL.
            ErrorCode::MalformedQuery => Problem::new(ErrorCode::BodyInvalid, problem.detail().to_owned()),
            _ => problem,
        })
    }

    fn parse(self, scope: Scope) -> Result<SearchRequest, Problem> {
        let limit = match &self.limit {
            None => PageLimits::SEARCH.default,
            Some(limit) => PageLimits::SEARCH.validate(limit.as_u64())?,
        };
        let count_up_to = match &self.track_total {
            None => DEFAULT_TRACK_TOTAL,
            Some(number) => check_track_total(number.as_u64())?,
        };
        let fuzzy = self.fuzzy.unwrap_or(false);
        build_request(
            scope,
            self.query,
            fuzzy,
            CommonParams {
                limit,
                count_up_to,
                sender: self.sender,
                sort: self.sort,
                from: self.from,
                to: self.to,
                cursor: self.cursor,
            },
        )
    }
}

impl SearchParams {
    fn into_request(self, scope: Scope) -> Result<SearchRequest, Problem> {
        refuse_unescaped_plus("from", self.from.as_deref())?;
        refuse_unescaped_plus("to", self.to.as_deref())?;
        let limit = PageLimits::SEARCH.parse(self.limit.as_deref())?;
        let count_up_to = match self.track_total.as_deref() {
            None => DEFAULT_TRACK_TOTAL,
            Some(number) => check_track_total(number.parse().ok())?,
        };
        let fuzzy = match self.fuzzy.as_deref() {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => return Err(malformed_parameter("fuzzy", "`true` or `false`")),
        };
        build_request(
            scope,
            self.query.unwrap_or_default(),
            fuzzy,
            CommonParams {
                limit,
                count_up_to,
                sender: self.sender,
                sort: self.sort,
                from: self.from,
                to: self.to,
                cursor: self.cursor,
            },
        )
    }
}

/// The number up to which matches are counted, if the client does not say.
const DEFAULT_TRACK_TOTAL: u64 = 1_000;

/// Checks a `track_total` that was parsed; `None` means that it is not a number.
fn check_track_total(number: Option<u64>) -> Result<u64, Problem> {
    const MAX: u64 = 1_000_000_000;
    let number = number.filter(|number| *number <= MAX);
    number.ok_or_else(|| malformed_parameter("track_total", "a number from 0 to 1000000000"))
}

/// The other parameters of a body or a URL, with their numbers parsed.
struct CommonParams {
    limit: usize,
    count_up_to: u64,
    sender: Option<String>,
    sort: Option<String>,
    from: Option<String>,
    to: Option<String>,
    cursor: Option<String>,
}

fn build_request(
    scope: Scope,
    query: String,
    fuzzy: bool,
    params: CommonParams,
) -> Result<SearchRequest, Problem> {
    let sort = match params.sort.as_deref() {
        None | Some("relevance") => Sort::Relevance,
        Some("newest") => Sort::Newest,
        Some("oldest") => Sort::Oldest,
        Some(_) => return Err(malformed_parameter("sort", "`relevance`, `newest` or `oldest`")),
    };
    let sender = params.sender.map(parse_sender).transpose()?;
    let from = parse_time("from", params.from.as_deref())?;
    let to = parse_time("to", params.to.as_deref())?;
    if query.trim().is_empty() {
        return Err(ErrorCode::QueryBlank.into());
    }
    let mut request = SearchRequest {
        scope,
        sender,
        query,
        fuzzy,
        sort,
        created_from: from,
        created_until: to,
        limit: params.limit,
        count_up_to: params.count_up_to,
        cursor: None,
        min_position: None,
    };
    request.cursor =
        params.cursor.as_deref().map(|cursor| parse_cursor(result_list(&request), cursor)).transpose()?;
    Ok(request)
}

/// Returns the id of the hits of a search.
fn result_list(request: &SearchRequest) -> ListId {
    let SearchRequest {
        scope,
        sender,
        query,
        fuzzy,
        sort,
        created_from,
        created_until,
        limit: _,
        count_up_to: _,
        cursor: _,
        min_position: _,
    } = request;
    let chat = match scope {
        Scope::App(_) => None,
        Scope::Chat(_, chat) => Some(chat.get().to_string()),
    };
    let sort = match sort {
        Sort::Relevance => None,
        Sort::Newest => Some("newest"),
        Sort::Oldest => Some("oldest"),
    };
    let [from, to] = [created_from, created_until].map(|time| time.map(|time| time.millis().to_string()));
    ListId::new('s', format_args!("{}", scope.app().expose()))
        .with("chat", chat.as_deref())
        .with("fuzzy", fuzzy.then_some("true"))
        .with("sort", sort)
        .with("from", from.as_deref())
        .with("to", to.as_deref())
        .with("sender", sender.as_ref().map(SenderId::as_str))
        .with("query", Some(query))
}

fn parse_time(parameter: &str, text: Option<&str>) -> Result<Option<Timestamp>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let time = Timestamp::parse_rfc3339(text);
    time.map(Some)
        .ok_or_else(|| malformed_parameter(parameter, "an RFC 3339 time, such as 2026-09-21T14:13:20Z"))
}

fn parse_cursor(list: ListId, text: &str) -> Result<SearchCursor, Problem> {
    let [score, position] = Cursor::parse(list, text)?.key;
    Ok(SearchCursor { score, position: Position::new(position) })
}

impl QueryContext {
    /// Searches after `find_scope` has shown that the app or chat exists.
    async fn search_messages<T, F>(
        &self,
        freshness: Freshness,
        request: SearchRequest,
        find_scope: impl Fn() -> F,
    ) -> Result<Response, Problem>
    where
        F: Future<Output = Result<Snapshot<Result<T, Missing>>, ReadModelError>>,
    {
        let started = Instant::now();
        self.projections.search.check_query(&request.query)?;
        let app = request.scope.app();
        require_existing(self, self.query_app(app, freshness, find_scope).await?).await?;
        // The client's maximum wait applies to both projections together.
        let freshness =
            Freshness { max_wait: freshness.max_wait.saturating_sub(started.elapsed()), ..freshness };
        let freshness = raise_freshness(freshness, self.minimum_positions.search_index);
        let request = SearchRequest { min_position: freshness.min_position, ..request };
        let progress = self.projections.progress.search.as_ref();
        let search = || self.projections.search.search(&request);
        // The app exists, so the query counts for it whatever the search finds.
        let page = self
            .shared
            .consistency_waiter
            .query_when_fresh(freshness, progress, |_| Tenant::App(app), search)
            .await?
            .value;
        self.record_search_answer(page.position);
        let position = ResponsePosition::for_projection(self, page.position).await;
        let next = page.next.map(|next| {
            Cursor { list: result_list(&request), key: [next.score, next.position.get()] }.to_string()
        });
        let messages = page.hits.into_iter().map(|hit| FoundMessage::from_hit(hit, request.scope)).collect();
        let next_cursor = next.as_deref().and_then(next_cursor_header);
        let total_relation = match page.total {
            Total::Exactly(_) => "eq",
            Total::MoreThan(_) => "gte",
        };
        let total = page.total.count();
        let body = Hits { status: "success", messages, total, total_relation, next };
        Ok((position, next_cursor, Json(body)).into_response())
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

problem_responses!(pub(super) SearchChatProblems:
    MalformedHeader, ConsistencyTokenUnknown, AppNotFound, ChatNotFound, QueryBlank, QueryTooLong, EventStoreUnavailable, ReadModelUnavailable, ReadModelBehind);
problem_responses!(pub(super) PostSearchChatProblems:
    MalformedJson, BodyInvalid, MalformedHeader, ConsistencyTokenUnknown, AppNotFound, ChatNotFound, RequestTimeout, PayloadTooLarge,
    UnsupportedMediaType, QueryBlank, QueryTooLong, EventStoreUnavailable, ReadModelUnavailable, ReadModelBehind);
problem_responses!(pub(super) SearchAppProblems:
    MalformedHeader, ConsistencyTokenUnknown, AppNotFound, QueryBlank, QueryTooLong, EventStoreUnavailable, ReadModelUnavailable, ReadModelBehind);
problem_responses!(pub(super) PostSearchAppProblems:
    MalformedJson, BodyInvalid, MalformedHeader, ConsistencyTokenUnknown, AppNotFound, RequestTimeout, PayloadTooLarge, UnsupportedMediaType,
    QueryBlank, QueryTooLong, EventStoreUnavailable, ReadModelUnavailable, ReadModelBehind);

/// Search a chat
///
/// Ignores case and diacritics. Every word must match: as a whole word, as a prefix, or inside a word.
#[utoipa::path(
    post, path = "/apps/{app_token}/chats/{chat_number}/messages/search", tag = openapi::SEARCH,
    params(ChatPath, openapi::FreshnessHeaders), request_body = SearchBody,
    responses(
        (status = 200, description = "A page of hits, possibly empty", body = Hits, headers(
            ("Next-Cursor" = String, description = "The `cursor` of the next page, if there is one"),
        )),
        PostSearchChatProblems,
    ),
)]
pub(super) async fn search_chat(
    State(context): State<QueryContext>,
    path: ChatPath,
    freshness: Freshness,
    JsonBody(body): JsonBody<SearchBody>,
) -> Result<Response, Problem> {
    let request = body.into_request(Scope::Chat(path.app_token, path.chat_number))?;
    context.search_messages_in_chat(path, freshness, request).await
}

/// Search a chat, by URL
///
/// The same search, with its parameters in the URL.
#[utoipa::path(
    get, path = "/apps/{app_token}/chats/{chat_number}/messages/search", tag = openapi::SEARCH,
    params(ChatPath, SearchParams, openapi::FreshnessHeaders),
    responses(
        (status = 200, description = "A page of hits, possibly empty", body = Hits, headers(
            ("Next-Cursor" = String, description = "The `cursor` of the next page, if there is one"),
        )),
        SearchChatProblems,
    ),
)]
pub(super) async fn search_chat_by_url(
    State(context): State<QueryContext>,
    path: ChatPath,
    freshness: Freshness,
    Query(params): Query<SearchParams>,
) -> Result<Response, Problem> {
    let request = params.into_request(Scope::Chat(path.app_token, path.chat_number))?;
    context.search_messages_in_chat(path, freshness, request).await
}

/// Search all chats of an app
///
/// As in one chat. Each hit contains its chat number.
#[utoipa::path(
    post, path = "/apps/{app_token}/messages/search", tag = openapi::SEARCH,
    params(AppPath, openapi::FreshnessHeaders), request_body = SearchBody,
    responses(
        (status = 200, description = "A page of hits, possibly empty", body = Hits, headers(
            ("Next-Cursor" = String, description = "The `cursor` of the next page, if there is one"),
        )),
        PostSearchAppProblems,
    ),
)]
pub(super) async fn search_app(
    State(context): State<QueryContext>,
    path: AppPath,
    freshness: Freshness,
    JsonBody(body): JsonBody<SearchBody>,
) -> Result<Response, Problem> {
    let request = body.into_request(Scope::App(path.app_token))?;
    context.search_messages_in_app(path, freshness, request).await
}

/// Search all chats of an app, by URL
///
/// The same search, with its parameters in the URL.
#[utoipa::path(
    get, path = "/apps/{app_token}/messages/search", tag = openapi::SEARCH,
    params(AppPath, SearchParams, openapi::FreshnessHeaders),
    responses(
        (status = 200, description = "A page of hits, possibly empty", body = Hits, headers(
            ("Next-Cursor" = String, description = "The `cursor` of the next page, if there is one"),
        )),
        SearchAppProblems,
    ),
)]
pub(super) async fn search_app_by_url(
    State(context): State<QueryContext>,
    path: AppPath,
    freshness: Freshness,
    Query(params): Query<SearchParams>,
) -> Result<Response, Problem> {
    let request = params.into_request(Scope::App(path.app_token))?;
    context.search_messages_in_app(path, freshness, request).await
}

#[cfg(test)]
mod tests {
    use chat_domain::{AppToken, ChatNumber};

    use super::*;

    fn request(scope: Scope, body: &str) -> SearchRequest {
        serde_json::from_str::<SearchBody>(body).unwrap().into_request(scope).unwrap()
    }

    #[test]
    fn cursors_of_searches_stay_the_same_across_versions() {
        let app = AppToken::parse(&"a".repeat(36)).unwrap();
        let chat = Scope::Chat(app, ChatNumber::try_from(2).unwrap());
        let all = r#"{"query":"fox","fuzzy":true,"sender":"u-17","sort":"oldest","from":"2026-01-01T00:00:00Z","to":"2026-02-01T00:00:00Z"}"#;
        for (scope, body, cursor) in [
            (Scope::App(app), r#"{"query":"fox"}"#, "s1-2-27eedfe0"),
            (
                Scope::App(app),
                r#"{"query":"fox","fuzzy":false,"sort":"relevance","limit":5}"#,
                "s1-2-27eedfe0",
            ),
            (chat, r#"{"query":"fox","sort":"newest"}"#, "s1-2-85464713"),
            (chat, all, "s1-2-f1e40566"),
        ] {
            let list = result_list(&request(scope, body));
            assert_eq!(Cursor { list, key: [1, 2] }.to_string(), cursor, "{body}");
        }
    }

    #[test]
    fn a_query_that_looks_like_a_sender_makes_another_list() {
        let app = Scope::App(AppToken::parse(&"a".repeat(36)).unwrap());
        let of_sender = request(app, r#"{"query":"x","sender":"u"}"#);
        for query in [r#"{"query":"\"u\" x"}"#, r#"{"query":"u x"}"#, r#"{"query":"x"}"#] {
            assert_ne!(result_list(&request(app, query)), result_list(&of_sender), "{query}");
        }
    }
}
