//! Classes of characters: scripts without spaces between words, diacritics, invisible characters.

use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

/// Han, Kana, Bopomofo and Hangul, where two characters suffice for a substring search.
pub(crate) fn is_cjk(c: char) -> bool {
    is_han_or_kana(c) || is_hangul(c)
}

/// The scripts of China and Japan, written without spaces between words.
fn is_han_or_kana(c: char) -> bool {
    matches!(c,
        '\u{2E80}'..='\u{2FDF}' // radicals
        | '\u{3005}'..='\u{3007}' | '\u{3021}'..='\u{3029}' | '\u{3031}'..='\u{3035}' | '\u{3038}'..='\u{303C}'
        | '\u{3041}'..='\u{309F}' // Hiragana
        | '\u{30A1}'..='\u{30FA}' | '\u{30FC}'..='\u{30FF}' // Katakana without the middle dot
        | '\u{3105}'..='\u{312F}' | '\u{31A0}'..='\u{31BF}' // Bopomofo
        | '\u{31F0}'..='\u{31FF}'
        | '\u{3400}'..='\u{4DBF}' | '\u{4E00}'..='\u{9FFF}' | '\u{F900}'..='\u{FAFF}'
        | '\u{1AFF0}'..='\u{1B16F}'
        | '\u{20000}'..='\u{3FFFF}')
}

/// Korean, written with spaces, but with a syllable per character.
fn is_hangul(c: char) -> bool {
    matches!(c, '\u{1100}'..='\u{11FF}' | '\u{3131}'..='\u{318E}' | '\u{A960}'..='\u{A97C}' | '\u{AC00}'..='\u{D7FB}')
}

/// Scripts of South-East Asia that are written without spaces between words: Thai, Lao, Khmer, Myanmar, Tai.
fn is_south_east_asian(c: char) -> bool {
    matches!(c,
        '\u{0E01}'..='\u{0E3A}' | '\u{0E40}'..='\u{0E4E}' // Thai without the baht sign and punctuation
        | '\u{0E80}'..='\u{0ECF}' | '\u{0EDC}'..='\u{0EDF}' // Lao
        | '\u{1000}'..='\u{103F}' | '\u{1050}'..='\u{109F}' | '\u{A9E0}'..='\u{A9FE}' | '\u{AA60}'..='\u{AA7F}'
        | '\u{1780}'..='\u{17D3}' | '\u{17D7}' | '\u{17DC}' | '\u{17DD}' // Khmer
        | '\u{1950}'..='\u{19DF}' | '\u{1A20}'..='\u{1A7C}' | '\u{AA80}'..='\u{AADF}')
}

/// Whether the character's script has no spaces between words, so that only a dictionary could find the words.
pub(crate) fn is_unspaced(c: char) -> bool {
    is_han_or_kana(c) || is_south_east_asian(c)
}

/// Whether two adjacent characters belong to one run, even if Unicode's word rules would split between them.
pub(crate) fn continues_run(left: char, right: char) -> bool {
    (is_cjk(left) && is_cjk(right)) || (is_south_east_asian(left) && is_south_east_asian(right))
}

/// Whether normalization removes a combining mark. It keeps marks that spell the word: vowel signs and viramas of
/// Indic and South-East Asian scripts, and the voicing marks of Kana.
pub(crate) fn is_diacritic(c: char) -> bool {
    let in_range = matches!(c,
        '\u{0300}'..='\u{036F}' | '\u{1AB0}'..='\u{1AFF}' | '\u{1DC0}'..='\u{1DFF}' | '\u{20D0}'..='\u{20FF}'
        | '\u{FE00}'..='\u{FE0F}' | '\u{FE20}'..='\u{FE2F}' | '\u{E0100}'..='\u{E01EF}'
        | '\u{0483}'..='\u{0489}' | '\u{A66F}'..='\u{A672}' | '\u{A674}'..='\u{A67D}' // Cyrillic
        | '\u{0591}'..='\u{05C7}' | '\u{FB1E}' // Hebrew points
        | '\u{0610}'..='\u{061A}' | '\u{064B}'..='\u{065F}' | '\u{0670}' | '\u{06D6}'..='\u{06ED}'
        | '\u{0897}'..='\u{089F}' | '\u{08CA}'..='\u{08FF}' // Arabic
        | '\u{0711}' | '\u{0730}'..='\u{074A}' // Syriac
        | '\u{093C}' // the nukta of Devanagari, which is often left out
        | '\u{0951}'..='\u{0954}');
    in_range && is_mark(c)
}

/// Whether the character is a combining mark.
pub(crate) fn is_mark(c: char) -> bool {
    matches!(
        c.general_category(),
        GeneralCategory::NonspacingMark | GeneralCategory::EnclosingMark | GeneralCategory::SpacingMark
    )
}

/// Whether the character is invisible or only stretches a word: joiners, directional controls, soft hyphens, fillers;
/// tatweel.
pub(crate) fn is_invisible(c: char) -> bool {
    matches!(c, '\u{0640}' | '\u{115F}' | '\u{1160}' | '\u{2065}' | '\u{FFA0}')
        || c.general_category() == GeneralCategory::Format
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vowel_signs_and_viramas_are_not_diacritics() {
        for kept in ['\u{93F}', '\u{94D}', '\u{9BE}', '\u{BCD}', '\u{E34}', '\u{E48}', '\u{17D2}', '\u{3099}']
        {
            assert!(!is_diacritic(kept), "{kept:?}");
        }
        for removed in ['\u{301}', '\u{323}', '\u{64E}', '\u{651}', '\u{5B8}', '\u{483}', '\u{FE0F}'] {
            assert!(is_diacritic(removed), "{removed:?}");
        }
    }

    #[test]
    fn punctuation_between_hebrew_points_is_not_a_diacritic() {
        assert!(!is_diacritic('\u{5BE}'));
        assert!(!is_diacritic('\u{5C3}'));
    }
}
