//! Words, starts of words and insides of words that a search must find, in every script.

use rand::RngExt;
use rand::rngs::StdRng;

use super::normalize::is_mark;

/// How much of a word a query is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchKind {
    /// All of it.
    Word,
    /// Its start.
    Prefix,
    /// A part that neither begins nor ends it.
    Substring,
}

impl MatchKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Word, Self::Prefix, Self::Substring];
}

/// A query taken from a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampledQuery {
    /// The query.
    pub text: String,
    /// Whether it is long enough to be found inside of words.
    pub matches_substrings: bool,
}

/// How a script writes words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Script {
    /// Han and Kana: no spaces, and two characters say a lot.
    HanKana,
    /// Hangul: spaces, and two characters say a lot.
    Hangul,
    /// Thai and its neighbours: no spaces.
    Unspaced,
    /// Everything else: words between spaces.
    Spaced,
}

impl Script {
    fn from_char(letter: char) -> Self {
        match letter {
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

    /// The fewest characters that are found inside of a word.
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

/// A stretch of letters of one script.
struct ScriptRun<'a> {
    text: &'a str,
    script: Script,
    /// Where a character with its marks begins, and the end.
    bounds: Vec<usize>,
    /// Whether it stands between spaces, so that everybody agrees it is a word.
    is_delimited: bool,
}

impl<'a> ScriptRun<'a> {
    fn new(text: &'a str, script: Script, is_delimited: bool) -> Self {
        let starts = text.char_indices().filter(|(_, letter)| !is_mark(*letter)).map(|(at, _)| at);
        let bounds = starts.chain([text.len()]).collect();
        Self { text, script, bounds, is_delimited }
    }

    fn len(&self) -> usize {
        self.bounds.len() - 1
    }

    fn slice(&self, from: usize, to: usize) -> &'a str {
        &self.text[self.bounds[from]..self.bounds[to]]
    }

    fn sample(&self, kind: MatchKind, random: &mut StdRng) -> Option<SampledQuery> {
        let (least, len) = (self.script.min_substring_chars(), self.len());
        let (from, to) = match (kind, self.script.has_spaces()) {
            (MatchKind::Word | MatchKind::Prefix, true) if !self.is_delimited => return None,
            (MatchKind::Word, true) => (0, len),
            (MatchKind::Prefix, true) if len > 2 => (0, random.random_range(2..len)),
            // Where words are not told apart, any stretch may be one.
            (MatchKind::Word | MatchKind::Prefix, false) if len >= least => {
                let to = len.min(random.random_range(least..=least + 2));
                if kind == MatchKind::Prefix { (0, to) } else { random_range_within(0, len, to, random) }
            }
            (MatchKind::Substring, _) if len >= least + 2 => {
                let longest = (len - 2).min(least + 2);
                random_range_within(1, len - 1, random.random_range(least..=longest), random)
            }
            _ => return None,
        };
        Some(SampledQuery { text: self.slice(from, to).to_owned(), matches_substrings: to - from >= least })
    }
}

/// A stretch of this length, somewhere between `from` and `to`.
fn random_range_within(from: usize, to: usize, length: usize, random: &mut StdRng) -> (usize, usize) {
    let start = random.random_range(from..=to - length);
    (start, start + length)
}

/// Picks a query from a message's body, if it has a word to take it from.
pub fn sample_query(body: &str, kind: MatchKind, random: &mut StdRng) -> Option<SampledQuery> {
    let mut picks: Vec<SampledQuery> =
        script_runs(body).iter().filter_map(|run| run.sample(kind, random)).collect();
    if picks.is_empty() {
        return None;
    }
    Some(picks.swap_remove(random.random_range(0..picks.len())))
}

fn script_runs(body: &str) -> Vec<ScriptRun<'_>> {
    let mut runs = Vec::new();
    for (word, stands_alone) in words_with_boundaries(body) {
        let mut start = 0;
        let mut script = None;
        for (at, letter) in word.char_indices() {
            // Marks, digits' neighbours and joiners belong to the letter before them.
            let here = if is_mark(letter) {
                script
            } else {
                letter.is_alphanumeric().then(|| Script::from_char(letter))
            };
            if here != script {
                runs.extend(script.map(|script| ScriptRun::new(&word[start..at], script, false)));
                (start, script) = (at, here);
            }
        }
        let whole = start == 0 && stands_alone;
        runs.extend(script.map(|script| ScriptRun::new(&word[start..], script, whole)));
    }
    runs
}

/// What stands between white space, without the punctuation around it, and whether only sentence punctuation was there.
fn words_with_boundaries(body: &str) -> impl Iterator<Item = (&str, bool)> {
    body.split_whitespace().map(|word| {
        let trimmed = word.trim_matches(|letter: char| !letter.is_alphanumeric() && !is_mark(letter));
        let is_plain = |letter: char| "?!,;.…()\"“”«»¿¡。，！？、；：।॥؟،؛".contains(letter);
        let around = word.strip_suffix(trimmed).is_some()
            || word.split(trimmed).all(|rest| rest.chars().all(is_plain));
        (trimmed, around)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::normalize::strict_form;
    use rand::SeedableRng;

    /// One sentence for each script and writing habit.
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
    fn every_script_has_words_starts_and_insides() {
        let mut random = StdRng::seed_from_u64(7);
        for sentence in SENTENCES {
            for kind in MatchKind::ALL {
                let pick = sample_query(sentence, kind, &mut random)
                    .unwrap_or_else(|| panic!("{kind:?} of {sentence}"));
                assert!(strict_form(sentence).contains(&strict_form(&pick.text)), "{pick:?} of {sentence}");
                assert!(kind != MatchKind::Substring || pick.matches_substrings, "{pick:?}");
            }
        }
    }

    #[test]
    fn an_inside_neither_begins_nor_ends_its_word() {
        let mut random = StdRng::seed_from_u64(3);
        for _ in 0..200 {
            let pick = sample_query("abcdefg", MatchKind::Substring, &mut random).unwrap();
            assert!(pick.text.len() >= 3 && !pick.text.contains('a') && !pick.text.contains('g'), "{pick:?}");
        }
        assert_eq!(sample_query("abcd", MatchKind::Substring, &mut random), None);
    }

    #[test]
    fn a_query_never_parts_a_letter_from_its_marks() {
        let mut random = StdRng::seed_from_u64(5);
        let word = "a\u{301}b\u{301}c\u{301}d\u{301}e\u{301}f\u{301}";
        for _ in 0..100 {
            let pick = sample_query(word, MatchKind::Substring, &mut random).unwrap();
            assert!(pick.text.ends_with('\u{301}') && !pick.text.starts_with('\u{301}'), "{pick:?}");
        }
    }

    #[test]
    fn parts_of_a_compound_are_not_taken_for_words() {
        let mut random = StdRng::seed_from_u64(5);
        for compound in ["don't", "a.b", "well-known", "x_y", "http://a/b"] {
            assert_eq!(sample_query(compound, MatchKind::Word, &mut random), None, "{compound}");
        }
        assert_eq!(sample_query("(\"hello\")?", MatchKind::Word, &mut random).unwrap().text, "hello");
    }
}
