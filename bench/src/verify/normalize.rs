//! The bounds of a correct search: two normal forms of a text.
//!
//! Correct searches may normalize texts to different degrees (is `й` an `и` with a breve? is `ß` an `ss`?). So the hits
//! of a search have a lower and an upper bound. A message must be found if its [`strict_form`] contains the strict form
//! of the query, and the query is long enough to be found inside words. A message must not be found if its
//! [`loose_form`] does not contain the loose form of the query.

use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

/// Returns the text in lower case and with composed characters (NFC), and otherwise unchanged.
pub fn strict_form(text: &str) -> String {
    text.nfc().flat_map(char::to_lowercase).nfc().collect()
}

/// Returns the text without case, marks, compatibility forms, ligatures and strokes of letters. Digits of all scripts
/// become ASCII digits, katakana becomes hiragana, final Hebrew and Greek letters become medial ones, the dotless and
/// the Ukrainian i become i, and Arabic and Urdu variants of letters become the Persian ones.
pub fn loose_form(text: &str) -> String {
    let mut normalized = String::with_capacity(text.len());
    for character in text.nfkd().filter(|character| !is_mark(*character)).flat_map(char::to_lowercase).nfkd()
    {
        match character {
            _ if is_mark(character) => {}
            'ß' | 'ẞ' => normalized.push_str("ss"),
            'æ' => normalized.push_str("ae"),
            'œ' => normalized.push_str("oe"),
            'þ' => normalized.push_str("th"),
            'ø' => normalized.push('o'),
            'ł' => normalized.push('l'),
            'đ' | 'ð' => normalized.push('d'),
            'ħ' => normalized.push('h'),
            'ŧ' => normalized.push('t'),
            'ı' | 'і' => normalized.push('i'),
            'ς' => normalized.push('σ'),
            'ך' => normalized.push('כ'),
            'ם' => normalized.push('מ'),
            'ן' => normalized.push('נ'),
            'ף' => normalized.push('פ'),
            'ץ' => normalized.push('צ'),
            'ي' | 'ى' | 'ے' => normalized.push('ی'),
            'ك' | 'ڪ' => normalized.push('ک'),
            'ة' | 'ە' | 'ہ' => normalized.push('ه'),
            'ٱ' => normalized.push('ا'),
            '\u{30a1}'..='\u{30f6}' => normalized.extend(char::from_u32(u32::from(character) - 0x60)),
            _ => normalized.push(ascii_digit(character).unwrap_or(character)),
        }
    }
    normalized
}

/// Returns the ASCII digit of a decimal digit that is not ASCII. Unicode has decimal digits in runs of ten, from zero
/// to nine.
fn ascii_digit(character: char) -> Option<char> {
    let is_digit = |code| {
        char::from_u32(code).is_some_and(|other| other.general_category() == GeneralCategory::DecimalNumber)
    };
    let code = u32::from(character);
    if character.is_ascii() || !is_digit(code) {
        return None;
    }
    let digits_before = (1..code).take_while(|back| is_digit(code - back)).count();
    char::from_digit(u32::try_from(digits_before % 10).ok()?, 10)
}

/// Returns whether a character is a mark on the character before it, is invisible by itself, or is the Arabic tatweel,
/// which only lengthens a word.
pub fn is_mark(character: char) -> bool {
    character == '\u{640}'
        || matches!(
            character.general_category(),
            GeneralCategory::NonspacingMark
                | GeneralCategory::SpacingMark
                | GeneralCategory::EnclosingMark
                | GeneralCategory::Format
        )
}

/// Returns the text without the marks that people often do not type: accents on Latin letters, Arabic vowel signs,
/// Hebrew points.
pub fn without_diacritics(text: &str) -> String {
    let mut is_after_latin = false;
    let kept = text.nfd().filter(|character| match character {
        '\u{300}'..='\u{36f}' => !is_after_latin,
        '\u{64b}'..='\u{652}' | '\u{591}'..='\u{5c7}' => false,
        _ => {
            is_after_latin = character.is_ascii_alphabetic();
            true
        }
    });
    kept.collect::<Vec<_>>().into_iter().nfc().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strict_forms_ignore_only_case_and_composition() {
        assert_eq!(strict_form("Grüße"), strict_form("GRüßE"));
        assert_eq!(strict_form("e\u{301}"), strict_form("É"));
        assert_ne!(strict_form("é"), strict_form("e"));
    }

    #[test]
    fn loose_forms_ignore_marks_and_compatibility_forms() {
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
    fn removes_the_diacritics_that_people_often_omit() {
        assert_eq!(without_diacritics("Qué es ñandú"), "Que es nandu");
        assert_eq!(without_diacritics("шалом й"), "шалом й");
        assert_eq!(without_diacritics("שָׁלוֹם"), "שלום");
        assert_eq!(without_diacritics("हिन्दी"), "हिन्दी");
    }
}
