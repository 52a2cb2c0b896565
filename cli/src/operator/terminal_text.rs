//! Untrusted text, made safe for a terminal, and shortened for tables.

use std::sync::OnceLock;

use chat_domain::StreamId;

/// Maximum width, in a table, of the name of a stream that is neither an app's nor a chat's.
const MAX_STREAM_COLUMNS: usize = 24;

/// The number of characters to which an app's token is abbreviated.
const ABBREVIATED_TOKEN_LEN: usize = 4;

/// Set if texts are shown in full, and not shortened.
static IN_FULL: OnceLock<()> = OnceLock::new();

/// Turns off the shortening of text for the rest of the process.
pub(crate) fn show_in_full() {
    // Fails only if it is set already.
    let _ = IN_FULL.set(());
}

/// Whether texts are shown in full, and not shortened.
pub(super) fn texts_are_shown_in_full() -> bool {
    IN_FULL.get().is_some()
}

/// Returns the text on one line, with control characters and misleading characters escaped.
pub(super) fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' => shown.push_str("\\n"),
            '\t' => shown.push_str("\\t"),
            '\r' => shown.push_str("\\r"),
            character if character.is_control() || is_misleading(character) => {
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

/// Returns a stream's name with the app's token abbreviated: the token is a credential, and long. `--stream` takes the
/// abbreviated name as well.
pub(super) fn abbreviated_stream(name: &str) -> String {
    match StreamId::parse(name) {
        Ok(StreamId::App(app)) => format!("app-{}", abbreviated_token(app.expose())),
        Ok(StreamId::Chat(app, number)) => format!("chat-{}-{number}", abbreviated_token(app.expose())),
        Err(_) => truncated(&escaped(name), MAX_STREAM_COLUMNS),
    }
}

/// Returns the beginning of an app's token, or all of it after [`show_in_full`]. `--app` takes both.
pub(super) fn abbreviated_token(token: &str) -> String {
    match token.get(..ABBREVIATED_TOKEN_LEN) {
        Some(prefix) if !texts_are_shown_in_full() => format!("{prefix}…"),
        _ => token.to_owned(),
    }
}

/// Whether a character is invisible or changes the order of others, so that what is read is not what is there:
/// Unicode's default-ignorable characters, its controls of direction, annotation and hieroglyph layout, and the
/// separators of lines and paragraphs. Joiners and variation selectors of emoji are among them.
fn is_misleading(character: char) -> bool {
    matches!(character,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{13430}'..='\u{1343f}'
        | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// Cuts the text to a number of columns, with an ellipsis if something is cut. Cuts nothing after [`show_in_full`].
pub(super) fn truncated(text: &str, columns: usize) -> String {
    if texts_are_shown_in_full() || display_width(text) <= columns {
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

/// The number of columns of a character. East Asian letters and emoji take two. They are recognized by ranges after UAX
/// 11, which also contain a few narrow characters. Combining marks take no column, but are counted as one: they are
/// rare.
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
    fn characters_that_mislead_are_escaped() {
        let direction = ['\u{61c}', '\u{200e}', '\u{200f}'].into_iter().chain('\u{202a}'..='\u{202e}');
        let direction = direction.chain('\u{2066}'..='\u{2069}').chain('\u{206a}'..='\u{206f}');
        let zero_width = ['\u{ad}', '\u{34f}', '\u{200b}', '\u{200c}', '\u{200d}', '\u{2060}', '\u{feff}'];
        let blank = ['\u{115f}', '\u{1160}', '\u{180e}', '\u{2028}', '\u{2029}', '\u{3164}', '\u{ffa0}'];
        let tags_and_selectors = ('\u{e0000}'..='\u{e0fff}').chain('\u{fe00}'..='\u{fe0f}');
        let annotations = ('\u{fff9}'..='\u{fffb}').chain('\u{1d173}'..='\u{1d17a}');
        for character in direction.chain(zero_width).chain(blank).chain(tags_and_selectors).chain(annotations)
        {
            let shown = escaped(&format!("a{character}b"));
            assert_eq!(shown, format!("a\\u{{{:x}}}b", u32::from(character)));
        }
        // Letters, marks and visible signs of other scripts are shown.
        for text in ["مرحبا ٣", "שלום", "नमस्ते", "ภาษาไทย", "ខ្មែរ", "ᠮᠣᠩᠭᠣᠯ", "e\u{301}", "۝١"]
        {
            assert_eq!(escaped(text), text);
        }
    }

    #[test]
    fn a_text_is_cut_to_its_columns() {
        assert_eq!(truncated("a fox", 5), "a fox");
        assert_eq!(truncated("a fox runs", 5), "a fo…");
        assert_eq!(truncated("世界世界", 5), "世界…");
    }
}
