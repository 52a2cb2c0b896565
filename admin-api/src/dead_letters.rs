//! The routes that list and show dead letters: `GET /dead-letters` and `/dead-letters/{position}`.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use chat_domain::Position;
use chat_domain::projection::ProjectionName;
use chat_operations::dead_letters::list::{DeadLetterListing, ListOptions, list};
use chat_operations::dead_letters::show::{DeadLetterDetails, show};
use chat_operations::dead_letters::unknown_stream;
use chat_operations::envelope::{Diagnostic, Envelope, Report};
use chat_operations::operator_actions::closed_log_warning;
use chat_operations::projections::ProjectionsError;
use chat_web::admin_auth::ReadingOperator;
use chat_web::cursor::{Cursor, ListId};
use chat_web::extract::Query;
use chat_web::pagination::next_cursor_header;
use chat_web::{ErrorCode, Problem, openapi, problem_responses};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::AdminApi;
use crate::api::{EnvelopeResult, envelope};
use crate::projections::read_problem;
use crate::query_params::{malformed_parameter, parse_cursor, parse_number, parse_position};

pub(crate) fn routes() -> OpenApiRouter<AdminApi> {
    OpenApiRouter::new().routes(routes!(list_dead_letters)).routes(routes!(show_dead_letter))
}

/// The dead letters to list.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// Dead letters of this projection, `read_model` or `search_index`; of both by default.
    projection: Option<String>,
    /// Dead letters of this stream.
    stream: Option<String>,
    /// `true` also lists those that wait behind another one, and acknowledged discards.
    #[param(value_type = Option<bool>, default = false)]
    all: Option<String>,
    /// Dead letters after this position.
    #[param(value_type = Option<u64>)]
    after: Option<String>,
    /// The start of the page: the `Next-Cursor` of the previous page, unchanged. It replaces `after`.
    cursor: Option<String>,
    /// The approximate number of dead letters on a page, 1 to 1,000.
    #[param(value_type = Option<u64>, minimum = 1, maximum = 1_000, default = 100)]
    limit: Option<String>,
}

impl ListParams {
    /// Returns the id of the list, which is the same for all its pages.
    fn list_id(&self) -> ListId {
        let Self { projection, stream, all, after: _, cursor: _, limit: _ } = self;
        ListId::new('d', format_args!(""))
            .with_parameter("projection", projection.as_deref())
            .with_parameter("stream", stream.as_deref())
            .with_parameter("all", all.as_deref())
    }
}

/// A page of dead letters.
#[derive(Serialize, ToSchema)]
#[serde(transparent)]
pub(crate) struct DeadLetterListReport(DeadLetterListing);

impl Report for DeadLetterListReport {
    fn has_findings(&self) -> bool {
        self.0.has_findings()
    }

    fn diagnostics(&self) -> Vec<Diagnostic> {
        self.0.diagnostics()
    }
}

/// A dead letter in full.
#[derive(Serialize, ToSchema)]
#[serde(transparent)]
pub(crate) struct DeadLetterReport(DeadLetterDetails);

impl Report for DeadLetterReport {
    fn has_findings(&self) -> bool {
        self.0.has_findings()
    }
}

problem_responses!(pub(crate) ListProblems:
    AdminTokenMissing, AdminTokenWrong, EventStoreUnavailable, ReadModelUnavailable);

/// List dead letters
///
/// Events that a projection could not apply, and discards that are not acknowledged. `status` is `finding` if one of
/// the selected projections has any, even if this page lists none of them.
#[utoipa::path(
    get, path = "/admin/v1/dead-letters", tag = openapi::PROJECTIONS, params(ListParams), security(("admin" = [])),
    responses(
        (status = 200, description = "The dead letters", body = Envelope<DeadLetterListReport>, headers(
            ("Next-Cursor" = String, description = "The `cursor` of the next page, if there is one"),
        )),
        ListProblems,
    ),
)]
pub(crate) async fn list_dead_letters(
    _: ReadingOperator,
    State(api): State<AdminApi>,
    Query(params): Query<ListParams>,
) -> Result<Response, Problem> {
    let list_id = params.list_id();
    if params.stream.as_deref() == Some("") {
        return Err(malformed_parameter("stream", "a text that is not empty"));
    }
    let options = ListOptions {
        projections: parse_projections(params.projection.as_deref())?,
        stream: params.stream,
        all: match params.all.as_deref() {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => return Err(malformed_parameter("all", "`true` or `false`")),
        },
        after: parse_cursor(list_id, params.cursor.as_deref())?
            .or(parse_position("after", params.after.as_deref())?)
            .unwrap_or(Position::START),
        limit: parse_number("limit", params.limit.as_deref(), 100, 1..=1_000)?,
    };
    let log = &*api.projections.log;
    let page = list(&api.projections, &options).await.map_err(|error| read_problem(log, error))?;
    let unknown = match &options.stream {
        Some(stream) if page.dead_letters.is_empty() => {
            unknown_stream(log, stream).await.map_err(Problem::from)?
        }
        _ => None,
    };
    let last = page.dead_letters.last();
    let next_cursor = last
        .filter(|_| page.more)
        .and_then(|last| next_cursor_header(Cursor { list: list_id, key: [last.position.get()] }));
    let Json(mut answer) = envelope(DeadLetterListReport(page));
    answer.diagnostics.extend(unknown.map(Diagnostic::warning));
    answer.diagnostics.extend(closed_log_warning(log));
    Ok((next_cursor, Json(answer)).into_response())
}

problem_responses!(pub(crate) ShowProblems:
    AdminTokenMissing, AdminTokenWrong, EventNotFound, EventStoreUnavailable, ReadModelUnavailable);

/// Show a dead letter
///
/// The event as it is stored, its state in each projection, and the predicted outcome of retrying its stream, which is
/// tried in a transaction that is rolled back.
#[utoipa::path(
    get, path = "/admin/v1/dead-letters/{position}", tag = openapi::PROJECTIONS,
    params(("position" = u64, Path, description = "The event's position in the log", example = 1)),
    security(("admin" = [])),
    responses((status = 200, description = "The event", body = Envelope<DeadLetterReport>), ShowProblems),
)]
pub(crate) async fn show_dead_letter(
    _: ReadingOperator,
    State(api): State<AdminApi>,
    Path(position): Path<String>,
) -> EnvelopeResult<DeadLetterReport> {
    let position = Position::parse(&position).map_err(|_| Problem::from_code(ErrorCode::EventNotFound))?;
    match show(&api.projections, &ProjectionName::ALL, position).await {
        Ok(details) => {
            let Json(mut answer) = envelope(DeadLetterReport(details));
            answer.diagnostics.extend(closed_log_warning(&*api.projections.log));
            Ok(Json(answer))
        }
        Err(ProjectionsError::NotFound(missing)) => Err(Problem::new(ErrorCode::EventNotFound, missing)),
        Err(error) => Err(read_problem(&*api.projections.log, error)),
    }
}

fn parse_projections(name: Option<&str>) -> Result<Vec<ProjectionName>, Problem> {
    let Some(name) = name else { return Ok(ProjectionName::ALL.to_vec()) };
    let named = ProjectionName::ALL.into_iter().find(|projection| projection.as_str() == name);
    named
        .map(|projection| vec![projection])
        .ok_or_else(|| malformed_parameter("projection", "`read_model` or `search_index`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_of_dead_letters_stay_the_same_across_versions() {
        for (query, cursor) in [
            ("", "d1-811c9dc5"),
            ("limit=5&after=1", "d1-811c9dc5"),
            ("projection=read_model&stream=app-x&all=true", "d1-67e53c14"),
        ] {
            let uri = format!("/?{query}").parse().unwrap();
            let params: ListParams = axum::extract::Query::try_from_uri(&uri).unwrap().0;
            assert_eq!(Cursor { list: params.list_id(), key: [1] }.to_string(), cursor, "{query}");
        }
    }
}
