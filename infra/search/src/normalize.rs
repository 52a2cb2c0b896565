//! Folding: text without case, diacritics and other differences that a person who searches does not mean, with the
//! way back to the bytes it came from.

use std::ops::Range;
use std::sync::LazyLock;

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;
use unicode_properties::UnicodeEmoji;
use unicode_segmentation::UnicodeSegmentation;

use super::script::{is_diacritic, is_invisible, is_unspaced};

/// Characters of one grapheme cluster that are kept together. Longer clusters only occur in text made to annoy; they
/// are taken apart, so that nothing that is cut or marked at cluster boundaries grows without bound.
const MAX_CLUSTER_CHARS: usize = 32;

/// A folded text.
#[derive(Clone, Debug, Default)]
pub(super) struct NormalizedText {
    /// The folded characters.
    pub text: String,
    /// Of each character of `text`: its first byte in `text`, and the bytes of the cluster it came from.
    pub chars: Vec<NormalizedChar>,
    /// Which characters of `text` are emoji, one range an emoji.
    pub emoji: Vec<Range<usize>>,
}

/// A character of a folded text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NormalizedChar {
    /// Its first byte in the folded text.
    pub offset: usize,
    /// Where the grapheme cluster that it came from starts in the original, in bytes.
    pub source_start: usize,
    /// Where that cluster ends.
    pub source_end: usize,
}

impl NormalizedText {
    #[cfg(test)]
    pub fn new(text: &str) -> Self {
        let mut folded = Self::default();
        folded.read(text);
        folded
    }

    /// Folds a text in place of the one before, into the same memory.
    pub fn read(&mut self, text: &str) {
        self.text.clear();
        self.chars.clear();
        self.emoji.clear();
        self.text.reserve(text.len());
        self.chars.reserve(text.len());
        if text.is_ascii() {
            for (from, byte) in text.bytes().enumerate() {
                self.push(char::from(byte.to_ascii_lowercase()), from..from + 1);
            }
            return;
        }
        let mut at = 0;
        while at < text.len() {
            at = self.push_single_char_clusters(text, at);
            at = self.push_next_cluster(text, at);
        }
    }

    /// Folds characters that are clusters of their own, up to the first that may not be; returns where that is.
    fn push_single_char_clusters(&mut self, text: &str, from: usize) -> usize {
        let mut chars = text[from..].char_indices().map(|(at, c)| (from + at, normalize_single_char(c)));
        let Some((mut at, mut folded)) = chars.next() else { return from };
        // What comes after a character may belong to its cluster.
        while let Some(c) = folded {
            let (end, next) = chars.next().unwrap_or((text.len(), Some(c)));
            if next.is_none() {
                break;
            }
            self.push(c, at..end);
            (at, folded) = (end, next);
            if at == text.len() {
                break;
            }
        }
        at
    }

    /// Folds the cluster that starts here; returns where it ends.
    fn push_next_cluster(&mut self, text: &str, from: usize) -> usize {
        let Some(cluster) = text[from..].graphemes(true).next() else { return from };
        for (at, piece) in split_cluster(from, cluster) {
            let source = at..at + piece.len();
            match piece.as_bytes() {
                [byte] => self.push(char::from(byte.to_ascii_lowercase()), source),
                _ if is_emoji(piece) => self.push_emoji(piece, source),
                _ => self.push_cluster(piece, &source),
            }
        }
        from + cluster.len()
    }

    /// The bytes of `text` that the characters of `range` take.
    pub fn byte_range(&self, range: &Range<usize>) -> Range<usize> {
        let end = |index: usize| self.chars.get(index).map_or(self.text.len(), |char| char.offset);
        end(range.start)..end(range.end)
    }

    /// The characters of `range`.
    pub fn slice(&self, range: &Range<usize>) -> &str {
        self.text.get(self.byte_range(range)).unwrap_or_default()
    }

    /// The bytes of the original that the characters of `range` came from, in whole clusters.
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

    /// An emoji stays as it is, but for the selectors that say how to draw it.
    fn push_emoji(&mut self, cluster: &str, source: Range<usize>) {
        let start = self.chars.len();
        for c in cluster.chars().filter(|c| !matches!(c, '\u{FE0E}' | '\u{FE0F}')) {
            self.push(c, source.clone());
        }
        self.emoji.push(start..self.chars.len());
    }

    fn push_cluster(&mut self, cluster: &str, source: &Range<usize>) {
        // Composing again keeps Hangul syllables and voiced Kana whole; letters with accents have lost them by then.
        let letters = cluster.nfkd().filter(|c| !is_diacritic(*c)).flat_map(char::to_lowercase);
        // Lower-casing may bring a mark (İ), so they are looked for once more.
        for c in letters.filter(|c| !is_diacritic(*c)).nfc() {
            if c == '\u{200B}' {
                // A zero-width space is where a line may break inside a run, and a space elsewhere.
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

/// The grapheme clusters of a text with their first bytes, oversized ones in pieces.
pub(super) fn bounded_clusters(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.grapheme_indices(true).flat_map(|(start, cluster)| split_cluster(start, cluster))
}

/// A cluster that starts at a byte, in pieces where it is oversized.
fn split_cluster(start: usize, cluster: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut rest = cluster;
    let mut at = start;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = rest.char_indices().nth(MAX_CLUSTER_CHARS).map_or(rest.len(), |(end, _)| end);
        let (piece, tail) = rest.split_at(end);
        let item = (at, piece);
        at += end;
        rest = tail;
        Some(item)
    })
}

/// Characters up to here are looked up in [`ALONE`].
const LOOKUP_TABLE_END: char = '\u{700}';

/// What the first characters fold to, as [`folded_alone`] says.
static LOOKUP_TABLE: LazyLock<Vec<Option<char>>> = LazyLock::new(|| {
    let alone = |c: char| {
        let apart = |text: String| text.graphemes(true).count() == text.chars().count();
        if !apart(format!("a{c}a")) || !apart(format!("{c}{c}")) {
            return None;
        }
        let mut folded = NormalizedText::default();
        folded.push_next_cluster(&c.to_string(), 0);
        let mut chars = folded.text.chars();
        chars.next().filter(|_| chars.next().is_none() && folded.emoji.is_empty())
    };
    ('\0'..LOOKUP_TABLE_END).map(alone).collect()
});

/// What a character folds to that is no emoji and is a cluster of its own, unless what comes after it is none; `None`
/// where it may be otherwise, or folds to none or several.
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

/// Whether a cluster is an emoji: pictures, flags, keycaps. What is a letter in another dress (™, ㊗) is not.
fn is_emoji(cluster: &str) -> bool {
    let mut chars = cluster.chars();
    let Some(first) = chars.next() else { return false };
    if first.is_ascii() {
        return matches!(first, '0'..='9' | '#' | '*') && chars.any(|c| c == '\u{20E3}');
    }
    first.is_emoji_char() && first.nfkd().eq([first]) && !is_combining_mark(first)
}

/// Letters that take several to spell without their marks.
fn expand_ligature(c: char) -> Option<&'static str> {
    Some(match c {
        'ß' => "ss",
        'æ' => "ae",
        'œ' => "oe",
        'þ' => "th",
        _ => return None,
    })
}

/// A lower-case letter without what decomposing does not take from it.
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
        // Letters with a form for the end of a word.
        'ς' => 'σ',
        'ך' => 'כ',
        'ם' => 'מ',
        'ן' => 'נ',
        'ף' => 'פ',
        'ץ' => 'צ',
        // Letters that Arabic, Persian and Urdu keyboards give in different forms.
        'ی' | 'ى' | 'ے' => 'ي',
        'ک' | 'ڪ' => 'ك',
        'ٱ' => 'ا',
        'ة' | 'ہ' | 'ە' => 'ه',
        // Apostrophes, geresh and gershayim as keyboards give them.
        '\u{2018}' | '\u{2019}' | '\u{201B}' | '\u{02BC}' | '\u{05F3}' => '\'',
        '\u{05F4}' => '"',
        _ => ascii_digit(c).unwrap_or(c),
    }
}

/// Where the ten digits of scripts start that have their own.
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
    fn case_and_diacritics_fold_away() {
        for (text, folded) in [
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
            assert_eq!(normalize(text), folded, "{text}");
        }
    }

    #[test]
    fn what_spells_a_word_stays() {
        for kept in ["हिन्दी", "বাংলা", "தமிழ்", "ไทยได้", "ខ្មែរ", "မြန်မာ", "が", "한국어", "漢字"]
        {
            assert_eq!(normalize(kept), kept);
        }
        assert_eq!(normalize("ｶﾞｷﾞ"), "ガギ");
        assert_eq!(normalize("\u{1112}\u{1161}\u{11AB}"), "한");
        assert_ne!(normalize("が"), normalize("か"));
    }

    #[test]
    fn an_emoji_keeps_its_parts_but_not_how_it_is_drawn() {
        let family = "\u{1F468}\u{200D}\u{1F469}\u{200D}\u{1F467}";
        for (text, folded) in
            [(family, family), ("❤\u{FE0F}", "❤"), ("🇩🇪", "🇩🇪"), ("1\u{FE0F}\u{20E3}", "1\u{20E3}")]
        {
            let fold = NormalizedText::new(text);
            assert_eq!(fold.text, folded);
            assert_eq!(fold.emoji, vec![0..folded.chars().count(); 1]);
        }
        assert!(NormalizedText::new("™ ℹ 12# é").emoji.is_empty());
    }

    #[test]
    fn every_character_knows_the_cluster_it_came_from() {
        let text = "aé\u{301}ß가";
        let folded = NormalizedText::new(text);
        assert_eq!(folded.text, "aess가");
        let from: Vec<_> = (0..5).map(|index| &text[folded.source_range(&(index..index + 1))]).collect();
        assert_eq!(from, ["a", "é\u{301}", "ß", "ß", "가"]);
    }

    #[test]
    fn an_endless_cluster_is_taken_apart() {
        let text = format!("a{}", "\u{301}".repeat(1_000));
        assert!(bounded_clusters(&text).all(|(_, cluster)| cluster.chars().count() <= MAX_CLUSTER_CHARS));
        assert_eq!(bounded_clusters(&text).map(|(_, cluster)| cluster).collect::<String>(), text);
        assert_eq!(normalize(&text), "a");
    }

    /// Folds cluster by cluster.
    fn by_clusters(text: &str) -> NormalizedText {
        let mut folded = NormalizedText::default();
        let mut at = 0;
        while at < text.len() {
            at = folded.push_next_cluster(text, at);
        }
        folded
    }

    #[test]
    fn a_character_alone_folds_as_its_cluster_does() {
        for c in '\0'..='\u{FFFF}' {
            if let Some(folded) = normalize_single_char(c) {
                let text = format!("a{c}{c}é漢{c}");
                let (read, expected) = (NormalizedText::new(&text), by_clusters(&text));
                assert_eq!(by_clusters(&c.to_string()).text, folded.to_string(), "{c:?}");
                assert_eq!((read.text, read.chars), (expected.text, expected.chars), "{c:?}");
                assert!(read.emoji.is_empty(), "{c:?}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_folds_cluster_by_cluster(text in "[a-c1 \r\n\u{300}-\u{302}éßйا-ت\u{64B}\u{200C}\u{200D}\u{FE0F}\u{20E3}が-ご\u{3099}漢가\u{11A8}क्ष😀🇩©]{0,12}") {
            let (read, expected) = (NormalizedText::new(&text), by_clusters(&text));
            proptest::prop_assert_eq!((read.text, read.chars, read.emoji), (expected.text, expected.chars, expected.emoji));
        }
    }
}
