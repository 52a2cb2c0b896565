//! What a search may and must take for the same.
//!
//! How far a search folds letters is its own matter (is `й` an `и` with a breve? is `ß` an `ss`?). So what is
//! expected of it is bounded on two sides: a message that holds the query letter for letter, but for case, must be found
//! ([`strict`]); one that does not hold it even when all marks and compatibility forms are dropped must not ([`loose`]).

use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

/// The text but for case.
pub fn strict_form(text: &str) -> String {
    text.nfc().flat_map(char::to_lowercase).nfc().collect()
}

/// The text's bare letters: without case, marks, compatibility forms, ligatures, digits of other scripts, and the differences between
/// hiragana and katakana, Hebrew letters inside and at the end of words, Arabic, Persian and Urdu letter forms.
pub fn loose_form(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for letter in text.nfkd().filter(|letter| !is_mark(*letter)).flat_map(char::to_lowercase).nfkd() {
        match letter {
            _ if is_mark(letter) => {}
            'ß' | 'ẞ' => folded.push_str("ss"),
            'æ' => folded.push_str("ae"),
            'œ' => folded.push_str("oe"),
            'þ' => folded.push_str("th"),
            'ø' => folded.push('o'),
            'ł' => folded.push('l'),
            'đ' | 'ð' => folded.push('d'),
            'ħ' => folded.push('h'),
            'ŧ' => folded.push('t'),
            'ı' | 'і' => folded.push('i'),
            'ς' => folded.push('σ'),
            'ך' => folded.push('כ'),
            'ם' => folded.push('מ'),
            'ן' => folded.push('נ'),
            'ף' => folded.push('פ'),
            'ץ' => folded.push('צ'),
            'ي' | 'ى' | 'ے' => folded.push('ی'),
            'ك' | 'ڪ' => folded.push('ک'),
            'ة' | 'ە' | 'ہ' => folded.push('ه'),
            'ٱ' => folded.push('ا'),
            '\u{30a1}'..='\u{30f6}' => folded.extend(char::from_u32(u32::from(letter) - 0x60)),
            _ => folded.push(ascii_digit(letter).unwrap_or(letter)),
        }
    }
    folded
}

/// The ASCII digit of a decimal digit of any script: Unicode has them in rows of ten, from zero to nine.
fn ascii_digit(letter: char) -> Option<char> {
    let is_digit = |code| {
        char::from_u32(code).is_some_and(|other| other.general_category() == GeneralCategory::DecimalNumber)
    };
    let code = u32::from(letter);
    if letter.is_ascii() || !is_digit(code) {
        return None;
    }
    let before = (1..code).take_while(|back| is_digit(code - back)).count();
    char::from_digit(u32::try_from(before % 10).ok()?, 10)
}

/// A mark on the letter before it, or a character that shows nothing by itself.
pub fn is_mark(letter: char) -> bool {
    letter == '\u{640}'
        || matches!(
            letter.general_category(),
            GeneralCategory::NonspacingMark
                | GeneralCategory::SpacingMark
                | GeneralCategory::EnclosingMark
                | GeneralCategory::Format
        )
}

/// The text without the marks that its readers leave out when they type: accents on Latin letters, Arabic vowel
/// signs, Hebrew points.
pub fn without_diacritics(text: &str) -> String {
    let mut latin = false;
    let kept = text.nfd().filter(|letter| match letter {
        '\u{300}'..='\u{36f}' => !latin,
        '\u{64b}'..='\u{652}' | '\u{591}'..='\u{5c7}' => false,
        _ => {
            latin = letter.is_ascii_alphabetic();
            true
        }
    });
    kept.collect::<Vec<_>>().into_iter().nfc().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strictly_the_same_but_for_case() {
        assert_eq!(strict_form("Grüße"), strict_form("GRüßE"));
        assert_eq!(strict_form("e\u{301}"), strict_form("É"));
        assert_ne!(strict_form("é"), strict_form("e"));
    }

    #[test]
    fn loosely_the_same_are_bare_letters() {
        for (one, other) in
            [("Grüße", "GRUSSE"), ("naïve", "naive"), ("Łódź", "lodz"), ("ＡＢ", "ab"), ("İı", "ii")]
        {
            assert_eq!(loose_form(one), loose_form(other));
        }
        assert_eq!(loose_form("كتاب يا"), loose_form("کتاب یا"));
        assert_eq!(loose_form("カタカナ"), loose_form("かたかな"));
        assert_ne!(loose_form("fox"), loose_form("box"));
    }

    #[test]
    fn diacritics_that_people_leave_out() {
        assert_eq!(without_diacritics("Qué es ñandú"), "Que es nandu");
        assert_eq!(without_diacritics("шалом й"), "шалом й");
        assert_eq!(without_diacritics("שָׁלוֹם"), "שלום");
        assert_eq!(without_diacritics("हिन्दी"), "हिन्दी");
    }
}
