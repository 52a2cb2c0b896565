//! The difference of two texts, word by word.

use std::time::Duration;

use similar::{ChangeTag, TextDiff};

/// The time after which a difference of long texts becomes coarse.
const TIMEOUT: Duration = Duration::from_millis(50);

/// Two texts are shown whole, instead of word by word, if they share less than 1/`COMMON_DIVISOR` of the letters and
/// digits of the longer one. Texts that differ at one end only are always shown word by word.
const COMMON_DIVISOR: usize = 3;

/// A part of the difference of two texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// In both texts.
    Same(String),
    /// In the earlier text only.
    Removed(String),
    /// In the later text only.
    Added(String),
}

/// Compares two texts word by word. Words are those of Unicode, so texts in scripts without spaces have words too.
pub(crate) fn text_difference(before: &str, after: &str) -> Vec<Piece> {
    let difference = TextDiff::configure().timeout(TIMEOUT).diff_unicode_words(before, after);
    let mut pieces: Vec<(ChangeTag, String)> = Vec::new();
    for change in difference.iter_all_changes() {
        match pieces.last_mut() {
            Some((tag, text)) if *tag == change.tag() => text.push_str(change.value()),
            _ => pieces.push((change.tag(), change.value().to_owned())),
        }
    }
    if is_rewrite(&pieces, before, after) {
        return vec![Piece::Removed(before.to_owned()), Piece::Added(after.to_owned())];
    }
    let piece = |(tag, text)| match tag {
        ChangeTag::Equal => Piece::Same(text),
        ChangeTag::Delete => Piece::Removed(text),
        ChangeTag::Insert => Piece::Added(text),
    };
    pieces.into_iter().map(piece).collect()
}

/// Whether so little is common to two texts that their words side by side would be hard to read.
fn is_rewrite(pieces: &[(ChangeTag, String)], before: &str, after: &str) -> bool {
    let letters = |text: &str| text.chars().filter(|character| character.is_alphanumeric()).count();
    let same = pieces.iter().filter(|(tag, _)| *tag == ChangeTag::Equal).map(|(_, text)| letters(text));
    pieces.len() > 2 && same.sum::<usize>() < letters(before).max(letters(after)) / COMMON_DIVISOR
}

/// The `class` attribute that puts two whole texts below each other; empty for a difference word by word.
pub(crate) fn class_attribute(pieces: &[Piece]) -> &'static str {
    match pieces {
        [Piece::Removed(_), Piece::Added(_)] => " class=\"block\"",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(before: &str, after: &str) -> String {
        let show = |piece: &Piece| match piece {
            Piece::Same(text) => text.clone(),
            Piece::Removed(text) => format!("[-{text}-]"),
            Piece::Added(text) => format!("[+{text}+]"),
        };
        text_difference(before, after).iter().map(show).collect()
    }

    #[test]
    fn compares_texts_word_by_word() {
        assert_eq!(show("clean the vents.", "clean all vents."), "clean [-the-][+all+] vents.");
        assert_eq!(show("", "new"), "[+new+]");
        assert_eq!(show("same", "same"), "same");
        assert_eq!(show("猫がいる", "犬がいる"), "[-猫-][+犬+]がいる");
    }

    #[test]
    fn a_text_that_was_written_anew_is_shown_whole() {
        let (before, after) = ("the mouse is on the desk", "please restart the printer on floor two");
        assert_eq!(show(before, after), format!("[-{before}-][+{after}+]"));
        assert_eq!(class_attribute(&text_difference(before, after)), " class=\"block\"");
        assert_eq!(class_attribute(&text_difference("clean the vents", "clean all vents")), "");
    }

    #[test]
    fn the_pieces_of_a_difference_make_up_both_texts() {
        let before = "a <b> c\n\td ".repeat(4_000);
        let after = before.replace("c\n", "x").replace("<b>", "b");
        let (mut old, mut new) = (String::new(), String::new());
        for piece in text_difference(&before, &after) {
            match piece {
                Piece::Same(text) => {
                    old.push_str(&text);
                    new.push_str(&text);
                }
                Piece::Removed(text) => old.push_str(&text),
                Piece::Added(text) => new.push_str(&text),
            }
        }
        assert!(old == before && new == after);
    }
}
