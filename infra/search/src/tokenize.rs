//! Words: a folded text cut by Unicode's word rules (UAX #29), with runs of scripts that have no spaces kept together
//! and each emoji a word of its own.

use std::ops::Range;

use unicode_segmentation::UnicodeSegmentation;

use super::normalize::NormalizedText;
use super::script::{continues_run, is_mark, is_unspaced};
use super::tokenize_common_scripts::split_common_scripts;

/// A text, folded and cut into words.
#[derive(Clone, Debug, Default)]
pub(super) struct TokenizedText {
    /// The folded text.
    pub normalized: NormalizedText,
    /// Its words, in order.
    pub words: Vec<Word>,
}

/// A word of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    /// Which characters of the folded text it is.
    pub chars: Range<usize>,
    /// Where it stands: positions count the characters of words, with a gap of one between words, whatever is between
    /// them in the text. So nothing but a phrase reaches from one word into the next.
    pub position: usize,
}

impl TokenizedText {
    /// Folds a text and cuts it into words.
    pub fn new(text: &str) -> Self {
        let mut words = Self::default();
        words.read(text);
        words
    }

    /// Folds a text and cuts it into words, in place of the one before and into the same memory.
    pub fn read(&mut self, text: &str) {
        self.normalized.read(text);
        self.words.clear();
        let emoji = std::mem::take(&mut self.normalized.emoji);
        let mut start = 0;
        for picture in &emoji {
            self.split(start..picture.start);
            push_word(&mut self.words, picture.clone());
            start = picture.end;
        }
        self.split(start..self.normalized.chars.len());
        self.normalized.emoji = emoji;
    }

    /// A word's text.
    pub fn text(&self, word: &Word) -> &str {
        self.normalized.slice(&word.chars)
    }

    /// Finds the words of a stretch without emoji.
    fn split(&mut self, stretch: Range<usize>) {
        let before = self.words.len();
        if !split_common_scripts(self.normalized.slice(&stretch), |word| {
            push_word(&mut self.words, stretch.start + word.start..stretch.start + word.end);
        }) {
            self.words.truncate(before);
            self.split_by_unicode_rules(stretch);
        }
    }

    fn split_by_unicode_rules(&mut self, stretch: Range<usize>) {
        let mut found: Vec<Range<usize>> = Vec::new();
        let mut at = stretch.start;
        // The last character of the segment before, and whether that segment was nothing but signs.
        let mut before = ('\0', false);
        for segment in self.normalized.slice(&stretch).split_word_bounds() {
            let end = at + segment.chars().count();
            let is_word = segment.contains(|c: char| c.is_alphanumeric() && !is_mark(c));
            // What a person searches for may start with a sign whose letter was left behind: it stays with the rest,
            // and not with the space or quote before it, where Unicode's rules put it.
            let signs = segment.chars().rev().take_while(|c| is_mark(*c)).count();
            if is_word || signs > 0 {
                let start = if is_word { at } else { end - signs };
                let (left, was_sign) = before;
                let is_running = was_sign || segment.starts_with(|right| continues_run(left, right));
                match found.last_mut() {
                    Some(run) if run.end == start && is_running => run.end = end,
                    _ => found.push(start..end),
                }
                before = (segment.chars().next_back().unwrap_or('\0'), !is_word);
            }
            at = end;
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

/// Whether a word is a run of a script without spaces, of which any part may be what a person calls a word.
pub(super) fn is_unspaced_run(word: &str) -> bool {
    word.chars().any(is_unspaced)
}

/// The parts of a word that punctuation joins (`l'homme`, `example.com`, `snake_case`), as ranges of its characters.
/// Each counts as a word too.
pub(super) fn word_parts(word: &[char]) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + word.get(at..)?.iter().position(|c| !is_part_joiner(*c))?;
        let end = word
            .get(start..)?
            .iter()
            .position(|c| is_part_joiner(*c))
            .map_or(word.len(), |length| start + length);
        at = end;
        Some(start..end)
    })
}

/// Whether a character of a word is punctuation that joins its parts. The pieces of an emoji are none.
pub(super) fn is_part_joiner(c: char) -> bool {
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
        let words = TokenizedText::new(text);
        words.words.iter().map(|word| words.text(word).to_owned()).collect()
    }

    #[test]
    fn splits_words_of_every_script() {
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
        fn plain_text_is_cut_as_any_text_is(text in "[a-c1_:,;.' \néøαцъاتهـ،؟、。はが漢々ター가각\u{300}-]{0,16}") {
            let mut any = TokenizedText { normalized: NormalizedText::new(&text), words: Vec::new() };
            any.split_by_unicode_rules(0..any.normalized.chars.len());
            proptest::prop_assert_eq!(TokenizedText::new(&text).words, any.words);
        }
    }

    #[test]
    fn common_script_characters_split_as_by_the_unicode_rules() {
        for c in '\0'..='\u{FFFF}' {
            for text in [format!("a{c}a"), format!("1{c}1{c}{c}漢"), format!("タ{c}_ {c}")] {
                let folded = NormalizedText::new(&text);
                if folded.emoji.is_empty() {
                    let mut any = TokenizedText { normalized: folded, words: Vec::new() };
                    any.split_by_unicode_rules(0..any.normalized.chars.len());
                    assert_eq!(TokenizedText::new(&text).words, any.words, "{text:?}");
                }
            }
        }
    }
}
