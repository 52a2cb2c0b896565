//! Words, starts of words and insides of words that a search must find, in every script.

use rand::RngExt;
use rand::rngs::StdRng;

use super::fold::is_mark;

/// How much of a word a query is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// All of it.
    Word,
    /// Its start.
    Start,
    /// A part that neither begins nor ends it.
    Inside,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Word, Self::Start, Self::Inside];
}

/// A query taken from a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pick {
    /// The query.
    pub text: String,
    /// Whether it is long enough to be found inside of words.
    pub found_inside: bool,
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
    fn of(letter: char) -> Self {
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
    fn least_inside(self) -> usize {
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
struct Run<'a> {
    text: &'a str,
    script: Script,
    /// Where a character with its marks begins, and the end.
    bounds: Vec<usize>,
    /// Whether it stands between spaces, so that everybody agrees it is a word.
    stands_alone: bool,
}

impl<'a> Run<'a> {
    fn new(text: &'a str, script: Script, stands_alone: bool) -> Self {
        let starts = text.char_indices().filter(|(_, letter)| !is_mark(*letter)).map(|(at, _)| at);
        let bounds = starts.chain([text.len()]).collect();
        Self { text, script, bounds, stands_alone }
    }

    fn len(&self) -> usize {
        self.bounds.len() - 1
    }

    fn slice(&self, from: usize, to: usize) -> &'a str {
        &self.text[self.bounds[from]..self.bounds[to]]
    }

    fn pick(&self, kind: Kind, random: &mut StdRng) -> Option<Pick> {
        let (least, len) = (self.script.least_inside(), self.len());
        let (from, to) = match (kind, self.script.has_spaces()) {
            (Kind::Word | Kind::Start, true) if !self.stands_alone => return None,
            (Kind::Word, true) => (0, len),
            (Kind::Start, true) if len > 2 => (0, random.random_range(2..len)),
            // Where words are not told apart, any stretch may be one.
            (Kind::Word | Kind::Start, false) if len >= least => {
                let to = len.min(random.random_range(least..=least + 2));
                if kind == Kind::Start { (0, to) } else { within(0, len, to, random) }
            }
            (Kind::Inside, _) if len >= least + 2 => {
                let longest = (len - 2).min(least + 2);
                within(1, len - 1, random.random_range(least..=longest), random)
            }
            _ => return None,
        };
        Some(Pick { text: self.slice(from, to).to_owned(), found_inside: to - from >= least })
    }
}

/// A stretch of this length, somewhere between `from` and `to`.
fn within(from: usize, to: usize, length: usize, random: &mut StdRng) -> (usize, usize) {
    let start = random.random_range(from..=to - length);
    (start, start + length)
}

/// Picks a query from a message's body, if it has a word to take it from.
pub fn pick(body: &str, kind: Kind, random: &mut StdRng) -> Option<Pick> {
    let mut picks: Vec<Pick> = runs(body).iter().filter_map(|run| run.pick(kind, random)).collect();
    if picks.is_empty() {
        return None;
    }
    Some(picks.swap_remove(random.random_range(0..picks.len())))
}

fn runs(body: &str) -> Vec<Run<'_>> {
    let mut runs = Vec::new();
    for (word, stands_alone) in between_spaces(body) {
        let mut start = 0;
        let mut script = None;
        for (at, letter) in word.char_indices() {
            // Marks, digits' neighbours and joiners belong to the letter before them.
            let here =
                if is_mark(letter) { script } else { letter.is_alphanumeric().then(|| Script::of(letter)) };
            if here != script {
                runs.extend(script.map(|script| Run::new(&word[start..at], script, false)));
                (start, script) = (at, here);
            }
        }
        let whole = start == 0 && stands_alone;
        runs.extend(script.map(|script| Run::new(&word[start..], script, whole)));
    }
    runs
}

/// What stands between white space, without the punctuation around it, and whether only sentence punctuation was there.
fn between_spaces(body: &str) -> impl Iterator<Item = (&str, bool)> {
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
    use crate::verify::fold::strict;
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
            for kind in Kind::ALL {
                let pick =
                    pick(sentence, kind, &mut random).unwrap_or_else(|| panic!("{kind:?} of {sentence}"));
                assert!(strict(sentence).contains(&strict(&pick.text)), "{pick:?} of {sentence}");
                assert!(kind != Kind::Inside || pick.found_inside, "{pick:?}");
            }
        }
    }

    #[test]
    fn an_inside_neither_begins_nor_ends_its_word() {
        let mut random = StdRng::seed_from_u64(3);
        for _ in 0..200 {
            let pick = pick("abcdefg", Kind::Inside, &mut random).unwrap();
            assert!(pick.text.len() >= 3 && !pick.text.contains('a') && !pick.text.contains('g'), "{pick:?}");
        }
        assert_eq!(pick("abcd", Kind::Inside, &mut random), None);
    }

    #[test]
    fn a_query_never_parts_a_letter_from_its_marks() {
        let mut random = StdRng::seed_from_u64(5);
        let word = "a\u{301}b\u{301}c\u{301}d\u{301}e\u{301}f\u{301}";
        for _ in 0..100 {
            let pick = pick(word, Kind::Inside, &mut random).unwrap();
            assert!(pick.text.ends_with('\u{301}') && !pick.text.starts_with('\u{301}'), "{pick:?}");
        }
    }

    #[test]
    fn parts_of_a_compound_are_not_taken_for_words() {
        let mut random = StdRng::seed_from_u64(5);
        for compound in ["don't", "a.b", "well-known", "x_y", "http://a/b"] {
            assert_eq!(pick(compound, Kind::Word, &mut random), None, "{compound}");
        }
        assert_eq!(pick("(\"hello\")?", Kind::Word, &mut random).unwrap().text, "hello");
    }
}
