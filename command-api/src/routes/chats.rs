//! Command routes of chats: `/apps/{app_token}/chats`.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use chat_domain::Event;
use chat_domain::metadata::ActorKind;
use chat_web::extract::{AppPath, IdempotencyKey, OptionalJsonBody};
use chat_web::openapi::IdempotencyKeyHeader;
use chat_web::problem::Problem;
use chat_web::request_context::RequestContext;
use chat_web::{openapi, problem_responses};
use http::Uri;
use serde::Serialize;
use utoipa::ToSchema;

use super::responses::created_response;
use crate::command::Command;
use crate::idempotency::FingerprintedKey;
use crate::service::CommandService;

/// A new chat.
#[derive(Serialize, ToSchema)]
struct ChatCreated {
    #[schema(example = "Chat created successfully")]
    message: &'static str,
    /// The chat's number in the app: one more than the last.
    #[schema(minimum = 1, example = 1)]
    chat_number: u64,
}

problem_responses!(
    CreateProblems: MalformedJson, AppNotFound, IdempotencyInFlight, PayloadTooLarge, UnsupportedMediaType, RequestTimeout,
    IdempotencyKeyInvalid, IdempotencyKeyReused, EventStoreUnavailable, StreamTruncated, CountersUnavailable, OutcomeUnknown
);

/// Create a chat
///
/// The chat accepts messages as soon as the response is sent. No body is needed; any JSON is accepted and ignored, but
/// a repetition with the same `Idempotency-Key` must have the same body.
#[utoipa::path(
    post, path = "/api/v1/apps/{app_token}/chats", tag = openapi::CHATS, params(AppPath, IdempotencyKeyHeader),
    responses(
        (status = 201, description = "Created, durably", body = ChatCreated, headers(
            ("Location" = String, description = "The location of the chat"),
            ("Idempotency-Replayed" = String, description = "`true` if an earlier request with the same key created it"),
        )),
        CreateProblems,
    ),
)]
pub(super) async fn create_chat(
    State(service): State<CommandService>,
    context: RequestContext,
    AppPath { app_token: app }: AppPath,
    uri: Uri,
    IdempotencyKey(key): IdempotencyKey,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<Response, Problem> {
    let command = Command::CreateChat { app };
    let metadata = context.metadata(command.name(), ActorKind::App);
    let key = key.map(|key| FingerprintedKey::new(key, body));
    let outcome = service.execute(command, metadata, key).await?;
    let Event::ChatCreated(event) = &outcome.event else {
        return Err(Problem::internal("the creation of a chat appended an event of another type"));
    };
    let chat_number = event.chat_number.get();
    let body = ChatCreated { message: "Chat created successfully", chat_number };
    Ok(created_response(&service, &uri, chat_number, &outcome, Json(body)))
}
