//! Command routes of messages: `/apps/{app_token}/chats/{chat_number}/messages` and `…/{message_number}`.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use chat_domain::metadata::ActorKind;
use chat_domain::{Event, MessageBody, MessageData, Sender, SenderName};
use chat_web::extract::{ChangePrecondition, ChatPath, IdempotencyKey, JsonBody, MessagePath};
use chat_web::message_fields::{MessageDataSchema, SenderSchema};
use chat_web::openapi::IdempotencyKeyHeader;
use chat_web::problem::Problem;
use chat_web::request_context::RequestContext;
use chat_web::{openapi, problem_responses};
use http::StatusCode;
use http::Uri;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::message_fields::JsonMember;
use super::responses::{HeaderPairs, Success, consistency_token_header, created_response};
use crate::command::Command;
use crate::idempotency::FingerprintedKey;
use crate::service::CommandService;

/// The message to create.
#[derive(Deserialize, ToSchema)]
pub(super) struct CreateMessageRequest {
    /// 1 to 65,536 bytes of UTF-8, not blank. Stored unchanged.
    #[schema(example = "The quick brown fox")]
    body: String,
    /// The sender. It never changes.
    #[serde(default)]
    #[schema(value_type = Option<SenderSchema>, required = false)]
    sender: JsonMember,
    /// The application's data.
    #[serde(default)]
    #[schema(value_type = Option<MessageDataSchema>, required = false)]
    data: JsonMember,
}

/// The message's new text, and possibly its new data. Its sender never changes: a `sender` is ignored, as other unknown
/// members are.
#[derive(Deserialize, ToSchema)]
pub(super) struct EditMessageRequest {
    /// 1 to 65,536 bytes of UTF-8, not blank. Stored unchanged.
    #[schema(example = "The quick brown fox")]
    body: String,
    /// The application's new data. `null` removes the data; without this member, it stays as it is.
    #[serde(default)]
    #[schema(value_type = Option<MessageDataSchema>, required = false)]
    data: JsonMember,
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
    CreateProblems: MalformedJson, BodyInvalid, AppNotFound, ChatNotFound, IdempotencyInFlight, PayloadTooLarge, UnsupportedMediaType,
    RequestTimeout, BodyBlank, BodyTooLong, TextInvalid, SenderInvalid, DataInvalid, DataTooLarge, IdempotencyKeyInvalid, IdempotencyKeyReused,
    EventStoreUnavailable, StreamTruncated, CountersUnavailable, OutcomeUnknown
);
problem_responses!(
    EditProblems: MalformedJson, BodyInvalid, AppNotFound, ChatNotFound, MessageNotFound, MessageDeleted, PreconditionFailed,
    PayloadTooLarge, UnsupportedMediaType, RequestTimeout, BodyBlank, BodyTooLong, TextInvalid, DataInvalid, DataTooLarge,
    EventStoreUnavailable, StreamTruncated, OutcomeUnknown
);
problem_responses!(
    DeleteProblems: AppNotFound, ChatNotFound, MessageNotFound, MessageDeleted, PreconditionFailed, EventStoreUnavailable, StreamTruncated,
    OutcomeUnknown
);

/// Create a message
///
/// A repetition with the same `Idempotency-Key`, body, sender and data creates nothing and returns the same number. The
/// text of `data` must be the same, except for white space.
#[utoipa::path(
    post, path = "/api/v1/apps/{app_token}/chats/{chat_number}/messages", tag = openapi::MESSAGES,
    params(ChatPath, IdempotencyKeyHeader), request_body = CreateMessageRequest,
    responses(
        (status = 201, description = "Created, durably", body = MessageCreated, headers(
            ("Location" = String, description = "The location of the message"),
            ("Idempotency-Replayed" = String, description = "`true` if an earlier request with the same key created it"),
        )),
        CreateProblems,
    ),
)]
pub(super) async fn create_message(
    State(service): State<CommandService>,
    context: RequestContext,
    ChatPath { app_token: app, chat_number: chat }: ChatPath,
    uri: Uri,
    IdempotencyKey(key): IdempotencyKey,
    JsonBody(request): JsonBody<CreateMessageRequest>,
) -> Result<Response, Problem> {
    let body = MessageBody::parse(request.body).map_err(Problem::invalid_message_body)?;
    let (sender, data) = (request.sender.into_sender()?, request.data.into_data()?);
    let key = key
        .map(|key| FingerprintedKey::new(key, fingerprinted_payload(&body, sender.as_ref(), data.as_ref())));
    let command = Command::CreateMessage { app, chat, body, sender, data };
    let metadata = context.metadata(command.name(), ActorKind::App);
    let outcome = service.execute(command, metadata, key).await?;
    let Event::MessageCreated(event) = &outcome.event else {
        return Err(Problem::internal("the creation of a message appended an event of another type"));
    };
    let message_number = event.message_number.get();
    let body = MessageCreated { message: "Message created successfully", message_number };
    Ok(created_response(&service, &uri, message_number, &outcome, Json(body)))
}

/// Returns the payload to be fingerprinted, which must be the same in a repetition of the request: the text, then the
/// sender's id, the sender's name and the data, each after a NUL. None of the four can hold a NUL. Without sender and
/// data, the payload is the text alone, so that fingerprints from before messages had a sender and data stay valid.
fn fingerprinted_payload(body: &MessageBody, sender: Option<&Sender>, data: Option<&MessageData>) -> String {
    let mut payload = body.as_str().to_owned();
    if sender.is_some() || data.is_some() {
        let id = sender.map_or("", |sender| sender.id.as_str());
        let name = sender.and_then(|sender| sender.name.as_ref()).map_or("", SenderName::as_str);
        for part in [id, name, data.map_or("", MessageData::as_str)] {
            payload.push('\0');
            payload.push_str(part);
        }
    }
    payload
}

/// Edit a message
///
/// Its earlier texts stay in its history. With `If-Match`, only the version with this `ETag` is edited: other edits are
/// not overwritten.
#[utoipa::path(
    put, path = "/api/v1/apps/{app_token}/chats/{chat_number}/messages/{message_number}", tag = openapi::MESSAGES,
    params(MessagePath, ("If-Match" = Option<String>, Header, description = "Edit only the version with this `ETag`"),
        ("If-None-Match" = Option<String>, Header, description = "Do not edit the version with this `ETag`; `*`: any version")),
    request_body = EditMessageRequest,
    responses(
        (status = 200, description = "Edited, durably", body = Success),
        EditProblems,
    ),
)]
pub(super) async fn edit_message(
    State(service): State<CommandService>,
    context: RequestContext,
    MessagePath { app_token: app, chat_number: chat, message_number: message }: MessagePath,
    ChangePrecondition(precondition): ChangePrecondition,
    JsonBody(request): JsonBody<EditMessageRequest>,
) -> Result<(HeaderPairs<1>, Json<Success>), Problem> {
    let body = MessageBody::parse(request.body).map_err(Problem::invalid_message_body)?;
    let data = request.data.into_data_change()?;
    let command = Command::EditMessage { app, chat, message, body, data, precondition };
    let metadata = context.metadata(command.name(), ActorKind::App);
    let outcome = service.execute(command, metadata, None).await?;
    Ok((consistency_token_header(&service, &outcome), Json(Success::new("Message edited successfully"))))
}

/// Delete a message
///
/// Its number is never reused. With `If-Match`, only the version with this `ETag` is deleted.
#[utoipa::path(
    delete, path = "/api/v1/apps/{app_token}/chats/{chat_number}/messages/{message_number}", tag = openapi::MESSAGES,
    params(MessagePath, ("If-Match" = Option<String>, Header, description = "Delete only the version with this `ETag`"),
        ("If-None-Match" = Option<String>, Header, description = "Do not delete the version with this `ETag`; `*`: any version")),
    responses(
        (status = 204, description = "Deleted, durably"),
        DeleteProblems,
    ),
)]
pub(super) async fn delete_message(
    State(service): State<CommandService>,
    context: RequestContext,
    MessagePath { app_token: app, chat_number: chat, message_number: message }: MessagePath,
    ChangePrecondition(precondition): ChangePrecondition,
) -> Result<(StatusCode, HeaderPairs<1>), Problem> {
    let command = Command::DeleteMessage { app, chat, message, precondition };
    let metadata = context.metadata(command.name(), ActorKind::App);
    let outcome = service.execute(command, metadata, None).await?;
    Ok((StatusCode::NO_CONTENT, consistency_token_header(&service, &outcome)))
}
