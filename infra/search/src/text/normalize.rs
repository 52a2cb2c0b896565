//! Normalization: removes case, diacritics and compatibility forms, and maps each character back to the bytes of the
//! original text.

use std::ops::Range;
use std::sync::LazyLock;

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;
use unicode_properties::UnicodeEmoji;
use unicode_segmentation::UnicodeSegmentation;

use super::script::{is_diacritic, is_invisible, is_unspaced};

/// The maximum length of a grapheme cluster, in characters. Longer clusters hardly occur except in hostile text. They
/// are split, so that everything cut or marked at cluster boundaries stays bounded.
const MAX_CLUSTER_CHARS: usize = 32;

/// A normalized text.
#[derive(Clone, Debug, Default)]
pub(crate) struct NormalizedText {
    /// The normalized text.
    pub text: String,
    /// The characters of `text`, with their origins.
    pub chars: Vec<NormalizedChar>,
    /// The ranges of characters of `text` that are emoji, one range per emoji.
    pub emoji: Vec<Range<usize>>,
}

/// A character of a normalized text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NormalizedChar {
    /// The byte offset in the normalized text.
    pub offset: usize,
    /// The byte offset, in the original text, of the start of the grapheme cluster that the character comes from.
    pub source_start: usize,
    /// The byte offset of that cluster's end.
    pub source_end: usize,
}

impl NormalizedText {
    #[cfg(test)]
    pub fn new(text: &str) -> Self {
        let mut normalized = Self::default();
        normalized.read(text);
        normalized
    }

    /// Normalizes a text. Replaces the previous text and reuses its memory.
    pub fn read(&mut self, text: &str) {
        self.text.clear();
        self.chars.clear();
        self.emoji.clear();
        self.text.reserve(text.len());
        self.chars.reserve(text.len());
        if text.is_ascii() {
            self.push_ascii(text.as_bytes());
            return;
        }
        let mut offset = 0;
        while offset < text.len() {
            offset = self.push_single_char_clusters(text, offset);
            offset = self.push_next_cluster(text, offset);
        }
    }

    /// Normalizes an ASCII text, in which only a line break of two characters is a cluster of more than one.
    fn push_ascii(&mut self, text: &[u8]) {
        for (offset, &byte) in text.iter().enumerate() {
            let source = match byte {
                b'\r' if text.get(offset + 1) == Some(&b'\n') => offset..offset + 2,
                b'\n' if offset > 0 && text[offset - 1] == b'\r' => offset - 1..offset + 1,
                _ => offset..offset + 1,
            };
            self.push(char::from(byte.to_ascii_lowercase()), source);
        }
    }

    /// Normalizes characters from an offset on, as long as each is certainly a cluster of its own. Returns the offset
    /// of the first one that may belong to a longer cluster.
    fn push_single_char_clusters(&mut self, text: &str, from: usize) -> usize {
        let mut chars =
            text[from..].char_indices().map(|(offset, c)| (from + offset, normalize_single_char(c)));
        let Some((mut start, mut normalized)) = chars.next() else { return from };
        while let Some(c) = normalized {
            // At the end of the text nothing follows, so any `Some` will do.
            let (end, next) = chars.next().unwrap_or((text.len(), Some(c)));
            // The next character may belong to this one's cluster.
            if next.is_none() {
                break;
            }
            self.push(c, start..end);
            (start, normalized) = (end, next);
            if start == text.len() {
                break;
            }
        }
        start
    }

    /// Normalizes the cluster that starts at an offset, and returns the offset of its end.
    fn push_next_cluster(&mut self, text: &str, from: usize) -> usize {
        let Some(cluster) = text[from..].graphemes(true).next() else { return from };
        for (start, piece) in split_cluster(from, cluster) {
            let source = start..start + piece.len();
            match piece.as_bytes() {
                [byte] => self.push(char::from(byte.to_ascii_lowercase()), source),
                _ if is_emoji(piece) => self.push_emoji(piece, source),
                _ => self.push_cluster(piece, &source),
            }
        }
        from + cluster.len()
    }

    /// The bytes of the normalized text for a range of characters.
    pub fn byte_range(&self, range: &Range<usize>) -> Range<usize> {
        let byte_offset = |index: usize| self.chars.get(index).map_or(self.text.len(), |char| char.offset);
        byte_offset(range.start)..byte_offset(range.end)
    }

    /// The normalized text for a range of characters.
    pub fn slice(&self, range: &Range<usize>) -> &str {
        self.text.get(self.byte_range(range)).unwrap_or_default()
    }

    /// The bytes of the original text that a range of characters comes from, in whole clusters.
    pub fn source_range(&self, range: &Range<usize>) -> Range<usize> {
        let chars = self.chars.get(range.clone()).unwrap_or_default();
        match (chars.first(), chars.last()) {
            (Some(first), Some(last)) => first.source_start..last.source_end,
            _ => 0..0,
        }
    }

    fn push(&mut self, c: char, source: Range<usize>) {
        self.chars.push(NormalizedChar {
            offset: self.text.len(),
            source_start: source.start,
            source_end: source.end,
        });
        self.text.push(c);
    }

    /// Keeps an emoji as it is, except for variation selectors.
    fn push_emoji(&mut self, cluster: &str, source: Range<usize>) {
        let start = self.chars.len();
        for c in cluster.chars().filter(|c| !matches!(c, '\u{FE0E}' | '\u{FE0F}')) {
            self.push(c, source.clone());
        }
        self.emoji.push(start..self.chars.len());
    }

    fn push_cluster(&mut self, cluster: &str, source: &Range<usize>) {
        // Recomposition (NFC) keeps Hangul syllables and voiced Kana whole; the accents of other letters are gone by
        // then.
        let letters = cluster.nfkd().filter(|c| !is_diacritic(*c)).flat_map(char::to_lowercase);
        // Lower-casing may add a mark (İ), so diacritics are removed once more.
        for c in letters.filter(|c| !is_diacritic(*c)).nfc() {
            if c == '\u{200B}' {
                // Inside a run of a script without spaces, a zero-width space only allows a line break.
                if !self.text.chars().next_back().is_some_and(is_unspaced) {
                    self.push(' ', source.clone());
                }
            } else if !c.is_ascii() && is_invisible(c) {
            } else if let Some(letters) = expand_ligature(c) {
                letters.chars().for_each(|c| self.push(c, source.clone()));
            } else {
                self.push(base_letter(c), source.clone());
            }
        }
    }
}

/// The grapheme clusters of a text with their byte offsets. Oversized clusters are split.
pub(crate) fn bounded_clusters(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.grapheme_indices(true).flat_map(|(start, cluster)| split_cluster(start, cluster))
}

/// The pieces of a cluster with their byte offsets: one piece unless the cluster is oversized.
fn split_cluster(start: usize, cluster: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut rest = cluster;
    let mut offset = start;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = rest.char_indices().nth(MAX_CLUSTER_CHARS).map_or(rest.len(), |(end, _)| end);
        let (piece, tail) = rest.split_at(end);
        let item = (offset, piece);
        offset += end;
        rest = tail;
        Some(item)
    })
}

/// The first character beyond [`LOOKUP_TABLE`].
const LOOKUP_TABLE_END: char = '\u{700}';

/// The results of [`normalize_single_char`] for the characters beyond ASCII and before [`LOOKUP_TABLE_END`].
static LOOKUP_TABLE: LazyLock<Vec<Option<char>>> = LazyLock::new(|| {
    let normalize = |c: char| {
        let has_only_single_char_clusters =
            |text: String| text.graphemes(true).count() == text.chars().count();
        if !has_only_single_char_clusters(format!("a{c}a"))
            || !has_only_single_char_clusters(format!("{c}{c}"))
        {
            return None;
        }
        let mut normalized = NormalizedText::default();
        normalized.push_next_cluster(&c.to_string(), 0);
        let mut chars = normalized.text.chars();
        chars.next().filter(|_| chars.next().is_none() && normalized.emoji.is_empty())
    };
    ('\0'..LOOKUP_TABLE_END).map(normalize).collect()
});

/// Normalizes a character that certainly is no emoji, normalizes to exactly one character, and never shares a cluster
/// with another such character. `None` for all other characters.
fn normalize_single_char(c: char) -> Option<char> {
    match c {
        '\r' => None,
        '\0'..='\x7F' => Some(c.to_ascii_lowercase()),
        // Kana, Han, Hangul syllables.
        '\u{3041}'..='\u{3096}'
        | '\u{30A1}'..='\u{30FA}'
        | '\u{4E00}'..='\u{9FFF}'
        | '\u{AC00}'..='\u{D7A3}' => Some(c),
        _ => LOOKUP_TABLE.get(c as usize).copied().flatten(),
    }
}

/// Whether a cluster is an emoji: a picture, a flag, a keycap. Compatibility forms of letters (™, ㊗) are not.
fn is_emoji(cluster: &str) -> bool {
    let mut chars = cluster.chars();
    let Some(first) = chars.next() else { return false };
    if first.is_ascii() {
        return matches!(first, '0'..='9' | '#' | '*') && chars.any(|c| c == '\u{20E3}');
    }
    first.is_emoji_char() && first.nfkd().eq([first]) && !is_combining_mark(first)
}

/// The base letters of a ligature or a special letter that stands for several.
fn expand_ligature(c: char) -> Option<&'static str> {
    Some(match c {
        'ß' => "ss",
        'æ' => "ae",
        'œ' => "oe",
        'þ' => "th",
        _ => return None,
    })
}

/// The base form of a lower-case letter, a digit or an apostrophe, for differences that decomposition (NFKD) keeps.
fn base_letter(c: char) -> char {
    if c.is_ascii() {
        return c;
    }
    match c {
        'ø' => 'o',
        'đ' | 'ð' => 'd',
        'ł' => 'l',
        'ħ' => 'h',
        'ŧ' => 't',
        'ı' => 'i',
        // Word-final forms.
        'ς' => 'σ',
        'ך' => 'כ',
        'ם' => 'מ',
        'ן' => 'נ',
        'ף' => 'פ',
        'ץ' => 'צ',
        // Letters that are encoded or spelled differently in Arabic, Persian, Urdu and Kurdish.
        'ی' | 'ى' | 'ے' => 'ي',
        'ک' | 'ڪ' => 'ك',
        'ٱ' => 'ا',
        'ة' | 'ہ' | 'ە' => 'ه',
        // Variants of the apostrophe; geresh and gershayim.
        '\u{2018}' | '\u{2019}' | '\u{201B}' | '\u{02BC}' | '\u{05F3}' => '\'',
        '\u{05F4}' => '"',
        _ => ascii_digit(c).unwrap_or(c),
    }
}

/// The zeros of some scripts with digits of their own. Each zero is followed by the other nine digits of its script.
const ZEROS: [char; 20] = [
    '\u{0660}', '\u{06F0}', '\u{07C0}', '\u{0966}', '\u{09E6}', '\u{0A66}', '\u{0AE6}', '\u{0B66}',
    '\u{0BE6}', '\u{0C66}', '\u{0CE6}', '\u{0D66}', '\u{0DE6}', '\u{0E50}', '\u{0ED0}', '\u{0F20}',
    '\u{1040}', '\u{1090}', '\u{17E0}', '\u{1810}',
];

fn ascii_digit(c: char) -> Option<char> {
    let zero = ZEROS.iter().rev().find(|zero| **zero <= c)?;
    char::from_digit(u32::from(c) - u32::from(*zero), 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normalize(text: &str) -> String {
        NormalizedText::new(text).text
    }

    #[test]
    fn removes_case_diacritics_and_compatibility_forms() {
        for (text, normalized) in [
            ("Crème BRÛLÉE", "creme brulee"),
            ("Straße GROẞ", "strasse gross"),
            ("Łódź ØRSTED Đặng", "lodz orsted dang"),
            ("İstanbul ılık", "istanbul ilik"),
            ("ΣΊΣΥΦΟΣ Σίσυφος", "σισυφοσ σισυφοσ"),
            ("Ёлка ЙОД", "елка иод"),
            ("Œuvre Æsir", "oeuvre aesir"),
            ("ﬁne ①② ２０２６", "fine 12 2026"),
            ("مُحَمَّدٌ أحمد إلى", "محمد احمد الي"),
            ("كـــتاب کتاب", "كتاب كتاب"),
            ("שָׁלוֹם", "שלומ"),
            ("می\u{200C}خواهم", "ميخواهم"),
            ("soft\u{AD}hyphen \u{202E}bidi\u{202C}", "softhyphen bidi"),
            ("٣ ३ ৩ ๓", "3 3 3 3"),
        ] {
            assert_eq!(normalize(text), normalized, "{text}");
        }
    }

    #[test]
    fn keeps_marks_that_spell_a_word() {
        for kept in ["हिन्दी", "বাংলা", "தமிழ்", "ไทยได้", "ខ្មែរ", "မြန်မာ", "が", "한국어", "漢字"]
        {
            assert_eq!(normalize(kept), kept);
        }
        assert_eq!(normalize("ｶﾞｷﾞ"), "ガギ");
        assert_eq!(normalize("\u{1112}\u{1161}\u{11AB}"), "한");
        assert_ne!(normalize("が"), normalize("か"));
    }

    #[test]
    fn an_emoji_keeps_its_parts_but_no_variation_selectors() {
        let family = "\u{1F468}\u{200D}\u{1F469}\u{200D}\u{1F467}";
        for (text, normalized) in
            [(family, family), ("❤\u{FE0F}", "❤"), ("🇩🇪", "🇩🇪"), ("1\u{FE0F}\u{20E3}", "1\u{20E3}")]
        {
            let actual = NormalizedText::new(text);
            assert_eq!(actual.text, normalized);
            assert_eq!(actual.emoji, vec![0..normalized.chars().count(); 1]);
        }
        assert!(NormalizedText::new("™ ℹ 12# é").emoji.is_empty());
    }

    #[test]
    fn maps_each_character_to_its_cluster() {
        let text = "aé\u{301}ß가";
        let normalized = NormalizedText::new(text);
        assert_eq!(normalized.text, "aess가");
        let clusters: Vec<_> =
            (0..5).map(|index| &text[normalized.source_range(&(index..index + 1))]).collect();
        assert_eq!(clusters, ["a", "é\u{301}", "ß", "ß", "가"]);
    }

    #[test]
    fn splits_an_oversized_cluster() {
        let text = format!("a{}", "\u{301}".repeat(1_000));
        assert!(bounded_clusters(&text).all(|(_, cluster)| cluster.chars().count() <= MAX_CLUSTER_CHARS));
        assert_eq!(bounded_clusters(&text).map(|(_, cluster)| cluster).collect::<String>(), text);
        assert_eq!(normalize(&text), "a");
    }

    /// Normalizes without the shortcuts for ASCII and single characters.
    fn normalize_by_clusters(text: &str) -> NormalizedText {
        let mut normalized = NormalizedText::default();
        let mut offset = 0;
        while offset < text.len() {
            offset = normalized.push_next_cluster(text, offset);
        }
        normalized
    }

    #[test]
    fn a_single_character_normalizes_as_its_cluster_does() {
        for c in '\0'..='\u{FFFF}' {
            if let Some(normalized) = normalize_single_char(c) {
                let text = format!("a{c}{c}é漢{c}");
                let (actual, expected) = (NormalizedText::new(&text), normalize_by_clusters(&text));
                assert_eq!(normalize_by_clusters(&c.to_string()).text, normalized.to_string(), "{c:?}");
                assert_eq!((actual.text, actual.chars), (expected.text, expected.chars), "{c:?}");
                assert!(actual.emoji.is_empty(), "{c:?}");
            }
        }
    }

    #[test]
    fn a_line_break_of_two_characters_is_one_cluster() {
        for text in ["\r\n", "a\r\nb", "\n\r\r\n\n", "é\r\n", "\r\né"] {
            let (actual, expected) = (NormalizedText::new(text), normalize_by_clusters(text));
            assert_eq!((actual.text, actual.chars), (expected.text, expected.chars), "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_normalizes_cluster_by_cluster(text in "[a-c1 \r\n\u{300}-\u{302}éßйا-ت\u{64B}\u{200C}\u{200D}\u{FE0F}\u{20E3}が-ご\u{3099}漢가\u{11A8}क्ष😀🇩©]{0,12}") {
            let (actual, expected) = (NormalizedText::new(&text), normalize_by_clusters(&text));
            proptest::prop_assert_eq!((actual.text, actual.chars, actual.emoji), (expected.text, expected.chars, expected.emoji));
        }
    }
}
