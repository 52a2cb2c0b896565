//! `GET /audit/explain/…`, `/audit/at/…` and `/audit/diff/…`, of apps, chats and messages.

use axum::extract::State;
use chat_operations::answer::Envelope;
use chat_operations::audit::{Difference, Explanation, Point, StateThen, Subject, at, difference, explain};
use chat_web::admin::Admin;
use chat_web::extract::{AppPath, ChatPath, MessagePath, Query};
use chat_web::{Problem, openapi, problem_responses};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{LOOK_AT_MOST, unexplained};
use crate::AdminApi;
use crate::api::{Answer, framed};
use crate::query::malformed;

problem_responses!(pub(super) ExplainFails: AdminTokenMissing, AdminTokenWrong, AppNotFound, ChatNotFound,
    MessageNotFound, EventStoreUnavailable, ReadModelUnavailable);
problem_responses!(pub(super) PointFails: MalformedQuery, AdminTokenMissing, AdminTokenWrong, AppNotFound,
    ChatNotFound, MessageNotFound, EventStoreUnavailable);

/// A point in the log.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct PointParams {
    /// After which event: its position, or a time (RFC 3339, or a date), which stands for the last event recorded by then.
    #[param(value_type = String, required, example = "2026-09-21T14:13:20Z")]
    point: Option<String>,
}

/// Two points in the log.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct SpanParams {
    /// Where the difference begins: after the event at this position, or the last one recorded by this time.
    #[param(value_type = String, required, example = "17")]
    from: Option<String>,
    /// Where it ends: with the event at this position, or the last one recorded by this time.
    #[param(value_type = String, required, example = "2026-09-21T14:13:20Z")]
    to: Option<String>,
}

fn point(parameter: &str, text: Option<&str>) -> Result<Point, Problem> {
    text.and_then(Point::parse).ok_or_else(|| malformed(parameter, "given: a position in the log, or a time"))
}

impl AdminApi {
    async fn explanation(&self, subject: Subject) -> Answer<Explanation> {
        let _turn = self.turn().await?;
        let read_model = (self.read_model)();
        Ok(framed(explain(&*self.event_store, &*read_model, subject).await.map_err(unexplained)?))
    }

    async fn state_then(&self, subject: Subject, params: &PointParams) -> Answer<StateThen> {
        let point = point("point", params.point.as_deref())?;
        let _turn = self.turn().await?;
        let position = point.resolve(&*self.event_store).await?;
        Ok(framed(at(&*self.event_store, position, subject).await?))
    }

    async fn difference(&self, subject: Subject, params: &SpanParams) -> Answer<Difference> {
        let (from, to) = (point("from", params.from.as_deref())?, point("to", params.to.as_deref())?);
        let _turn = self.turn().await?;
        let (from, to) = (from.resolve(&*self.event_store).await?, to.resolve(&*self.event_store).await?);
        if from > to {
            return Err(malformed("from", "before `to` in the log"));
        }
        Ok(framed(difference(&*self.event_store, from, to, subject, LOOK_AT_MOST).await?))
    }
}

/// Explain an app
///
/// Each field of the row that readers see, with the event that set it, held against the log.
#[utoipa::path(
    get, path = "/audit/explain/apps/{app_token}", tag = openapi::AUDIT, params(AppPath),
    security(("admin" = [])),
    responses((status = 200, description = "Why it is as it is", body = Envelope<Explanation>), ExplainFails),
)]
pub(super) async fn explain_app(_: Admin, State(api): State<AdminApi>, path: AppPath) -> Answer<Explanation> {
    api.explanation(Subject::App(path.app_token)).await
}

/// Explain a chat
///
/// Each field of the row that readers see, with the event that set it, held against the log.
#[utoipa::path(
    get, path = "/audit/explain/apps/{app_token}/chats/{chat_number}", tag = openapi::AUDIT, params(ChatPath),
    security(("admin" = [])),
    responses((status = 200, description = "Why it is as it is", body = Envelope<Explanation>), ExplainFails),
)]
pub(super) async fn explain_chat(
    _: Admin,
    State(api): State<AdminApi>,
    path: ChatPath,
) -> Answer<Explanation> {
    api.explanation(Subject::Chat(path.app_token, path.chat_number)).await
}

/// Explain a message
///
/// Each field of the row that readers see, with the event that set it, held against the log.
#[utoipa::path(
    get, path = "/audit/explain/apps/{app_token}/chats/{chat_number}/messages/{message_number}", tag = openapi::AUDIT, params(MessagePath),
    security(("admin" = [])),
    responses((status = 200, description = "Why it is as it is", body = Envelope<Explanation>), ExplainFails),
)]
pub(super) async fn explain_message(
    _: Admin,
    State(api): State<AdminApi>,
    path: MessagePath,
) -> Answer<Explanation> {
    api.explanation(Subject::Message(path.app_token, path.chat_number, path.message_number)).await
}

/// Show an app as it was
///
/// By the log, after an event, each field with the event that had set it.
#[utoipa::path(
    get, path = "/audit/at/apps/{app_token}", tag = openapi::AUDIT, params(AppPath, PointParams),
    security(("admin" = [])),
    responses((status = 200, description = "How it was", body = Envelope<StateThen>), PointFails),
)]
pub(super) async fn app_at(
    _: Admin,
    State(api): State<AdminApi>,
    path: AppPath,
    Query(params): Query<PointParams>,
) -> Answer<StateThen> {
    api.state_then(Subject::App(path.app_token), &params).await
}

/// Show a chat as it was
///
/// By the log, after an event, each field with the event that had set it.
#[utoipa::path(
    get, path = "/audit/at/apps/{app_token}/chats/{chat_number}", tag = openapi::AUDIT, params(ChatPath, PointParams),
    security(("admin" = [])),
    responses((status = 200, description = "How it was", body = Envelope<StateThen>), PointFails),
)]
pub(super) async fn chat_at(
    _: Admin,
    State(api): State<AdminApi>,
    path: ChatPath,
    Query(params): Query<PointParams>,
) -> Answer<StateThen> {
    api.state_then(Subject::Chat(path.app_token, path.chat_number), &params).await
}

/// Show a message as it was
///
/// By the log, after an event, each field with the event that had set it.
#[utoipa::path(
    get, path = "/audit/at/apps/{app_token}/chats/{chat_number}/messages/{message_number}", tag = openapi::AUDIT, params(MessagePath, PointParams),
    security(("admin" = [])),
    responses((status = 200, description = "How it was", body = Envelope<StateThen>), PointFails),
)]
pub(super) async fn message_at(
    _: Admin,
    State(api): State<AdminApi>,
    path: MessagePath,
    Query(params): Query<PointParams>,
) -> Answer<StateThen> {
    api.state_then(Subject::Message(path.app_token, path.chat_number, path.message_number), &params).await
}

/// Show what changed of an app
///
/// Between two points in the log, and by which events.
#[utoipa::path(
    get, path = "/audit/diff/apps/{app_token}", tag = openapi::AUDIT, params(AppPath, SpanParams),
    security(("admin" = [])),
    responses((status = 200, description = "What changed", body = Envelope<Difference>), PointFails),
)]
pub(super) async fn app_diff(
    _: Admin,
    State(api): State<AdminApi>,
    path: AppPath,
    Query(params): Query<SpanParams>,
) -> Answer<Difference> {
    api.difference(Subject::App(path.app_token), &params).await
}

/// Show what changed of a chat
///
/// Between two points in the log, and by which events.
#[utoipa::path(
    get, path = "/audit/diff/apps/{app_token}/chats/{chat_number}", tag = openapi::AUDIT, params(ChatPath, SpanParams),
    security(("admin" = [])),
    responses((status = 200, description = "What changed", body = Envelope<Difference>), PointFails),
)]
pub(super) async fn chat_diff(
    _: Admin,
    State(api): State<AdminApi>,
    path: ChatPath,
    Query(params): Query<SpanParams>,
) -> Answer<Difference> {
    api.difference(Subject::Chat(path.app_token, path.chat_number), &params).await
}

/// Show what changed of a message
///
/// Between two points in the log, and by which events.
#[utoipa::path(
    get, path = "/audit/diff/apps/{app_token}/chats/{chat_number}/messages/{message_number}", tag = openapi::AUDIT, params(MessagePath, SpanParams),
    security(("admin" = [])),
    responses((status = 200, description = "What changed", body = Envelope<Difference>), PointFails),
)]
pub(super) async fn message_diff(
    _: Admin,
    State(api): State<AdminApi>,
    path: MessagePath,
    Query(params): Query<SpanParams>,
) -> Answer<Difference> {
    api.difference(Subject::Message(path.app_token, path.chat_number, path.message_number), &params).await
}
