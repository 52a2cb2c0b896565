//! Command routes of messages: `/apps/{app_token}/chats/{chat_number}/messages` and `…/{message_number}`.

use axum::Json;
use axum::extract::{OriginalUri, State};
use axum::response::Response;
use chat_domain::metadata::ActorKind;
use chat_domain::{Event, MessageBody};
use chat_web::extract::{ChatPath, IdempotencyKey, IfMatch, JsonBody, MessagePath};
use chat_web::openapi::IdempotencyKeyHeader;
use chat_web::problem::Problem;
use chat_web::request_context::RequestContext;
use chat_web::{openapi, problem_responses};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::responses::{Done, HeaderPairs, consistency_token_header, created_response};
use crate::command::Command;
use crate::idempotency::FingerprintedKey;
use crate::service::CommandService;

/// A message's text.
#[derive(Deserialize, ToSchema)]
pub(super) struct NewBody {
    /// 1 to 65,536 bytes of UTF-8, not blank. Stored unchanged.
    #[schema(example = "The quick brown fox")]
    body: String,
}

impl NewBody {
    fn parse(self) -> Result<MessageBody, Problem> {
        MessageBody::parse(self.body).map_err(Problem::invalid_message_body)
    }
}

/// A new message.
#[derive(Serialize, ToSchema)]
struct MessageCreated {
    #[schema(example = "Message created successfully")]
    message: &'static str,
    /// The message's number in the chat: one more than the last.
    #[schema(minimum = 1, example = 1)]
    message_number: u64,
}

problem_responses!(
    CreateFails: MalformedJson, BodyInvalid, AppNotFound, ChatNotFound, IdempotencyInFlight, PayloadTooLarge, UnsupportedMediaType,
    RequestTimeout, BodyBlank, BodyTooLong, TextInvalid, IdempotencyKeyInvalid, IdempotencyKeyReused,
    EventStoreUnavailable, CountersUnavailable, OutcomeUnknown
);
problem_responses!(
    EditFails: MalformedJson, BodyInvalid, AppNotFound, ChatNotFound, MessageNotFound, MessageDeleted, PreconditionFailed,
    PayloadTooLarge, UnsupportedMediaType, RequestTimeout, BodyBlank, BodyTooLong, TextInvalid,
    EventStoreUnavailable, OutcomeUnknown
);
problem_responses!(
    DeleteFails: AppNotFound, ChatNotFound, MessageNotFound, MessageDeleted, EventStoreUnavailable, OutcomeUnknown
);

/// Create a message
#[utoipa::path(
    post, path = "/apps/{app_token}/chats/{chat_number}/messages", tag = openapi::MESSAGES,
    params(ChatPath, IdempotencyKeyHeader), request_body = NewBody,
    responses(
        (status = 201, description = "Created, durably", body = MessageCreated, headers(
            ("Location" = String, description = "The location of the message"),
            ("Idempotency-Replayed" = String, description = "`true` if an earlier request with the same key created it"),
        )),
        CreateFails,
    ),
)]
pub(super) async fn create_message(
    State(service): State<CommandService>,
    context: RequestContext,
    ChatPath { app_token: app, chat_number: chat }: ChatPath,
    uri: OriginalUri,
    IdempotencyKey(key): IdempotencyKey,
    JsonBody(body): JsonBody<NewBody>,
) -> Result<Response, Problem> {
    let body = body.parse()?;
    let key = key.map(|key| FingerprintedKey::new(key, body.as_str()));
    let command = Command::CreateMessage { app, chat, body };
    let metadata = context.metadata(command.name(), ActorKind::App);
    let outcome = service.execute(command, metadata, key).await?;
    let Event::MessageCreated(event) = &outcome.event else {
        return Err(Problem::internal("the creation of a message appended an event of another type"));
    };
    let message_number = event.message_number.get();
    let body = MessageCreated { message: "Message created successfully", message_number };
    Ok(created_response(&service, &uri, message_number, &outcome, Json(body)))
}

/// Edit a message
#[utoipa::path(
    put, path = "/apps/{app_token}/chats/{chat_number}/messages/{message_number}", tag = openapi::MESSAGES,
    params(MessagePath, ("If-Match" = Option<String>, Header, description = "Edit only the version with this `ETag`")),
    request_body = NewBody,
    responses(
        (status = 200, description = "Edited, durably", body = Done),
        EditFails,
    ),
)]
pub(super) async fn edit_message(
    State(service): State<CommandService>,
    context: RequestContext,
    MessagePath { app_token: app, chat_number: chat, message_number: message }: MessagePath,
    IfMatch(precondition): IfMatch,
    JsonBody(body): JsonBody<NewBody>,
) -> Result<(HeaderPairs<1>, Json<Done>), Problem> {
    let command = Command::EditMessage { app, chat, message, body: body.parse()?, precondition };
    let metadata = context.metadata(command.name(), ActorKind::App);
    let outcome = service.execute(command, metadata, None).await?;
    Ok((consistency_token_header(&service, &outcome), Json(Done::new("Message edited successfully"))))
}

/// Delete a message
///
/// Its number is never reused.
#[utoipa::path(
    delete, path = "/apps/{app_token}/chats/{chat_number}/messages/{message_number}", tag = openapi::MESSAGES,
    params(MessagePath),
    responses(
        (status = 204, description = "Deleted, durably"),
        DeleteFails,
    ),
)]
pub(super) async fn delete_message(
    State(service): State<CommandService>,
    context: RequestContext,
    MessagePath { app_token: app, chat_number: chat, message_number: message }: MessagePath,
) -> Result<(StatusCode, HeaderPairs<1>), Problem> {
    let command = Command::DeleteMessage { app, chat, message };
    let metadata = context.metadata(command.name(), ActorKind::App);
    let outcome = service.execute(command, metadata, None).await?;
    Ok((StatusCode::NO_CONTENT, consistency_token_header(&service, &outcome)))
}
