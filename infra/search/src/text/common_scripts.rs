//! Fast tokenization of the most common scripts. It finds the same words as `TokenizedText::split_by_unicode_rules`,
//! without a table lookup per character.

use std::iter::Peekable;
use std::ops::Range;

/// The class of a character in UAX #29, for the characters of common scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CharClass {
    Letter,
    /// Letters that form one run with Han and Kana.
    Hangul,
    /// Han and Hiragana.
    HanOrHiragana,
    Katakana,
    Digit,
    ExtendNumLet,
    /// Joins letters.
    MidLetter,
    /// Joins digits.
    MidNum,
    /// Joins letters or digits.
    MidNumLet,
    /// Never part of a word.
    Separator,
}

/// The class of a character of a normalized text; `None` outside the common scripts.
fn char_class(c: char) -> Option<CharClass> {
    Some(match c {
        // Latin, Greek, Cyrillic and Arabic letters.
        'a'..='z'
        | '\u{E0}'..='\u{F6}'
        | '\u{F8}'..='\u{24F}'
        | '\u{3B1}'..='\u{3C9}'
        | '\u{430}'..='\u{45F}'
        | '\u{490}'..='\u{4BF}'
        | '\u{621}'..='\u{63A}'
        | '\u{641}'..='\u{64A}'
        | '\u{671}'..='\u{6D3}' => CharClass::Letter,
        '0'..='9' => CharClass::Digit,
        '_' => CharClass::ExtendNumLet,
        ':' => CharClass::MidLetter,
        ',' | ';' | '\u{60C}' => CharClass::MidNum,
        '.' | '\'' => CharClass::MidNumLet,
        // The rest of ASCII; the Arabic question mark and semicolon; the full stop and comma of Han.
        '\0'..='\x7F' | '\u{61B}' | '\u{61F}' | '\u{3001}' | '\u{3002}' => CharClass::Separator,
        '\u{3041}'..='\u{3096}' | '\u{4E00}'..='\u{9FFF}' => CharClass::HanOrHiragana,
        '\u{30A1}'..='\u{30FA}' | '\u{30FC}' => CharClass::Katakana,
        '\u{AC00}'..='\u{D7A3}' => CharClass::Hangul,
        _ => return None,
    })
}

impl CharClass {
    /// Whether two adjacent characters belong to one word.
    fn joins(self, next: Self) -> bool {
        let letter_or_digit = |class| matches!(class, Self::Letter | Self::Hangul | Self::Digit);
        let cjk = |class| matches!(class, Self::Hangul | Self::HanOrHiragana | Self::Katakana);
        let joins_underscore =
            |class| letter_or_digit(class) || matches!(class, Self::Katakana | Self::ExtendNumLet);
        letter_or_digit(self) && letter_or_digit(next)
            || cjk(self) && cjk(next)
            || self == Self::ExtendNumLet && joins_underscore(next)
            || joins_underscore(self) && next == Self::ExtendNumLet
    }

    /// Whether two characters with `middle` between them belong to one word.
    fn joins_across(self, middle: Self, next: Self) -> bool {
        let letter = |class| matches!(class, Self::Letter | Self::Hangul);
        match middle {
            Self::MidLetter => letter(self) && letter(next),
            Self::MidNum => self == Self::Digit && next == Self::Digit,
            Self::MidNumLet => letter(self) && letter(next) || self == Self::Digit && next == Self::Digit,
            _ => false,
        }
    }

    fn is_alphanumeric(self) -> bool {
        matches!(self, Self::Letter | Self::Hangul | Self::HanOrHiragana | Self::Katakana | Self::Digit)
    }
}

/// Calls `add_word` with each word of a normalized text, as a range of its characters. Returns `false` if the text has
/// characters outside the common scripts. The words passed until then must be discarded in this case.
pub(crate) fn split_common_scripts(text: &str, mut add_word: impl FnMut(Range<usize>)) -> bool {
    let mut classes = text.chars().map(char_class).enumerate().peekable();
    while let Some((start, class)) = classes.next() {
        let Some(class) = class else { return false };
        let Some((end, is_word)) = find_segment_end(class, start, &mut classes) else { return false };
        if is_word {
            add_word(start..end);
        }
    }
    true
}

/// The end of the segment that starts with this class, and whether the segment is a word; `None` if a character outside
/// the common scripts is in the segment or just after it.
fn find_segment_end(
    first: CharClass,
    start: usize,
    classes: &mut Peekable<impl Iterator<Item = (usize, Option<CharClass>)> + Clone>,
) -> Option<(usize, bool)> {
    let (mut last, mut end, mut is_word) = (first, start + 1, first.is_alphanumeric());
    while let Some((_, class)) = classes.peek() {
        let class = (*class)?;
        if !last.joins(class) {
            if class.is_alphanumeric() || matches!(class, CharClass::Separator | CharClass::ExtendNumLet) {
                break;
            }
            let mut ahead = classes.clone();
            let (_, next) = (ahead.next(), ahead.next());
            let Some((_, next)) = next else { break };
            let next = next?;
            if !last.joins_across(class, next) {
                break;
            }
            *classes = ahead;
            (last, end) = (next, end + 2);
            continue;
        }
        classes.next();
        (last, end) = (class, end + 1);
        is_word |= class.is_alphanumeric();
    }
    Some((end, is_word))
}
