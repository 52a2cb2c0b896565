//! Where in a text the clauses of a query are, by the same rules by which the index finds them.

use std::collections::HashMap;
use std::ops::Range;

use super::clauses::{Clause, Phrase, QueryWord};
use super::words::{Words, joins, parts};

/// How many occurrences of one clause are looked for in a text.
const MAX_OCCURRENCES: usize = 512;

/// Typing errors are looked for in this many bytes from the start of a text. Finding a message by one does not depend on
/// it, marking it does: for what a person sees of a hit, comparing every word of a long text costs too much.
const TYPO_BYTES: usize = 4 << 10;

/// How many times a word of a text is compared with a word of the query to find typing errors; all clauses share them.
const MAX_COMPARISONS: usize = 4_096;

/// A place where a clause matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Occurrence {
    /// Which clause.
    pub clause: usize,
    /// The bytes of the text that match, in whole grapheme clusters.
    pub bytes: Range<usize>,
    /// How it matches.
    pub quality: Quality,
}

/// How a clause matches; better ones are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Quality {
    /// But for a typing error.
    Typo = 1,
    /// Inside a word.
    Inside = 2,
    /// As the start of a word.
    Start = 4,
    /// As a whole word or phrase.
    Whole = 8,
}

/// Finds where each clause matches, in the order of the text.
pub(super) fn occurrences(words: &Words, clauses: &[Clause], fuzzy: bool) -> Vec<Occurrence> {
    occurrences_within(&mut { MAX_COMPARISONS }, words, clauses, fuzzy)
}

/// Looks for typing errors until `comparisons` are used up.
fn occurrences_within(
    comparisons: &mut usize,
    words: &Words,
    clauses: &[Clause],
    fuzzy: bool,
) -> Vec<Occurrence> {
    let line = Line::new(words, Joints::Kept);
    let has_phrase = clauses.iter().any(|clause| matches!(clause, Clause::Phrase(_)));
    let open_line = has_phrase.then(|| Line::new(words, Joints::Opened));
    let mut found = Vec::new();
    for (index, clause) in clauses.iter().enumerate() {
        let mut add = |line: &Line<'_>, chars: Range<usize>, quality| {
            found.push(Occurrence { clause: index, bytes: line.source(&chars), quality });
        };
        match (clause, &open_line) {
            (Clause::Word(word), _) => {
                let exact = line.find_word(word, |chars, quality| add(&line, chars, quality));
                if fuzzy && !exact {
                    line.find_typos(word, comparisons, |chars| add(&line, chars, Quality::Typo));
                }
            }
            (Clause::Phrase(phrase), Some(line)) => {
                line.find_phrase(phrase, |chars, quality| add(line, chars, quality));
            }
            (Clause::Phrase(_), None) => {}
        }
    }
    found.sort_by_key(|found| (found.bytes.start, found.bytes.end));
    found
}

/// What becomes of the punctuation that joins the parts of a word.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Joints {
    Kept,
    /// Spaces stand in its place: a phrase finds the parts of a word as it finds words.
    Opened,
}

impl Joints {
    fn apply(self, c: char) -> char {
        if self == Self::Opened && joins(c) { ' ' } else { c }
    }
}

/// A text's words one after another with a space between each two: the place of a character is its position in the
/// index.
struct Line<'a> {
    words: &'a Words,
    text: String,
    /// Of each character, its first byte in `text`; then the length of `text`.
    at: Vec<usize>,
    /// Where words and their parts are, and at which places they start and end.
    spans: Vec<Range<usize>>,
    starts: Vec<bool>,
    ends: Vec<bool>,
}

impl<'a> Line<'a> {
    fn new(words: &'a Words, joints: Joints) -> Self {
        let (text, at, spans) = (String::new(), Vec::new(), Vec::new());
        let mut line = Self { words, text, at, spans, starts: Vec::new(), ends: Vec::new() };
        for word in &words.words {
            if !line.text.is_empty() {
                line.push(' ');
            }
            let chars: Vec<char> = words.text(word).chars().collect();
            for c in &chars {
                line.push(joints.apply(*c));
            }
            let whole = 0..chars.len();
            line.spans.push(word.position..word.position + whole.end);
            let inner = parts(&chars).filter(|part| *part != whole);
            line.spans.extend(inner.map(|part| word.position + part.start..word.position + part.end));
        }
        line.at.push(line.text.len());
        (line.starts, line.ends) = (vec![false; line.at.len()], vec![false; line.at.len()]);
        for span in &line.spans {
            line.starts[span.start] = true;
            line.ends[span.end] = true;
        }
        line
    }

    fn push(&mut self, c: char) {
        self.at.push(self.text.len());
        self.text.push(c);
    }

    /// The bytes of the original text.
    fn source(&self, places: &Range<usize>) -> Range<usize> {
        let folded = |place: usize| {
            let index = self.words.words.partition_point(|word| word.position <= place).saturating_sub(1);
            self.words.words.get(index).map_or(0, |word| word.chars.start + place - word.position)
        };
        self.words.folded.source(&(folded(places.start)..folded(places.end - 1) + 1))
    }

    /// Finds a word as it is typed; `false` where it is nowhere.
    fn find_word(&self, word: &QueryWord, mut add: impl FnMut(Range<usize>, Quality)) -> bool {
        let text: String = word.chars().iter().collect();
        let inside = !word.inside().is_empty();
        let mut exact = 0;
        for (byte, _) in self.text.match_indices(&text) {
            let place = self.place(byte);
            let places = place..place + word.chars().len();
            let quality = match (self.starts[places.start], self.ends[places.end]) {
                (true, true) => Quality::Whole,
                (true, false) => Quality::Start,
                (false, _) if inside => Quality::Inside,
                (false, _) => continue,
            };
            add(places, quality);
            exact += 1;
            if exact == MAX_OCCURRENCES {
                break;
            }
        }
        exact > 0
    }

    /// Finds what is a word of the query but for typing errors. A word that comes again is not compared again.
    fn find_typos(&self, word: &QueryWord, comparisons: &mut usize, mut add: impl FnMut(Range<usize>)) {
        let typos = usize::from(word.typos());
        if typos == 0 {
            return;
        }
        let mut verdicts: HashMap<&str, bool> = HashMap::new();
        let mut found = 0;
        for span in self.spans.iter().take_while(|span| self.at[span.start] < TYPO_BYTES) {
            if span.len().abs_diff(word.chars().len()) > typos {
                continue;
            }
            let text = &self.text[self.at[span.start]..self.at[span.end]];
            let near = match verdicts.get(text) {
                Some(near) => *near,
                None if *comparisons == 0 => return,
                None => {
                    *comparisons -= 1;
                    let chars: Vec<char> = text.chars().collect();
                    let near = typing_errors(word.chars(), &chars) <= typos;
                    verdicts.insert(text, near);
                    near
                }
            };
            if near {
                add(span.clone());
                found += 1;
                if found == MAX_OCCURRENCES {
                    return;
                }
            }
        }
    }

    fn find_phrase(&self, phrase: &Phrase, mut add: impl FnMut(Range<usize>, Quality)) {
        let text: String = phrase.text().chars().map(|c| Joints::Opened.apply(c)).collect();
        let length = text.chars().count();
        let (open_start, open_end) = phrase.open_ends();
        let mut from = 0;
        for _ in 0..MAX_OCCURRENCES {
            let Some(byte) = self.text.get(from..).and_then(|rest| rest.find(&text)) else { break };
            let place = self.place(from + byte);
            let places = place..place + length;
            if (open_start || self.starts[places.start]) && (open_end || self.ends[places.end]) {
                add(places, Quality::Whole);
            }
            from = self.at[place + 1];
        }
    }

    fn place(&self, byte: usize) -> usize {
        self.at.partition_point(|at| *at < byte)
    }
}

/// How many letters were left out, added, mistaken or swapped with their neighbour to get from one word to the other.
fn typing_errors(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let mistaken = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = mistaken.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::super::clauses::clauses;
    use super::*;

    fn find(text: &str, query: &str) -> Vec<(String, Quality)> {
        let found = occurrences(&Words::new(text), &clauses(query), true);
        found.into_iter().map(|found| (text[found.bytes].to_owned(), found.quality)).collect()
    }

    #[test]
    fn a_word_is_found_in_each_way_it_may_match() {
        for (text, query, expected) in [
            (
                "Formal forms reform FORM",
                "form",
                vec![
                    ("Form", Quality::Start),
                    ("form", Quality::Start),
                    ("form", Quality::Inside),
                    ("FORM", Quality::Whole),
                ],
            ),
            ("of off soft", "of", vec![("of", Quality::Whole), ("of", Quality::Start)]),
            ("the serach box", "search", vec![("serach", Quality::Typo)]),
            ("l'homme", "homme", vec![("homme", Quality::Whole)]),
        ] {
            let expected: Vec<_> =
                expected.into_iter().map(|(text, quality)| (text.to_owned(), quality)).collect();
            assert_eq!(find(text, query), expected, "{text}");
        }
    }

    #[test]
    fn a_phrase_is_found_word_for_word() {
        let phrase = |text| find(text, "\"big cat\"").into_iter().map(|(text, _)| text).collect::<Vec<_>>();
        assert_eq!(phrase("a big  CAT, big.cat, big cats, a cat big"), ["big  CAT", "big.cat"]);
        assert_eq!(find("xa a a", "\"a a\"").len(), 1);
        assert_eq!(find("我喜欢吃苹果", "\"欢吃\"").len(), 1);
    }

    /// 32 words, of which each is a typing error away from `abcdefghij`, or two.
    fn variants() -> String {
        let mut variants: Vec<String> = Vec::new();
        for at in 0..10 {
            for letter in ["x", "y", "z", "w"] {
                let mut word = "abcdefghij".to_owned();
                word.replace_range(at..=at, letter);
                variants.push(word);
            }
        }
        variants[..32].join(" ")
    }

    fn compared(text: &str, query: &str) -> (usize, usize) {
        let (words, clauses) = (Words::new(text), clauses(query));
        let mut left = MAX_COMPARISONS;
        let found = occurrences_within(&mut left, &words, &clauses, true).len();
        (MAX_COMPARISONS - left, found)
    }

    #[test]
    fn a_word_that_is_repeated_is_compared_once_with_each_word_of_the_query() {
        let (comparisons, found) = compared(&"abcdefghij ".repeat(7_000), &variants());
        assert_eq!(comparisons, 32);
        assert!((32..=32 * MAX_OCCURRENCES).contains(&found), "{found}");
    }

    #[test]
    fn a_long_text_of_different_words_is_not_compared_as_a_whole() {
        let text: Vec<String> = (0..7_000).map(|number| format!("q{number:08}")).collect();
        let (comparisons, _) = compared(&text.join(" "), &variants());
        assert_eq!(comparisons, MAX_COMPARISONS);
        let (comparisons, _) = compared(&text.join(" "), "abcdefghij");
        assert_eq!(comparisons, TYPO_BYTES.div_ceil(10), "one word in ten bytes, up to the reach");
    }

    #[test]
    fn typing_errors_count_swapped_neighbours_once() {
        let count =
            |a: &str, b: &str| typing_errors(&a.chars().collect::<Vec<_>>(), &b.chars().collect::<Vec<_>>());
        assert_eq!(count("search", "serach"), 1);
        assert_eq!(count("search", "searh"), 1);
        assert_eq!(count("search", "research"), 2);
        assert_eq!(count("", "abc"), 3);
    }
}
