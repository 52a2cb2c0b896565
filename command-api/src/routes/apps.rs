//! Command routes of apps: `/apps` and `/apps/{app_token}`.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use chat_domain::metadata::ActorKind;
use chat_domain::{AppName, AppToken};
use chat_web::admin_auth::{ActingOperator, AdminAccess};
use chat_web::extract::{AppPath, ChangePrecondition, IdempotencyKey, JsonBody};
use chat_web::openapi::IdempotencyKeyHeader;
use chat_web::problem::Problem;
use chat_web::request_context::RequestContext;
use chat_web::{openapi, problem_responses};
use http::Uri;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::responses::{HeaderPairs, Success, consistency_token_header, created_response};
use crate::command::Command;
use crate::idempotency::FingerprintedKey;
use crate::service::CommandService;

/// The app to create.
#[derive(Deserialize, ToSchema)]
pub(super) struct CreateAppRequest {
    /// 1 to 255 characters, not blank.
    #[schema(example = "first_app", max_length = 255)]
    name: String,
}

/// The app's new name.
#[derive(Deserialize, ToSchema)]
pub(super) struct RenameAppRequest {
    /// 1 to 255 characters, not blank.
    #[schema(example = "first_app", max_length = 255)]
    name: String,
}

/// A new app.
#[derive(Serialize, ToSchema)]
struct AppCreated {
    #[schema(example = "success")]
    status: &'static str,
    #[schema(example = "App created successfully")]
    message: &'static str,
    data: AppCredentials,
}

/// A new app's credential and name.
#[derive(Serialize, ToSchema)]
struct AppCredentials {
    /// The app's only credential: it permits everything on the app.
    #[schema(example = "9vFRRV7QaTDRcVtWjbSMWCQGQnHJAZKBPXyT", min_length = 36, max_length = 36)]
    app_token: String,
    #[schema(example = "first_app")]
    name: String,
}

problem_responses!(
    CreateProblems: MalformedJson, BodyInvalid, AdminTokenMissing, AdminTokenWrong, OperatorScopeMissing, IdempotencyInFlight, PayloadTooLarge, UnsupportedMediaType, RequestTimeout, NameBlank,
    NameTooLong, TextInvalid, IdempotencyKeyInvalid, IdempotencyKeyReused, EventStoreUnavailable, StreamTruncated, CountersUnavailable,
    OutcomeUnknown
);
problem_responses!(
    RenameProblems: MalformedJson, BodyInvalid, AppNotFound, PreconditionFailed, PayloadTooLarge, UnsupportedMediaType,
    RequestTimeout, NameBlank, NameTooLong, TextInvalid, EventStoreUnavailable, StreamTruncated, OutcomeUnknown
);

/// Create an app
///
/// The response holds the app's token, its only credential. A repetition with the same `Idempotency-Key` and name returns
/// the same token, so the key must be as hard to guess as the token. A server with `--app-creation admin` requires the admin
/// token, or that of an operator with the scope `act`.
#[utoipa::path(
    post, path = "/api/v1/apps", tag = openapi::APPS, params(IdempotencyKeyHeader), request_body = CreateAppRequest,
    security((), ("admin" = [])),
    responses(
        (status = 201, description = "Created, durably", body = AppCreated, headers(
            ("Location" = String, description = "The location of the app"),
            ("Idempotency-Replayed" = String, description = "`true` if an earlier request with the same key created it"),
        )),
        CreateProblems,
    ),
)]
pub(super) async fn create_app(
    // Accepts every request if anyone may create apps.
    ActingOperator(operator): ActingOperator,
    State(app_creation): State<AdminAccess>,
    State(service): State<CommandService>,
    context: RequestContext,
    uri: Uri,
    IdempotencyKey(key): IdempotencyKey,
    JsonBody(body): JsonBody<CreateAppRequest>,
) -> Result<Response, Problem> {
    let name = AppName::parse(body.name).map_err(Problem::invalid_app_name)?;
    let key = key.map(|key| FingerprintedKey::new(key, name.as_str()));
    let command = Command::CreateApp { app: generate_token()?, name: name.clone() };
    let metadata = match app_creation {
        AdminAccess::Open(_) => context.metadata(command.name(), ActorKind::Anonymous),
        AdminAccess::Operators(_) => {
            let mut metadata = context.metadata(command.name(), ActorKind::Admin);
            metadata.actor.name = Some(operator.name.as_ref().to_owned());
            metadata
        }
    };
    let outcome = service.execute(command, metadata, key).await?;
    let token = outcome.app.expose();
    let body = AppCreated {
        status: "success",
        message: "App created successfully",
        data: AppCredentials { app_token: token.to_owned(), name: name.into_string() },
    };
    Ok(created_response(&service, &uri, token, &outcome, Json(body)))
}

/// Rename an app
///
/// With `If-Match`, only the version with this `ETag` is renamed: other changes are not overwritten.
#[utoipa::path(
    put, path = "/api/v1/apps/{app_token}", tag = openapi::APPS, request_body = RenameAppRequest,
    params(AppPath, ("If-Match" = Option<String>, Header, description = "Rename only the version with this `ETag`"),
        ("If-None-Match" = Option<String>, Header, description = "Do not rename the version with this `ETag`; `*`: any version")),
    responses(
        (status = 200, description = "Renamed, durably", body = Success),
        RenameProblems,
    ),
)]
pub(super) async fn rename_app(
    State(service): State<CommandService>,
    context: RequestContext,
    AppPath { app_token: app }: AppPath,
    ChangePrecondition(precondition): ChangePrecondition,
    JsonBody(body): JsonBody<RenameAppRequest>,
) -> Result<(HeaderPairs<1>, Json<Success>), Problem> {
    let name = AppName::parse(body.name).map_err(Problem::invalid_app_name)?;
    let command = Command::RenameApp { app, name, precondition };
    let metadata = context.metadata(command.name(), ActorKind::App);
    let outcome = service.execute(command, metadata, None).await?;
    Ok((consistency_token_header(&service, &outcome), Json(Success::new("App renamed successfully"))))
}

fn generate_token() -> Result<AppToken, Problem> {
    let mut generated = Ok(());
    let token = AppToken::generate(|bytes| {
        if let Err(error) = getrandom::fill(bytes) {
            // `AppToken::generate` asks for bytes until it has enough usable ones. Zeros are usable, so it ends. The
            // token is discarded.
            bytes.fill(0);
            generated = Err(error);
        }
    });
    generated.map_err(Problem::internal)?;
    Ok(token)
}
