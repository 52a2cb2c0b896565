//! Untrusted text, made safe for a terminal.

use chat_domain::StreamId;

/// Maximum width of a stream's name in a table.
const MAX_STREAM_COLUMNS: usize = 24;

/// Returns the text on one line, with control characters and characters that change the direction of text escaped.
pub(super) fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' => shown.push_str("\\n"),
            '\t' => shown.push_str("\\t"),
            '\r' => shown.push_str("\\r"),
            character if character.is_control() || is_bidi_or_invisible(character) => {
                shown.extend(character.escape_unicode());
            }
            character => shown.push(character),
        }
    }
    shown
}

/// Returns the escaped text in quotes.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", escaped(text))
}

/// Returns a stream's name with the app's token abbreviated: the token is a credential, and long. Where the name is
/// meant to be copied, it is not abbreviated.
pub(super) fn abbreviated_stream(name: &str) -> String {
    match StreamId::parse(name) {
        Ok(StreamId::App(app)) => format!("app-{}…", &app.expose()[..4]),
        Ok(StreamId::Chat(app, number)) => format!("chat-{}…-{number}", &app.expose()[..4]),
        Err(_) => truncated(&escaped(name), MAX_STREAM_COLUMNS),
    }
}

/// Whether the character changes the direction of text or is invisible, so that the text is not what it seems.
fn is_bidi_or_invisible(character: char) -> bool {
    matches!(character,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Cuts the text to a number of columns, with an ellipsis if something is cut.
pub(super) fn truncated(text: &str, columns: usize) -> String {
    if display_width(text) <= columns {
        return text.to_owned();
    }
    let mut shown = String::new();
    let mut taken = 0;
    for character in text.chars() {
        taken += char_width(character);
        if taken + 1 > columns {
            break;
        }
        shown.push(character);
    }
    shown.push('…');
    shown
}

/// The number of columns that a text takes.
pub(super) fn display_width(text: &str) -> usize {
    text.chars().map(char_width).sum()
}

/// The number of columns of a character. East Asian letters and emoji take two (UAX 11, the blocks that are wide
/// throughout). Combining marks take none, but are counted as one: they are rare.
fn char_width(character: char) -> usize {
    let wide = matches!(character,
        '\u{1100}'..='\u{115f}' | '\u{2e80}'..='\u{a4cf}' | '\u{ac00}'..='\u{d7a3}' | '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe6f}' | '\u{ff00}'..='\u{ff60}' | '\u{1f300}'..='\u{1f64f}' | '\u{1f680}'..='\u{1faff}'
        | '\u{20000}'..='\u{3fffd}');
    if wide { 2 } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_control_characters_are_escaped() {
        assert_eq!(escaped("a\nb\tc\rd"), "a\\nb\\tc\\rd");
        assert_eq!(escaped("\u{1b}[31m\u{7f}\u{9b}"), "\\u{1b}[31m\\u{7f}\\u{9b}");
        assert_eq!(escaped("admin\u{202e}nimda"), "admin\\u{202e}nimda");
        assert_eq!(escaped("Grüße, 世界 🦊"), "Grüße, 世界 🦊");
    }

    #[test]
    fn a_text_is_cut_to_its_columns() {
        assert_eq!(truncated("a fox", 5), "a fox");
        assert_eq!(truncated("a fox runs", 5), "a fo…");
        assert_eq!(truncated("世界世界", 5), "世界…");
    }
}
