//! Parsing of query parameters.

use std::ops::RangeInclusive;

use chat_domain::Position;
use chat_web::Problem;
use chat_web::cursor::{Cursor, ListId, invalid_cursor};
pub(crate) use chat_web::extract::malformed_parameter;

/// Parses a whole number within a range. Returns `default` if the parameter is absent.
pub(crate) fn parse_number(
    parameter: &str,
    text: Option<&str>,
    default: usize,
    range: RangeInclusive<usize>,
) -> Result<usize, Problem> {
    let Some(text) = text else { return Ok(default) };
    let (min, max) = range.into_inner();
    let number = text.parse().ok().filter(|number| (min..=max).contains(number));
    number.ok_or_else(|| malformed_parameter(parameter, &format!("a number from {min} to {max}")))
}

/// Parses a cursor and returns the position where the previous page ended: the next page begins with the entry that
/// follows it in the order of the list. Returns `None` if the parameter is absent.
pub(crate) fn parse_cursor(list: ListId, text: Option<&str>) -> Result<Option<Position>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let [position] = Cursor::parse(list, text)?.key;
    // Event stores do not accept positions above `i64::MAX`.
    let position = i64::try_from(position).map_err(|_| invalid_cursor())?;
    Ok(Some(Position::new(position.unsigned_abs())))
}

/// Parses a position of the log. Returns `None` if the parameter is absent.
pub(crate) fn parse_position(parameter: &str, text: Option<&str>) -> Result<Option<Position>, Problem> {
    let Some(text) = text else { return Ok(None) };
    Position::parse(text)
        .map(Some)
        .map_err(|_| malformed_parameter(parameter, "a position in the log, a whole number"))
}
