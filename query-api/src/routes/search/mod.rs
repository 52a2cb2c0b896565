//! Search queries: `POST` and `GET …/messages/search`, in a chat and in an app.

mod request;

use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use chat_domain::{MessageData, Sender, Timestamp};
use chat_ports::read_model::{Missing, ReadModelError, Snapshot};
use chat_ports::search_index::{Hit, Scope, SearchRequest, Total};
use chat_web::consistency::Freshness;
use chat_web::cursor::Cursor;
use chat_web::extract::{AppPath, ChatPath, JsonBody, Query};
use chat_web::message_fields::{MessageDataSchema, SenderSchema};
use chat_web::pagination::next_cursor_header;
use chat_web::{Problem, openapi, problem_responses};
use serde::Serialize;
use utoipa::ToSchema;

use self::request::{SearchBody, SearchParams, result_list};
use super::json::serialize_rfc3339;
use crate::api::QueryContext;
use crate::fair_share::Tenant;
use crate::monotonic_reads::raise_freshness;
use crate::response_position::{ResponsePosition, require_existing};

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
        // The app exists, so a wait counts against its share, whatever the search finds.
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
    post, path = "/api/v1/apps/{app_token}/chats/{chat_number}/messages/search", tag = openapi::SEARCH,
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
    get, path = "/api/v1/apps/{app_token}/chats/{chat_number}/messages/search", tag = openapi::SEARCH,
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
    post, path = "/api/v1/apps/{app_token}/messages/search", tag = openapi::SEARCH,
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
    get, path = "/api/v1/apps/{app_token}/messages/search", tag = openapi::SEARCH,
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
