//! Search requests: their parameters in a body or in the URL, and the cursors of their results.

use chat_domain::{Position, SenderId, Timestamp};
use chat_ports::search_index::{Scope, SearchCursor, SearchRequest, Sort};
use chat_web::cursor::{Cursor, ListId};
use chat_web::extract::{malformed_parameter, refuse_unescaped_plus};
use chat_web::{ErrorCode, Problem};
use serde::Deserialize;
use serde_json::Number;
use utoipa::{IntoParams, ToSchema};

use crate::pagination::PageLimits;
use crate::routes::messages::parse_sender;

/// A search request.
#[derive(Deserialize, ToSchema)]
#[schema(as = SearchRequest, example = json!({ "query": "fox" }))]
pub(in crate::routes) struct SearchBody {
    /// Words, all of which must match. `"two words"` is a phrase. At most 1,024 bytes and 32 words.
    #[schema(example = "fox")]
    query: String,
    /// Whether typing errors are tolerated: one in words of 4 to 7 letters, two in words of 8 to 64; none in words with
    /// digits and in scripts without spaces.
    #[schema(default = false)]
    fuzzy: Option<bool>,
    /// Only messages of the sender with this id.
    #[schema(min_length = 1, max_length = 128, example = "u-17")]
    sender: Option<String>,
    /// The order of the hits.
    #[schema(value_type = Option<SearchOrder>)]
    sort: Option<String>,
    /// Only messages created at this time or later.
    #[schema(format = DateTime)]
    from: Option<String>,
    /// Only messages created at this time or earlier.
    #[schema(format = DateTime)]
    to: Option<String>,
    /// The number of hits on the page, 1 to 100.
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 100, default = 20)]
    limit: Option<Number>,
    /// The number up to which matches are counted, 0 to 1,000,000,000. A low number makes searches with many matches
    /// faster.
    #[schema(value_type = Option<u64>, minimum = 0, maximum = 1_000_000_000, default = 1_000)]
    track_total: Option<Number>,
    /// The start of the page: the `next` or `Next-Cursor` of the previous page, unchanged.
    cursor: Option<String>,
}

/// A search request in the URL.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::routes) struct SearchParams {
    /// Words, all of which must match. `"two words"` is a phrase. At most 1,024 bytes and 32 words.
    #[param(required, value_type = String, example = "fox")]
    query: Option<String>,
    /// Whether typing errors are tolerated: one in words of 4 to 7 letters, two in words of 8 to 64; none in words with
    /// digits and in scripts without spaces.
    #[param(value_type = Option<bool>, default = false)]
    fuzzy: Option<String>,
    /// Only messages of the sender with this id.
    #[param(min_length = 1, max_length = 128)]
    sender: Option<String>,
    /// The order of the hits.
    #[param(value_type = Option<SearchOrder>)]
    sort: Option<String>,
    /// Only messages created at this time or later.
    #[param(format = DateTime)]
    from: Option<String>,
    /// Only messages created at this time or earlier.
    #[param(format = DateTime)]
    to: Option<String>,
    /// The number of hits on the page, 1 to 100.
    #[param(value_type = Option<u64>, minimum = 1, maximum = 100, default = 20)]
    limit: Option<String>,
    /// The number up to which matches are counted, 0 to 1,000,000,000. A low number makes searches with many matches
    /// faster.
    #[param(value_type = Option<u64>, minimum = 0, maximum = 1_000_000_000, default = 1_000)]
    track_total: Option<String>,
    /// The start of the page: the `next` or `Next-Cursor` of the previous page, unchanged.
    cursor: Option<String>,
}

/// The order of hits: best match first (the newest first among equal matches), newest first, or oldest first.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase", default = "relevance")]
#[expect(
    dead_code,
    reason = "only for the OpenAPI document: `build_request` parses the order, to list the valid ones in a problem"
)]
enum SearchOrder {
    Relevance,
    Newest,
    Oldest,
}

impl SearchBody {
    pub(super) fn into_request(self, scope: Scope) -> Result<SearchRequest, Problem> {
        self.parse(scope).map_err(|problem| match problem.code() {
            // The detail fits both a URL and a body, because their parameters have the same names.
            ErrorCode::MalformedQuery => Problem::new(ErrorCode::BodyInvalid, problem.detail().to_owned()),
            _ => problem,
        })
    }

    fn parse(self, scope: Scope) -> Result<SearchRequest, Problem> {
        let limit = match &self.limit {
            None => PageLimits::SEARCH.default,
            Some(limit) => PageLimits::SEARCH.validate(limit.as_u64())?,
        };
        let count_up_to = match &self.track_total {
            None => DEFAULT_TRACK_TOTAL,
            Some(number) => check_track_total(number.as_u64())?,
        };
        let fuzzy = self.fuzzy.unwrap_or(false);
        build_request(
            scope,
            self.query,
            fuzzy,
            CommonParams {
                limit,
                count_up_to,
                sender: self.sender,
                sort: self.sort,
                from: self.from,
                to: self.to,
                cursor: self.cursor,
            },
        )
    }
}

impl SearchParams {
    pub(super) fn into_request(self, scope: Scope) -> Result<SearchRequest, Problem> {
        refuse_unescaped_plus("from", self.from.as_deref())?;
        refuse_unescaped_plus("to", self.to.as_deref())?;
        let limit = PageLimits::SEARCH.parse(self.limit.as_deref())?;
        let count_up_to = match self.track_total.as_deref() {
            None => DEFAULT_TRACK_TOTAL,
            Some(number) => check_track_total(number.parse().ok())?,
        };
        let fuzzy = match self.fuzzy.as_deref() {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => return Err(malformed_parameter("fuzzy", "`true` or `false`")),
        };
        build_request(
            scope,
            self.query.unwrap_or_default(),
            fuzzy,
            CommonParams {
                limit,
                count_up_to,
                sender: self.sender,
                sort: self.sort,
                from: self.from,
                to: self.to,
                cursor: self.cursor,
            },
        )
    }
}

/// The number up to which matches are counted, if the client does not say.
const DEFAULT_TRACK_TOTAL: u64 = 1_000;

/// Checks a `track_total` that was parsed; `None` means that it is not a number.
fn check_track_total(number: Option<u64>) -> Result<u64, Problem> {
    const MAX: u64 = 1_000_000_000;
    let number = number.filter(|number| *number <= MAX);
    number.ok_or_else(|| malformed_parameter("track_total", "a number from 0 to 1000000000"))
}

/// The parameters besides `query` and `fuzzy`, from a body or a URL. The numbers are parsed, the texts are not.
struct CommonParams {
    limit: usize,
    count_up_to: u64,
    sender: Option<String>,
    sort: Option<String>,
    from: Option<String>,
    to: Option<String>,
    cursor: Option<String>,
}

fn build_request(
    scope: Scope,
    query: String,
    fuzzy: bool,
    params: CommonParams,
) -> Result<SearchRequest, Problem> {
    let sort = match params.sort.as_deref() {
        None | Some("relevance") => Sort::Relevance,
        Some("newest") => Sort::Newest,
        Some("oldest") => Sort::Oldest,
        Some(_) => return Err(malformed_parameter("sort", "`relevance`, `newest` or `oldest`")),
    };
    let sender = params.sender.map(parse_sender).transpose()?;
    let from = parse_time("from", params.from.as_deref())?;
    let to = parse_time("to", params.to.as_deref())?;
    if query.trim().is_empty() {
        return Err(ErrorCode::QueryBlank.into());
    }
    let mut request = SearchRequest {
        scope,
        sender,
        query,
        fuzzy,
        sort,
        created_from: from,
        created_until: to,
        limit: params.limit,
        count_up_to: params.count_up_to,
        cursor: None,
        min_position: None,
    };
    request.cursor =
        params.cursor.as_deref().map(|cursor| parse_cursor(result_list(&request), cursor)).transpose()?;
    Ok(request)
}

/// Returns the id of the list of a search's hits. All pages of the same search have the same id.
pub(super) fn result_list(request: &SearchRequest) -> ListId {
    let SearchRequest {
        scope,
        sender,
        query,
        fuzzy,
        sort,
        created_from,
        created_until,
        limit: _,
        count_up_to: _,
        cursor: _,
        min_position: _,
    } = request;
    let chat = match scope {
        Scope::App(_) => None,
        Scope::Chat(_, chat) => Some(chat.get().to_string()),
    };
    let sort = match sort {
        Sort::Relevance => None,
        Sort::Newest => Some("newest"),
        Sort::Oldest => Some("oldest"),
    };
    let [from, to] = [created_from, created_until].map(|bound| bound.map(|time| time.millis().to_string()));
    ListId::new('s', format_args!("{}", scope.app().expose()))
        .with_parameter("chat", chat.as_deref())
        .with_parameter("fuzzy", fuzzy.then_some("true"))
        .with_parameter("sort", sort)
        .with_parameter("from", from.as_deref())
        .with_parameter("to", to.as_deref())
        .with_parameter("sender", sender.as_ref().map(SenderId::as_str))
        .with_parameter("query", Some(query))
}

fn parse_time(parameter: &str, text: Option<&str>) -> Result<Option<Timestamp>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let time = Timestamp::parse_rfc3339(text);
    time.map(Some)
        .ok_or_else(|| malformed_parameter(parameter, "an RFC 3339 time, such as 2026-09-21T14:13:20Z"))
}

fn parse_cursor(list: ListId, text: &str) -> Result<SearchCursor, Problem> {
    let [score, position] = Cursor::parse(list, text)?.key;
    Ok(SearchCursor { score, position: Position::new(position) })
}

#[cfg(test)]
mod tests {
    use chat_domain::{AppToken, ChatNumber};

    use super::*;

    fn request(scope: Scope, body: &str) -> SearchRequest {
        serde_json::from_str::<SearchBody>(body).unwrap().into_request(scope).unwrap()
    }

    #[test]
    fn cursors_of_searches_stay_the_same_across_versions() {
        let app = AppToken::parse(&"a".repeat(36)).unwrap();
        let chat = Scope::Chat(app, ChatNumber::try_from(2).unwrap());
        let all = r#"{"query":"fox","fuzzy":true,"sender":"u-17","sort":"oldest","from":"2026-01-01T00:00:00Z","to":"2026-02-01T00:00:00Z"}"#;
        for (scope, body, cursor) in [
            (Scope::App(app), r#"{"query":"fox"}"#, "s1-2-27eedfe0"),
            (
                Scope::App(app),
                r#"{"query":"fox","fuzzy":false,"sort":"relevance","limit":5}"#,
                "s1-2-27eedfe0",
            ),
            (chat, r#"{"query":"fox","sort":"newest"}"#, "s1-2-85464713"),
            (chat, all, "s1-2-f1e40566"),
        ] {
            let list = result_list(&request(scope, body));
            assert_eq!(Cursor { list, key: [1, 2] }.to_string(), cursor, "{body}");
        }
    }

    #[test]
    fn a_query_that_looks_like_a_sender_makes_another_list() {
        let app = Scope::App(AppToken::parse(&"a".repeat(36)).unwrap());
        let of_sender = request(app, r#"{"query":"x","sender":"u"}"#);
        for query in [r#"{"query":"\"u\" x"}"#, r#"{"query":"u x"}"#, r#"{"query":"x"}"#] {
            assert_ne!(result_list(&request(app, query)), result_list(&of_sender), "{query}");
        }
    }
}
