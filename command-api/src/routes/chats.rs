//! `/apps/{app_token}/chats`

use axum::Json;
use axum::extract::{OriginalUri, State};
use axum::response::Response;
use chat_domain::Event;
use chat_domain::metadata::ActorKind;
use chat_web::extract::{AppPath, OptionalJsonBody};
use chat_web::problem::Problem;
use chat_web::request::RequestContext;
use chat_web::{openapi, problem_responses};
use serde::Serialize;
use utoipa::ToSchema;

use super::created;
use crate::command::Command;
use crate::writer::CommandHandler;

/// A new chat.
#[derive(Serialize, ToSchema)]
struct ChatCreated {
    #[schema(example = "Chat created successfully")]
    message: &'static str,
    /// Its number in the app: one more than the last.
    #[schema(minimum = 1, example = 1)]
    chat_number: u64,
}

problem_responses!(
    CreateFails: MalformedJson, AppNotFound, PayloadTooLarge, UnsupportedMediaType, RequestTimeout,
    EventStoreUnavailable, CountersUnavailable, OutcomeUnknown
);

/// Create a chat
///
/// It takes messages from the moment of the answer. A body is not needed; any JSON is taken and ignored.
#[utoipa::path(
    post, path = "/apps/{app_token}/chats", tag = openapi::CHATS, params(AppPath),
    request_body(content = Option<Object>, description = "Nothing, or any JSON"),
    responses(
        (status = 201, description = "Created, durably", body = ChatCreated, headers(
            ("Location" = String, description = "Where the chat is"),
            ("Consistency-Token" = String, description = "Send it with a query to see at least this"),
        )),
        CreateFails,
    ),
)]
pub(super) async fn create_chat(
    State(handler): State<CommandHandler>,
    context: RequestContext,
    AppPath { app_token: app }: AppPath,
    uri: OriginalUri,
    _: OptionalJsonBody,
) -> Result<Response, Problem> {
    let command = Command::CreateChat { app };
    let metadata = context.metadata(command.name(), ActorKind::App);
    let recorded = handler.handle(command, &metadata).await?;
    let Event::ChatCreated(event) = recorded.event else {
        return Err(Problem::internal("a chat's creation recorded something else"));
    };
    let chat_number = event.chat_number.get();
    let body = ChatCreated { message: "Chat created successfully", chat_number };
    Ok(created(&uri, chat_number, recorded.position, Json(body)))
}
