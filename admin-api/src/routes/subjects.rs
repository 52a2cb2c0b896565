//! `/audit/explain/…`, `/audit/at/…`, `/audit/diff/…`: about an app, a chat or a message.

use axum::extract::State;
use axum::response::Response;
use chat_operations::answer::Envelope;
use chat_operations::audit::{
    Difference, ExplainError, Explanation, StateThen, Subject, at, difference, explain,
};
use chat_web::admin::Admin;
use chat_web::extract::{AppPath, ChatPath, MessagePath, Query};
use chat_web::{Problem, openapi, problem_responses};
use serde::Deserialize;
use utoipa::IntoParams;

use super::answer;
use crate::AdminApi;
use crate::query::point;

problem_responses!(pub(super) ExplainFails:
    AdminTokenMissing, AdminTokenWrong, AppNotFound, ChatNotFound, MessageNotFound, EventStoreUnavailable,
    ReadModelUnavailable);
problem_responses!(pub(super) ThenFails:
    MalformedQuery, AdminTokenMissing, AdminTokenWrong, AppNotFound, ChatNotFound, MessageNotFound,
    EventStoreUnavailable);

/// A point in the log.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ThenParams {
    /// A position, or an RFC 3339 time.
    #[param(required = true, example = "42")]
    point: Option<String>,
}

/// Two points in the log.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct BetweenParams {
    /// After this position, or RFC 3339 time.
    #[param(required = true, example = "1")]
    from: Option<String>,
    /// Up to this position, or RFC 3339 time.
    #[param(required = true, example = "42")]
    to: Option<String>,
}

async fn explained(api: &AdminApi, subject: Subject) -> Result<Response, Problem> {
    let read_model = (api.ports.read_model)();
    match explain(&*api.ports.event_store, &*read_model, subject).await {
        Ok(explanation) => Ok(answer(explanation)),
        Err(ExplainError::EventStore(error)) => Err(error.into()),
        Err(ExplainError::ReadModel(error)) => Err(error.into()),
    }
}

async fn then(api: &AdminApi, params: ThenParams, subject: Subject) -> Result<Response, Problem> {
    let log = &*api.ports.event_store;
    let position = point("point", params.point.as_deref())?.resolve(log).await?;
    Ok(answer(at(log, position, subject).await?))
}

async fn between(api: &AdminApi, params: BetweenParams, subject: Subject) -> Result<Response, Problem> {
    let log = &*api.ports.event_store;
    let from = point("from", params.from.as_deref())?.resolve(log).await?;
    let to = point("to", params.to.as_deref())?.resolve(log).await?;
    Ok(answer(difference(log, from, to, subject).await?))
}

fn app(path: AppPath) -> Subject {
    Subject::App(path.app_token)
}

fn chat(path: ChatPath) -> Subject {
    Subject::Chat(path.app_token, path.chat_number)
}

fn message(path: MessagePath) -> Subject {
    Subject::Message(path.app_token, path.chat_number, path.message_number)
}

/// Three routes for each question: one about an app, one about a chat, one about a message.
macro_rules! routes_about {
    (
        $($name:ident, $title:literal: $path:literal, $subject:ident($path_type:ty) => $ask:ident($($params:ident)?) -> $answer:ty, $fails:ty;)+
    ) => {
        $(
            #[doc = $title]
            #[utoipa::path(
                get, path = $path, tag = openapi::AUDIT, params($path_type $(, $params)?), security(("admin" = [])),
                responses((status = 200, description = "The answer", body = Envelope<$answer>), $fails),
            )]
            pub(super) async fn $name(
                _: Admin,
                State(api): State<AdminApi>,
                path: $path_type,
                $(Query(params): Query<$params>,)?
            ) -> Result<Response, Problem> {
                routes_about!(@ask $ask api ($subject(path)) $($params params)?)
            }
        )+
    };
    (@ask $ask:ident $api:ident ($subject:expr)) => { $ask(&$api, $subject).await };
    (@ask $ask:ident $api:ident ($subject:expr) $params:ident $given:ident) => { $ask(&$api, $given, $subject).await };
}

routes_about! {
    explain_app, "Explain an app's row, field by field":
        "/audit/explain/apps/{app_token}", app(AppPath) => explained() -> Explanation, ExplainFails;
    explain_chat, "Explain a chat's row, field by field":
        "/audit/explain/apps/{app_token}/chats/{chat_number}", chat(ChatPath) => explained() -> Explanation, ExplainFails;
    explain_message, "Explain a message's row, field by field":
        "/audit/explain/apps/{app_token}/chats/{chat_number}/messages/{message_number}",
        message(MessagePath) => explained() -> Explanation, ExplainFails;
    app_then, "Show an app as it was":
        "/audit/at/apps/{app_token}", app(AppPath) => then(ThenParams) -> StateThen, ThenFails;
    chat_then, "Show a chat as it was":
        "/audit/at/apps/{app_token}/chats/{chat_number}", chat(ChatPath) => then(ThenParams) -> StateThen, ThenFails;
    message_then, "Show a message as it was":
        "/audit/at/apps/{app_token}/chats/{chat_number}/messages/{message_number}",
        message(MessagePath) => then(ThenParams) -> StateThen, ThenFails;
    app_difference, "Show what changed of an app":
        "/audit/diff/apps/{app_token}", app(AppPath) => between(BetweenParams) -> Difference, ThenFails;
    chat_difference, "Show what changed of a chat":
        "/audit/diff/apps/{app_token}/chats/{chat_number}", chat(ChatPath) => between(BetweenParams) -> Difference, ThenFails;
    message_difference, "Show what changed of a message":
        "/audit/diff/apps/{app_token}/chats/{chat_number}/messages/{message_number}",
        message(MessagePath) => between(BetweenParams) -> Difference, ThenFails;
}
