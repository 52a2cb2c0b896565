//! The HTTP routes of the query API.

#![expect(unused_qualifications, reason = "utoipa's macro expands types to qualified paths")]
#![expect(clippy::struct_field_names, reason = "fields have the names of the wire format")]

mod apps;
mod chats;
mod history;
mod messages;
mod search;

use axum::Json;
use axum::response::{IntoResponse, Response};
use chat_domain::{Timestamp, Version};
use chat_ports::read_model::{ReadModelError, Snapshot};
use chat_web::consistency::Freshness;
use chat_web::extract::{IfNoneMatch, etag};
use chat_web::{Problem, openapi};
use http::header::{CONTENT_TYPE, ETAG};
use http::{HeaderValue, StatusCode};
use serde::{Serialize, Serializer};
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::QueryApi;
use crate::api::QueryContext;
use crate::monotonic_reads::raise_freshness;
use crate::response_position::ResponsePosition;

/// Creates the query routes with their OpenAPI document, to be mounted under the API's prefix.
pub fn router(api: QueryApi) -> OpenApiRouter {
    routes().with_state(api)
}

/// Returns the OpenAPI document of [`router`], for processes that do not serve it: every process serves the document of the
/// whole API.
pub fn openapi_document() -> OpenApi {
    routes().into_openapi()
}

fn routes() -> OpenApiRouter<QueryApi> {
    let mut routes = OpenApiRouter::new()
        .routes(routes!(apps::list_apps))
        .routes(routes!(apps::show_app))
        .routes(routes!(chats::list_chats))
        .routes(routes!(chats::show_chat))
        .routes(routes!(messages::list_messages))
        .routes(routes!(messages::show_message))
        .routes(routes!(history::show_history))
        .routes(routes!(search::search_chat, search::search_chat_by_url))
        .routes(routes!(search::search_app, search::search_app_by_url));
    let document = routes.get_openapi_mut();
    openapi::add_success_header::<String>(document, "Consistency-Token", "The position of the snapshot");
    openapi::add_success_header::<u64>(
        document,
        "Read-Model-Lag",
        "Milliseconds that the snapshot is behind the log",
    );
    routes
}

impl QueryContext {
    /// Queries the read model for a snapshot that is fresh enough.
    async fn query_read_model<T, F>(
        &self,
        freshness: Freshness,
        query: impl Fn() -> F,
    ) -> Result<Snapshot<T>, Problem>
    where
        F: Future<Output = Result<Snapshot<T>, ReadModelError>>,
    {
        let freshness = raise_freshness(freshness, self.minimum_positions.read_model);
        let snapshot = self
            .shared
            .consistency_waiter
            .query_when_fresh(freshness, self.projections.progress.read_model.as_ref(), query)
            .await?;
        self.record_read_model_answer(snapshot.position);
        Ok(snapshot)
    }
}

/// Creates the response for a versioned resource: 304 if the client has this version.
fn versioned_response<T: Serialize>(
    position: ResponsePosition,
    if_none_match: &IfNoneMatch,
    version: Version,
    body: T,
) -> Response {
    let tag = [(ETAG, etag(version))];
    if if_none_match.matches(version) {
        return (StatusCode::NOT_MODIFIED, position, tag).into_response();
    }
    (position, tag, Json(body)).into_response()
}

/// Serializes a time in the format of RFC 3339.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn serialize_rfc3339<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(time.to_rfc3339().as_str())
}

/// Creates a JSON response. `capacity` is its approximate size in bytes, so that the buffer need not grow.
fn json_response<T: Serialize>(capacity: usize, body: &T) -> Result<Response, Problem> {
    let mut json = Vec::with_capacity(capacity);
    serde_json::to_writer(&mut json, body).map_err(Problem::internal)?;
    Ok(([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], json).into_response())
}
