//! `GET /apps`, `GET /apps/{app_token}`

use axum::Json;
use axum::extract::{OriginalUri, State};
use axum::response::{IntoResponse, Response};
use chat_domain::{Position, Timestamp};
use chat_ports::read_model::AppRow;
use chat_web::admin_auth::AuthorizedAdmin;
use chat_web::consistency::Freshness;
use chat_web::extract::{AppPath, IfNoneMatch, Query};
use chat_web::{Problem, openapi, problem_responses};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{time, versioned_response};
use crate::api::QueryContext;
use crate::pagination::{Cursor, Links, PageLimits};
use crate::response_position::{ResponsePosition, require_existing};

/// An app.
#[derive(Serialize, ToSchema)]
pub(super) struct App {
    /// Its name.
    #[schema(example = "first_app")]
    name: String,
    /// Its only credential.
    #[schema(example = "9vFRRV7QaTDRcVtWjbSMWCQGQnHJAZKBPXyT", min_length = 36, max_length = 36)]
    app_token: String,
    /// Chats in it.
    #[schema(example = 2)]
    chat_count: u64,
    #[serde(serialize_with = "time")]
    #[schema(value_type = String, format = DateTime, example = "2026-09-21T14:13:20.007Z")]
    created_at: Timestamp,
    /// When it was last renamed, got a chat, or was created.
    #[serde(serialize_with = "time")]
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

/// Which part of a list.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// Items on a page, 1 to 100; 50 unless given.
    #[param(value_type = Option<u64>, minimum = 1, maximum = 100)]
    pub(super) limit: Option<String>,
    /// Where the page starts: taken from `Link`, as it is.
    pub(super) cursor: Option<String>,
}

problem_responses!(pub(super) ListAppsFails:
    MalformedQuery, AdminTokenMissing, AdminTokenWrong, ReadModelUnavailable, ReadModelBehind);

/// List all apps
///
/// For operators: the answer holds every app's token. In the order of creation.
#[utoipa::path(
    get, path = "/apps", tag = openapi::APPS, params(ListParams, openapi::FreshnessHeaders),
    security(("admin" = [])),
    responses(
        (status = 200, description = "A page of apps", body = Vec<App>, headers(
            ("Link" = String, description = "The `next` page, if there is one"),
            ("Consistency-Token" = String, description = "The snapshot that this was answered from"),
            ("Read-Model-Lag" = u64, description = "Milliseconds by which that trails the log"),
        )),
        ListAppsFails,
    ),
)]
pub(super) async fn list_apps(
    _: AuthorizedAdmin,
    State(api): State<QueryContext>,
    OriginalUri(uri): OriginalUri,
    freshness: Freshness,
    Query(params): Query<ListParams>,
) -> Result<Response, Problem> {
    let limit = PageLimits::LIST.parse(params.limit.as_deref())?;
    let after = match &params.cursor {
        Some(cursor) => Position::new(Cursor::<1>::parse('a', cursor)?.key[0]),
        None => Position::START,
    };
    let snapshot =
        api.query_read_model(freshness, || api.projections.read_model.apps(after, limit + 1)).await?;
    let standing = ResponsePosition::for_projection(&api, snapshot.position).await;
    let mut rows = snapshot.value;
    let mut links = Links::default();
    if rows.len() > limit {
        rows.truncate(limit);
        if let Some(last) = rows.last() {
            let cursor = Cursor { kind: 'a', key: [last.created_position.get()] };
            links.add(&uri, "next", "cursor", cursor);
        }
    }
    let apps: Vec<App> = rows.into_iter().map(App::from).collect();
    Ok((standing, links.into_header(), Json(apps)).into_response())
}

problem_responses!(pub(super) ShowAppFails: MalformedQuery, AppNotFound, ReadModelUnavailable, ReadModelBehind);

/// Show an app
#[utoipa::path(
    get, path = "/apps/{app_token}", tag = openapi::APPS,
    params(AppPath, openapi::FreshnessHeaders, openapi::IfNoneMatchHeader),
    responses(
        (status = 200, description = "The app", body = App, headers(
            ("ETag" = String, description = "Its version"),
            ("Consistency-Token" = String, description = "The snapshot that this was answered from"),
            ("Read-Model-Lag" = u64, description = "Milliseconds by which that trails the log"),
        )),
        (status = 304, description = "The client has it already", headers(
            ("ETag" = String, description = "Its version"),
            ("Consistency-Token" = String, description = "The snapshot that this was answered from"),
            ("Read-Model-Lag" = u64, description = "Milliseconds by which that trails the log"),
        )),
        ShowAppFails,
    ),
)]
pub(super) async fn show_app(
    State(api): State<QueryContext>,
    path: AppPath,
    freshness: Freshness,
    if_none_match: IfNoneMatch,
) -> Result<Response, Problem> {
    let snapshot = api.query_read_model(freshness, || api.projections.read_model.app(path.app_token)).await?;
    let (standing, row) = require_existing(&api, snapshot).await?;
    Ok(versioned_response(standing, &if_none_match, row.version, App::from(row)))
}
