//! Tokenization: splits a normalized text into words by Unicode's word rules (UAX #29), but keeps runs of scripts
//! without spaces together and makes each emoji a word.

use std::ops::Range;

use unicode_segmentation::UnicodeSegmentation;

use super::common_scripts::split_common_scripts;
use super::normalize::NormalizedText;
use super::script::{continues_run, is_mark};

/// A text, normalized and split into words.
#[derive(Clone, Debug, Default)]
pub(crate) struct TokenizedText {
    /// The normalized text.
    pub normalized: NormalizedText,
    /// The words, in order.
    pub words: Vec<Word>,
}

/// A word of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    /// The range of the word's characters in the normalized text.
    pub chars: Range<usize>,
    /// The index position of the word's first character. Positions count the characters of words, with a gap of one
    /// between words, whatever separates them in the text. The gap keeps substrings from matching across words.
    pub position: usize,
}

impl TokenizedText {
    /// Normalizes and splits a text.
    pub fn new(text: &str) -> Self {
        let mut tokenized = Self::default();
        tokenized.read(text);
        tokenized
    }

    /// Normalizes and splits a text. Replaces the previous text and reuses its memory.
    pub fn read(&mut self, text: &str) {
        self.normalized.read(text);
        self.words.clear();
        let emoji = std::mem::take(&mut self.normalized.emoji);
        let mut start = 0;
        for range in &emoji {
            self.split(start..range.start);
            push_word(&mut self.words, range.clone());
            start = range.end;
        }
        self.split(start..self.normalized.chars.len());
        self.normalized.emoji = emoji;
    }

    /// A word's text.
    pub fn text(&self, word: &Word) -> &str {
        self.normalized.slice(&word.chars)
    }

    /// Splits a range of characters without emoji.
    fn split(&mut self, chars: Range<usize>) {
        let word_count = self.words.len();
        if !split_common_scripts(self.normalized.slice(&chars), |word| {
            push_word(&mut self.words, chars.start + word.start..chars.start + word.end);
        }) {
            self.words.truncate(word_count);
            self.split_by_unicode_rules(chars);
        }
    }

    fn split_by_unicode_rules(&mut self, chars: Range<usize>) {
        let mut found: Vec<Range<usize>> = Vec::new();
        let mut start_of_segment = chars.start;
        // The last character of the latest segment that was kept, and whether that segment is a word. Words are kept,
        // and other segments that end in marks.
        let (mut last_char, mut last_is_word) = ('\0', true);
        for segment in self.normalized.slice(&chars).split_word_bounds() {
            let end = start_of_segment + segment.chars().count();
            let is_word = segment.contains(|c: char| c.is_alphanumeric() && !is_mark(c));
            // A query may start with a mark whose base letter was left out. The mark belongs to the word after it, not
            // to the space or quote before it, where Unicode's rules put it.
            let marks = segment.chars().rev().take_while(|c| is_mark(*c)).count();
            if is_word || marks > 0 {
                let start = if is_word { start_of_segment } else { end - marks };
                let continues =
                    !last_is_word || segment.starts_with(|first_char| continues_run(last_char, first_char));
                match found.last_mut() {
                    Some(run) if run.end == start && continues => run.end = end,
                    _ => found.push(start..end),
                }
                (last_char, last_is_word) = (segment.chars().next_back().unwrap_or('\0'), is_word);
            }
            start_of_segment = end;
        }
        for word in found {
            if self.normalized.slice(&word).contains(char::is_alphanumeric) {
                push_word(&mut self.words, word);
            }
        }
    }
}

fn push_word(words: &mut Vec<Word>, chars: Range<usize>) {
    let position = words.last().map_or(0, |word| word.position + word.chars.len() + 1);
    words.push(Word { chars, position });
}

/// The parts of a word that are joined by punctuation (`l'homme`, `example.com`, `snake_case`), as ranges of its
/// characters. A search finds each part as it finds a whole word.
pub(crate) fn word_parts(word: &[char]) -> impl Iterator<Item = Range<usize>> {
    let mut next = 0;
    std::iter::from_fn(move || {
        let start = next + word.get(next..)?.iter().position(|c| !is_part_joiner(*c))?;
        let end = word
            .get(start..)?
            .iter()
            .position(|c| is_part_joiner(*c))
            .map_or(word.len(), |length| start + length);
        next = end;
        Some(start..end)
    })
}

/// Whether a character of a word is punctuation that joins its parts. Returns false for all characters of emoji except
/// the `#` and `*` of keycaps.
pub(crate) fn is_part_joiner(c: char) -> bool {
    if c.is_ascii() {
        return !c.is_ascii_alphanumeric();
    }
    matches!(
        c,
        '\u{B7}' | '\u{2010}'
            ..='\u{205F}' | '\u{55F}' | '\u{589}' | '\u{60C}' | '\u{60D}' | '\u{66C}' | '\u{7F8}'
    ) && !is_mark(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        let tokenized = TokenizedText::new(text);
        tokenized.words.iter().map(|word| tokenized.text(word).to_owned()).collect()
    }

    #[test]
    fn splits_words_of_many_scripts() {
        for (text, expected) in [
            ("Hello, World! 3.14", vec!["hello", "world", "3.14"]),
            ("don’t l'homme", vec!["don't", "l'homme"]),
            ("Привет, мир", vec!["привет", "мир"]),
            ("مرحبا بالعالم", vec!["مرحبا", "بالعالم"]),
            ("צה״ל שלום", vec!["צה\"ל", "שלומ"]),
            ("नमस्ते दुनिया", vec!["नमस्ते", "दुनिया"]),
            ("আমার বাংলা ক্ষমা", vec!["আমার", "বাংলা", "ক্ষমা"]),
            ("தமிழ் மொழி", vec!["தமிழ்", "மொழி"]),
            ("ശരി തെലుగు", vec!["ശരി", "തെലుగు"]),
            ("สวัสดีครับ ผมชื่อ", vec!["สวัสดีครับ", "ผมชื่อ"]),
            ("ខ្មែរ\u{200B}ស្រឡាញ់", vec!["ខ្មែរស្រឡាញ់"]),
            ("မြန်မာစာ", vec!["မြန်မာစာ"]),
            ("我喜欢吃苹果。你呢？", vec!["我喜欢吃苹果", "你呢"]),
            ("東京タワーへ行く", vec!["東京タワーへ行く"]),
            ("人々のiPhone手机", vec!["人々の", "iphone", "手机"]),
            ("안녕하세요 세계", vec!["안녕하세요", "세계"]),
            ("hi😀😀there", vec!["hi", "😀", "😀", "there"]),
            ("ংলা \"्तान ่อน", vec!["ংলা", "्तान", "่อน"]),
            ("...!? ् ่", vec![]),
        ] {
            assert_eq!(words(text), expected, "{text}");
        }
    }

    #[test]
    fn positions_count_characters_with_a_gap_of_one() {
        let positions =
            |text: &str| TokenizedText::new(text).words.iter().map(|word| word.position).collect::<Vec<_>>();
        assert_eq!(positions("one -- two, three"), [0, 4, 8]);
        assert_eq!(positions("😀😀x"), [0, 2, 4]);
    }

    #[test]
    fn splits_a_word_at_joining_punctuation() {
        let parts_of = |word: &str| {
            let chars: Vec<char> = word.chars().collect();
            word_parts(&chars).map(|part| chars[part].iter().collect::<String>()).collect::<Vec<_>>()
        };
        assert_eq!(parts_of("l'homme"), ["l", "homme"]);
        assert_eq!(parts_of("snake_case_"), ["snake", "case"]);
        assert_eq!(parts_of("plain"), ["plain"]);
        assert_eq!(parts_of("नमस्ते"), ["नमस्ते"]);
    }

    proptest::proptest! {
        #[test]
        fn common_scripts_split_as_by_the_unicode_rules(text in "[a-c1_:,;.' \néøαцъاتهـ،؟、。はが漢々ター가각\u{300}-]{0,16}") {
            let mut expected = TokenizedText { normalized: NormalizedText::new(&text), words: Vec::new() };
            expected.split_by_unicode_rules(0..expected.normalized.chars.len());
            proptest::prop_assert_eq!(TokenizedText::new(&text).words, expected.words);
        }
    }

    #[test]
    fn common_script_characters_split_as_by_the_unicode_rules() {
        for c in '\0'..='\u{FFFF}' {
            for text in [format!("a{c}a"), format!("1{c}1{c}{c}漢"), format!("タ{c}_ {c}")] {
                let normalized = NormalizedText::new(&text);
                if normalized.emoji.is_empty() {
                    let mut expected = TokenizedText { normalized, words: Vec::new() };
                    expected.split_by_unicode_rules(0..expected.normalized.chars.len());
                    assert_eq!(TokenizedText::new(&text).words, expected.words, "{text:?}");
                }
            }
        }
    }
}
