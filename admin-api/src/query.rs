//! What query strings say.

use chat_infra::clock;
use chat_operations::audit::{EventFilter, FilterWords, InvalidFilter, Order, Point};
use chat_web::{ErrorCode, Problem};
use serde::Deserialize;
use utoipa::IntoParams;

/// Which events: those that every given parameter fits.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct FilterParams {
    /// Of this stream.
    #[param(example = "chat-operations")]
    stream: Option<String>,
    /// Of the app with this token, and of its chats.
    app: Option<String>,
    /// Of this chat of the app.
    chat: Option<String>,
    /// Of one of these types.
    #[serde(rename = "type")]
    #[param(rename = "type", example = "MessageEdited,MessageDeleted")]
    types: Option<String>,
    /// Caused by this kind of actor (`app`, `admin`, `operator`, `system`, `anonymous`), or by whom of this name.
    actor: Option<String>,
    /// Caused from this network address.
    address: Option<String>,
    /// Belonging to this request or trace.
    correlation: Option<String>,
    /// Recorded within this time before now: `90s`, `2h`, `1d12h`.
    #[param(example = "2h")]
    since: Option<String>,
    /// Recorded at this time or later: RFC 3339, or a date.
    from: Option<String>,
    /// Recorded at this time or earlier.
    to: Option<String>,
    /// After this position.
    after: Option<String>,
    /// Before this position.
    before: Option<String>,
    /// With this text in its payload, whatever the case.
    text: Option<String>,
}

impl FilterParams {
    pub(crate) fn parse(self) -> Result<EventFilter, Problem> {
        let types = self.types.unwrap_or_default();
        let words = FilterWords {
            stream: self.stream,
            app: self.app,
            chat: self.chat,
            types: types.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
            actor: self.actor,
            address: self.address,
            correlation: self.correlation,
            since: self.since,
            from: self.from,
            to: self.to,
            after: self.after,
            before: self.before,
            text: self.text,
        };
        EventFilter::parse(words, clock::now())
            .map_err(|error: InvalidFilter| Problem::new(ErrorCode::MalformedQuery, error.to_string()))
    }
}

/// A parameter that can't be understood.
pub(crate) fn malformed(parameter: &str, must: &str) -> Problem {
    Problem::new(ErrorCode::MalformedQuery, format!("`{parameter}` must be {must}"))
}

/// A number in a range.
pub(crate) fn number(
    parameter: &str,
    text: Option<&str>,
    default: usize,
    most: usize,
) -> Result<usize, Problem> {
    let Some(text) = text else { return Ok(default) };
    let number = text.parse().ok().filter(|number| (1..=most).contains(number));
    number.ok_or_else(|| malformed(parameter, &format!("a number from 1 to {most}")))
}

/// The order of a list; newest first unless given.
pub(crate) fn order(text: Option<&str>) -> Result<Order, Problem> {
    match text {
        None | Some("newest") => Ok(Order::NewestFirst),
        Some("oldest") => Ok(Order::OldestFirst),
        Some(_) => Err(malformed("order", "`newest` or `oldest`")),
    }
}

/// A place in the log, which must be given.
pub(crate) fn point(parameter: &str, text: Option<&str>) -> Result<Point, Problem> {
    text.and_then(Point::parse)
        .ok_or_else(|| malformed(parameter, "given, as a position or an RFC 3339 time"))
}
