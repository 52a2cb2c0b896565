//! Untrusted text, made safe for a terminal.

use chat_domain::StreamId;

/// Columns that a stream's name takes at most in a table.
const MAX_STREAM_COLUMNS: usize = 24;

/// The text on one line, with everything escaped that would do something to a terminal or change the order of what is
/// read on it.
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

/// Escaped, in quotes.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", escaped(text))
}

/// A stream's name with the app's token cut short: the token is a credential, and fills the line. Where it is to be copied,
/// as from an event that is shown whole, the name stands in full.
pub(super) fn abbreviated_stream(name: &str) -> String {
    match StreamId::parse(name) {
        Ok(StreamId::App(app)) => format!("app-{}…", &app.expose()[..4]),
        Ok(StreamId::Chat(app, number)) => format!("chat-{}…-{number}", &app.expose()[..4]),
        Err(_) => truncated(&escaped(name), MAX_STREAM_COLUMNS),
    }
}

/// Marks of direction, invisible separators: what is read is not what is there.
fn is_bidi_or_invisible(character: char) -> bool {
    matches!(character,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// The text, cut to so many columns with an ellipsis where it has more.
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

/// How many columns a text takes.
pub(super) fn display_width(text: &str) -> usize {
    text.chars().map(char_width).sum()
}

/// Letters of East Asian scripts and pictures take two columns (UAX 11, the blocks that are wide throughout). Marks that
/// combine take none, but are rare enough: a table is then a column off.
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
