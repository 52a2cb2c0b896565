//! Text output of the projections commands.

use std::fmt::Write as _;

use chat_operations::projections::compare::Comparison;
use chat_operations::projections::switch_over::SwitchOverReport;
use chat_operations::projections::{ExplainedDifference, FieldValue, GenerationName};
use chat_ports::projection_contents::{Difference, EntityKind};

use crate::operator::answer::{Answer, Severity};
use crate::operator::terminal_text::{abbreviated_stream, abbreviated_token, escaped};

/// Formats a value, or a dash if there is none.
pub(in crate::operator) fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

pub(super) fn format_bytes(bytes: Option<u64>) -> String {
    let Some(bytes) = bytes else { return "-".to_owned() };
    match bytes {
        0..1_024 => format!("{bytes} B"),
        1_024..1_048_576 => format!("{} KiB", bytes / 1_024),
        1_048_576..1_073_741_824 => format!("{} MiB", bytes / 1_048_576),
        _ => format!("{} GiB", bytes / 1_073_741_824),
    }
}

pub(super) fn format_millis(millis: u64) -> String {
    match millis {
        0..1_000 => format!("{millis} ms"),
        1_000..120_000 => format!("{} s", millis / 1_000),
        _ => format!("{} min", millis / 60_000),
    }
}

/// Formats a list such as `read_model 2, search_index 2`.
pub(super) fn generation_list(generations: &[GenerationName]) -> String {
    let labels: Vec<_> = generations.iter().map(ToString::to_string).collect();
    labels.join(", ")
}

/// Describes a comparison.
pub(super) fn comparison_text(comparison: &Comparison) -> String {
    let Comparison { projection, live, other, position, differing, .. } = comparison;
    let name = projection.as_str();
    if let Some(reason) = &comparison.unreadable {
        return format!(
            "{name}: generation {} (live) can't be compared with {}: {}\n",
            live.0,
            other.0,
            escaped(reason)
        );
    }
    let mut text = match differing {
        0 => format!(
            "{name}: generations {} (live) and {} are the same at position {position}\n  digest {}\n",
            live.0,
            other.0,
            comparison.live_digest.as_deref().unwrap_or_default()
        ),
        1 => format!(
            "{name}: 1 row differs between generations {} (live) and {} at position {position}\n",
            live.0, other.0
        ),
        rows => format!(
            "{name}: {rows} rows differ between generations {} (live) and {} at position {position}\n",
            live.0, other.0
        ),
    };
    text += &differences_text(&comparison.shown, *differing);
    text
}

/// Describes the differences in `shown`. `differing` is the number of all differences, including those not in `shown`.
pub(super) fn differences_text(shown: &[ExplainedDifference], differing: usize) -> String {
    let mut text = String::new();
    for difference in shown {
        let _ = writeln!(text, "  {}", describe_row(difference));
        let description = match difference.difference {
            Difference::OnlyFirst => "only the live generation has it",
            Difference::OnlySecond => "the live generation does not have it",
            Difference::Content => "the content differs",
        };
        let _ = writeln!(text, "    {description}");
        for (field, live, expected) in differing_fields(difference) {
            // JSON escapes only some of the characters that control a terminal.
            let (live, expected) = (escaped(&live.to_string()), escaped(&expected.to_string()));
            let _ = writeln!(text, "    {field}: {live} in the live generation, {expected} in the log");
        }
        if let Some(event) = &difference.first_event {
            let _ = writeln!(
                text,
                "    first event that explains it: {} at position {}, revision {} of {}, {}",
                escaped(&event.event_type),
                event.position,
                event.revision,
                abbreviated_stream(&event.stream),
                event.recorded_at
            );
        }
    }
    if differing > shown.len() {
        let _ = writeln!(text, "  … and {} more", differing - shown.len());
    }
    text
}

/// Names the row, with an abbreviated app token, which `audit explain` accepts.
fn describe_row(difference: &ExplainedDifference) -> String {
    let token = difference.app_token.as_deref().map_or_else(|| "?".to_owned(), abbreviated_token);
    match (difference.kind, difference.chat_number, difference.message_number) {
        (EntityKind::DeadLetter, ..) => format!("dead letter at position {}", difference.began_at),
        (_, Some(chat), Some(message)) => format!("message {message} of chat {chat} of app {token}"),
        (_, Some(chat), None) => format!("chat {chat} of app {token}"),
        _ if difference.app_token.is_some() => format!("app {token}"),
        (kind, ..) => {
            format!("{kind:?} created at position {}, where the log has no such event", difference.began_at)
                .to_lowercase()
        }
    }
}

/// Returns the fields of the log's row that have another value, or none, in the live generation. Each field comes with
/// the live value and the expected one.
fn differing_fields(difference: &ExplainedDifference) -> Vec<(&str, &FieldValue, &FieldValue)> {
    let (Some(live), Some(expected)) = (&difference.shown, &difference.expected) else {
        return Vec::new();
    };
    let differing = expected.iter().filter_map(|(field, expected)| {
        let live = live.get(field).unwrap_or(&FieldValue::NULL);
        (live != expected).then_some((&**field, live, expected))
    });
    differing.collect()
}

/// Describes a switch-over.
pub(super) fn switch_over_text(switched: &SwitchOverReport) -> String {
    format!("readers see {} from position {} on", generation_list(&switched.to), switched.position)
}

/// Adds a warning to the answer if the running system has not taken over the generations.
pub(super) fn with_switch_over_warning(answer: Answer, switched: &SwitchOverReport) -> Answer {
    let Some(warning) = handover_warning(switched) else { return answer };
    answer.with_diagnostic(Severity::Warning, warning)
}

fn handover_warning(switched: &SwitchOverReport) -> Option<String> {
    if switched.taken_over {
        return None;
    }
    let reason = match &switched.obstacle {
        Some(error) => format!(
            "the running projector can't take them over: {error}. Give the files to its user, and run commands as that user"
        ),
        None => "no running projector took them over within 30 seconds; the /readyz of a projector says why"
            .to_owned(),
    };
    Some(format!("{reason}. Until a projector takes the generations over, they are not updated"))
}
