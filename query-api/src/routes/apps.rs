//! App queries: `GET /apps`, `GET /apps/{app_token}`.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use chat_domain::{Position, Timestamp};
use chat_ports::read_model::AppRow;
use chat_web::admin_auth::ReadingOperator;
use chat_web::consistency::Freshness;
use chat_web::cursor::{Cursor, ListId};
use chat_web::extract::{AppPath, IfNoneMatch, Query};
use chat_web::pagination::{PageLinks, Relation};
use chat_web::{Problem, openapi, problem_responses};
use http::Uri;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::json::{serialize_rfc3339, versioned_response};
use crate::api::QueryContext;
use crate::fair_share::Tenant;
use crate::pagination::{PAGE_SELECTORS, PageLimits};
use crate::response_position::{ResponsePosition, require_existing};

/// An app.
#[derive(Serialize, ToSchema)]
pub(super) struct App {
    /// The app's name.
    #[schema(example = "first_app")]
    name: String,
    /// The app's only credential.
    #[schema(example = "9vFRRV7QaTDRcVtWjbSMWCQGQnHJAZKBPXyT", min_length = 36, max_length = 36)]
    app_token: String,
    /// The number of chats in the app.
    #[schema(example = 1)]
    chat_count: u64,
    #[serde(serialize_with = "serialize_rfc3339")]
    #[schema(value_type = String, format = DateTime, example = "2026-09-21T14:13:20.007Z")]
    created_at: Timestamp,
    /// The time of the last change: creation, renaming, or a new chat.
    #[serde(serialize_with = "serialize_rfc3339")]
    #[schema(value_type = String, format = DateTime, example = "2026-09-21T14:13:20.007Z")]
    updated_at: Timestamp,
}

impl From<AppRow> for App {
    fn from(row: AppRow) -> Self {
        Self {
            name: row.name.into_string(),
            app_token: row.token.expose().to_owned(),
            chat_count: row.chat_count,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// The query parameters that select a page of a list.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// The number of items on the page, 1 to 100.
    #[param(value_type = Option<u64>, minimum = 1, maximum = 100, default = 50)]
    pub(super) limit: Option<String>,
    /// The start of the page: the `Next-Cursor` of the previous page, unchanged.
    pub(super) cursor: Option<String>,
}

problem_responses!(pub(super) ListAppsProblems:
    MalformedHeader, ConsistencyTokenUnknown, AdminTokenMissing, AdminTokenWrong, EventStoreUnavailable, ReadModelUnavailable, ReadModelBehind);

/// List all apps
///
/// Lists the apps in the order of their creation. For operators only: the response contains every app's token.
#[utoipa::path(
    get, path = "/api/v1/apps", tag = openapi::APPS, params(ListParams, openapi::FreshnessHeaders),
    security(("admin" = [])),
    responses(
        (status = 200, description = "A page of apps", body = Vec<App>, headers(
            ("Link" = String, description = "The `next` page, if there is one"),
            ("Next-Cursor" = String, description = "The `cursor` of the next page, if there is one"),
        )),
        ListAppsProblems,
    ),
)]
pub(super) async fn list_apps(
    _: ReadingOperator,
    State(context): State<QueryContext>,
    uri: Uri,
    freshness: Freshness,
    Query(params): Query<ListParams>,
) -> Result<Response, Problem> {
    let limit = PageLimits::LIST.parse(params.limit.as_deref())?;
    let list = ListId::new('a', format_args!(""));
    let after = match &params.cursor {
        Some(cursor) => Position::new(Cursor::<1>::parse(list, cursor)?.key[0]),
        None => Position::START,
    };
    let query = || context.projections.read_model.apps(after, limit + 1);
    let snapshot = context.query_read_model(freshness, |_| Tenant::Operators, query).await?;
    let position = ResponsePosition::for_projection(&context, snapshot.position).await;
    let mut rows = snapshot.value;
    let mut links = PageLinks::new(&uri, PAGE_SELECTORS);
    if rows.len() > limit {
        rows.truncate(limit);
        if let Some(last) = rows.last() {
            let cursor = Cursor { list, key: [last.created_position.get()] };
            links.add(Relation::Next, "cursor", cursor, cursor);
        }
    }
    let apps: Vec<App> = rows.into_iter().map(App::from).collect();
    Ok((position, links.into_headers(), Json(apps)).into_response())
}

problem_responses!(pub(super) ShowAppProblems: MalformedHeader, ConsistencyTokenUnknown, AppNotFound, EventStoreUnavailable, ReadModelUnavailable, ReadModelBehind);

/// Show an app
///
/// Its name, the number of its chats, and when it was created and changed.
#[utoipa::path(
    get, path = "/api/v1/apps/{app_token}", tag = openapi::APPS,
    params(AppPath, openapi::FreshnessHeaders, openapi::IfNoneMatchHeader),
    responses(
        (status = 200, description = "The app", body = App, headers(
            ("ETag" = String, description = "The version of the resource"),
        )),
        (status = 304, description = "The client has this version", headers(
            ("ETag" = String, description = "The version of the resource"),
        )),
        ShowAppProblems,
    ),
)]
pub(super) async fn show_app(
    State(context): State<QueryContext>,
    path: AppPath,
    freshness: Freshness,
    if_none_match: IfNoneMatch,
) -> Result<Response, Problem> {
    let query = || context.projections.read_model.app(path.app_token);
    let snapshot = context.query_app(path.app_token, freshness, query).await?;
    let (position, row) = require_existing(&context, snapshot).await?;
    Ok(versioned_response(position, &if_none_match, row.version, App::from(row)))
}
