//! Queries taken from messages: words, prefixes and substrings, in every script.

use rand::RngExt;
use rand::rngs::StdRng;

use super::normalize::is_mark;

/// The part of a word that is used as the query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryKind {
    /// The whole word.
    Word,
    /// The start of the word.
    Prefix,
    /// A part that neither starts nor ends the word.
    Substring,
}

impl QueryKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Word, Self::Prefix, Self::Substring];
}

/// A query taken from a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampledQuery {
    /// The query.
    pub text: String,
    /// Whether the query is long enough to be found inside other words.
    pub is_found_inside_words: bool,
}

/// A group of scripts that write words in the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Script {
    /// Han and Kana: no spaces between words. Two characters are enough to be found inside a word.
    HanKana,
    /// Hangul: spaces between words. Two characters are enough to be found inside a word.
    Hangul,
    /// Thai, Lao, Burmese and Khmer: no spaces between words. Three characters are needed.
    Unspaced,
    /// All other scripts: spaces between words. Three characters are needed.
    Spaced,
}

impl Script {
    fn from_char(character: char) -> Self {
        match character {
            '\u{2e80}'..='\u{2fdf}'
            | '\u{3005}'..='\u{3007}'
            | '\u{3041}'..='\u{30ff}'
            | '\u{31f0}'..='\u{31ff}'
            | '\u{3400}'..='\u{9fff}'
            | '\u{f900}'..='\u{faff}'
            | '\u{ff66}'..='\u{ff9f}'
            | '\u{20000}'..='\u{3ffff}' => Self::HanKana,
            '\u{1100}'..='\u{11ff}' | '\u{3131}'..='\u{318e}' | '\u{ac00}'..='\u{d7fb}' => Self::Hangul,
            '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' => Self::Unspaced,
            _ => Self::Spaced,
        }
    }

    /// Returns the length of the shortest query that is found inside a word, in characters.
    fn min_substring_chars(self) -> usize {
        match self {
            Self::HanKana | Self::Hangul => 2,
            Self::Unspaced | Self::Spaced => 3,
        }
    }

    fn has_spaces(self) -> bool {
        matches!(self, Self::Hangul | Self::Spaced)
    }
}

/// Consecutive characters of one script.
struct ScriptRun<'a> {
    text: &'a str,
    script: Script,
    /// The byte offset at which each character starts, then the length of the text. A character includes its marks.
    bounds: Vec<usize>,
    /// Whether the run is a whole word for every tokenizer: see [`trimmed_words`].
    is_delimited: bool,
}

impl<'a> ScriptRun<'a> {
    fn new(text: &'a str, script: Script, is_delimited: bool) -> Self {
        let starts =
            text.char_indices().filter(|(_, character)| !is_mark(*character)).map(|(offset, _)| offset);
        let bounds = starts.chain([text.len()]).collect();
        Self { text, script, bounds, is_delimited }
    }

    /// Returns the length in characters.
    fn len(&self) -> usize {
        self.bounds.len() - 1
    }

    /// Returns the part of the text from character `from` up to, but without, character `to`.
    fn slice(&self, from: usize, to: usize) -> &'a str {
        &self.text[self.bounds[from]..self.bounds[to]]
    }

    fn sample(&self, kind: QueryKind, random: &mut StdRng) -> Option<SampledQuery> {
        let (min, len) = (self.script.min_substring_chars(), self.len());
        let (from, to) = match (kind, self.script.has_spaces()) {
            (QueryKind::Word | QueryKind::Prefix, true) if !self.is_delimited => return None,
            (QueryKind::Word, true) => (0, len),
            (QueryKind::Prefix, true) if len > 2 => (0, random.random_range(2..len)),
            // In a script without spaces, any part may be a word.
            (QueryKind::Word | QueryKind::Prefix, false) if len >= min => {
                let to = len.min(random.random_range(min..=min + 2));
                if kind == QueryKind::Prefix { (0, to) } else { random_range_within(0, len, to, random) }
            }
            (QueryKind::Substring, _) if len >= min + 2 => {
                let max = (len - 2).min(min + 2);
                random_range_within(1, len - 1, random.random_range(min..=max), random)
            }
            _ => return None,
        };
        Some(SampledQuery { text: self.slice(from, to).to_owned(), is_found_inside_words: to - from >= min })
    }
}

/// Returns a random range of this length between `from` and `to`.
fn random_range_within(from: usize, to: usize, length: usize, random: &mut StdRng) -> (usize, usize) {
    let start = random.random_range(from..=to - length);
    (start, start + length)
}

/// Takes a query from a message's body, if it has a fitting word.
pub fn sample_query(body: &str, kind: QueryKind, random: &mut StdRng) -> Option<SampledQuery> {
    let mut queries: Vec<SampledQuery> =
        script_runs(body).iter().filter_map(|run| run.sample(kind, random)).collect();
    if queries.is_empty() {
        return None;
    }
    Some(queries.swap_remove(random.random_range(0..queries.len())))
}

fn script_runs(body: &str) -> Vec<ScriptRun<'_>> {
    let mut runs = Vec::new();
    for (word, is_separated) in trimmed_words(body) {
        let mut start = 0;
        let mut script = None;
        for (offset, character) in word.char_indices() {
            // Marks and joiners belong to the character before them.
            let current = if is_mark(character) {
                script
            } else {
                character.is_alphanumeric().then(|| Script::from_char(character))
            };
            if current != script {
                // A run that ends inside a word is not delimited.
                runs.extend(script.map(|script| ScriptRun::new(&word[start..offset], script, false)));
                (start, script) = (offset, current);
            }
        }
        let is_delimited = start == 0 && is_separated;
        runs.extend(script.map(|script| ScriptRun::new(&word[start..], script, is_delimited)));
    }
    runs
}

/// Returns the words between white space, without the punctuation around them. The flag says whether every tokenizer
/// separates the word from its punctuation: no punctuation follows the word, or all punctuation before and after the
/// word is sentence punctuation.
fn trimmed_words(body: &str) -> impl Iterator<Item = (&str, bool)> {
    body.split_whitespace().map(|word| {
        let trimmed =
            word.trim_matches(|character: char| !character.is_alphanumeric() && !is_mark(character));
        let is_sentence_mark = |character: char| "?!,;.…()\"“”«»¿¡。，！？、；：।॥؟،؛".contains(character);
        let is_separated = word.strip_suffix(trimmed).is_some()
            || word.split(trimmed).all(|rest| rest.chars().all(is_sentence_mark));
        (trimmed, is_separated)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::normalize::strict_form;
    use rand::SeedableRng;

    /// Sentences in different scripts and with different writing habits.
    const SENTENCES: [&str; 14] = [
        "I am interested in a wide variety of things.",
        "Что такое искусственный интеллект?",
        "তোমার আগ্রহগুলো কি কি?",
        "कम्प्यूटर क्या है और कैसे काम करता है",
        "கணினி எவ்வாறு செயல்படுகிறது?",
        "కంప్యూటర్ ఎలా పనిచేస్తుంది",
        "ନମସ୍କାର, ଆପଣଙ୍କ କମ୍ପ୍ୟୁଟର",
        "מה תחומי העניין שלך?",
        "کامپیوتر چگونه کار می‌کند؟",
        "สวัสดีครับคุณสบายดีไหม",
        "什么是人工智能",
        "コンピュータとは何ですか？",
        "인공지능이란 무엇입니까?",
        "Báwo ni ọmọ ẹgbẹ́ ìròyìn?",
    ];

    #[test]
    fn takes_every_kind_of_query_from_many_scripts() {
        let mut random = StdRng::seed_from_u64(7);
        for sentence in SENTENCES {
            for kind in QueryKind::ALL {
                let query = sample_query(sentence, kind, &mut random)
                    .unwrap_or_else(|| panic!("no {kind:?} query from {sentence}"));
                assert!(
                    strict_form(sentence).contains(&strict_form(&query.text)),
                    "{query:?} is not in {sentence}"
                );
                assert!(
                    kind != QueryKind::Substring || query.is_found_inside_words,
                    "{query:?} is too short"
                );
            }
        }
    }

    #[test]
    fn a_substring_neither_starts_nor_ends_its_word() {
        let mut random = StdRng::seed_from_u64(3);
        for _ in 0..200 {
            let query = sample_query("abcdefg", QueryKind::Substring, &mut random).unwrap();
            assert!(
                query.text.len() >= 3 && !query.text.contains('a') && !query.text.contains('g'),
                "{query:?}"
            );
        }
        assert_eq!(sample_query("abcd", QueryKind::Substring, &mut random), None);
    }

    #[test]
    fn a_query_keeps_each_character_with_its_marks() {
        let mut random = StdRng::seed_from_u64(5);
        let word = "a\u{301}b\u{301}c\u{301}d\u{301}e\u{301}f\u{301}";
        for _ in 0..100 {
            let query = sample_query(word, QueryKind::Substring, &mut random).unwrap();
            assert!(query.text.ends_with('\u{301}') && !query.text.starts_with('\u{301}'), "{query:?}");
        }
    }

    #[test]
    fn takes_no_words_from_compounds() {
        let mut random = StdRng::seed_from_u64(5);
        for compound in ["don't", "a.b", "well-known", "x_y", "http://a/b"] {
            assert_eq!(
                sample_query(compound, QueryKind::Word, &mut random),
                None,
                "a word was taken from {compound}"
            );
        }
        assert_eq!(sample_query("(\"hello\")?", QueryKind::Word, &mut random).unwrap().text, "hello");
    }
}
