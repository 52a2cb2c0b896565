//! Parsing of query parameters.

use chat_domain::Position;
use chat_web::Problem;
pub(crate) use chat_web::extract::malformed_parameter;

/// Parses a whole number from `least` to `most`; `default` if absent.
pub(crate) fn parse_number(
    parameter: &str,
    given: Option<&str>,
    default: usize,
    (least, most): (usize, usize),
) -> Result<usize, Problem> {
    let Some(given) = given else { return Ok(default) };
    let number = given.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| malformed_parameter(parameter, &format!("a number from {least} to {most}")))
}

/// Parses a position, if present.
pub(crate) fn parse_position(parameter: &str, text: Option<&str>) -> Result<Option<Position>, Problem> {
    let Some(text) = text else { return Ok(None) };
    text.parse()
        .map(|position| Some(Position::new(position)))
        .map_err(|_| malformed_parameter(parameter, "a position of the log"))
}
