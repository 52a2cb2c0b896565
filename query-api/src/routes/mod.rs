//! The HTTP routes of queries.

#![expect(unused_qualifications, reason = "utoipa's macro repeats the types it is given as paths of its own")]
#![expect(clippy::struct_field_names, reason = "fields are named as they are on the wire")]

mod apps;
mod chats;
mod history;
mod messages;
mod search;

use axum::Json;
use axum::response::{IntoResponse, Response};
use chat_domain::{Timestamp, Version};
use chat_ports::read_model::{ReadModelError, Snapshot};
use chat_web::Problem;
use chat_web::consistency::Freshness;
use chat_web::extract::{IfNoneMatch, etag};
use http::header::{CONTENT_TYPE, ETAG};
use http::{HeaderValue, StatusCode};
use serde::{Serialize, Serializer};
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::QueryApi;
use crate::api::QueryContext;
use crate::response_position::ResponsePosition;

/// All routes that read, and their part of the OpenAPI document. Mount them under the API's prefix.
pub fn router(api: QueryApi) -> OpenApiRouter {
    routes().with_state(api)
}

/// What [`router`] serves, for processes that do not: the document describes the whole API wherever it is asked for.
pub fn openapi_document() -> OpenApi {
    routes().into_openapi()
}

fn routes() -> OpenApiRouter<QueryApi> {
    OpenApiRouter::new()
        .routes(routes!(apps::list_apps))
        .routes(routes!(apps::show_app))
        .routes(routes!(chats::list_chats))
        .routes(routes!(chats::show_chat))
        .routes(routes!(messages::list_messages))
        .routes(routes!(messages::show_message))
        .routes(routes!(history::show_history))
        .routes(routes!(search::search_chat, search::search_chat_by_url))
        .routes(routes!(search::search_app, search::search_app_by_url))
}

impl QueryContext {
    /// Asks the read model, fresh enough.
    async fn query_read_model<T, F>(
        &self,
        freshness: Freshness,
        query: impl Fn() -> F,
    ) -> Result<Snapshot<T>, Problem>
    where
        F: Future<Output = Result<Snapshot<T>, ReadModelError>>,
    {
        let freshness = self.minimum_positions.raise_read_model_freshness(freshness);
        let answer = self
            .shared
            .consistency_waiter
            .query_when_fresh(freshness, self.projections.progress.read_model.as_ref(), query)
            .await?;
        self.record_read_model_answer(answer.position);
        Ok(answer)
    }
}

/// A resource that has a version: 304 where the client has it already.
fn versioned_response<T: Serialize>(
    standing: ResponsePosition,
    had: &IfNoneMatch,
    version: Version,
    body: T,
) -> Response {
    let tag = [(ETAG, etag(version))];
    if had.matches(version) {
        return (StatusCode::NOT_MODIFIED, standing, tag).into_response();
    }
    (standing, tag, Json(body)).into_response()
}

/// A time as clients read it.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn time<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(at.to_rfc3339().as_str())
}

/// An answer of about so many bytes of JSON: one that had to grow would be copied each time.
fn json_response<T: Serialize>(bytes: usize, body: &T) -> Result<Response, Problem> {
    let mut json = Vec::with_capacity(bytes);
    serde_json::to_writer(&mut json, body).map_err(Problem::internal)?;
    Ok(([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], json).into_response())
}
