//! Where in a text the clauses of a query are, by the same rules by which the index finds them.

use std::collections::HashMap;
use std::ops::Range;

use super::query_parser::{Clause, Phrase, QueryWord};
use super::tokenize::{TokenizedText, is_part_joiner, word_parts};

/// How many occurrences of one clause are looked for in a text.
const MAX_OCCURRENCES: usize = 512;

/// Typing errors are looked for in this many bytes from the start of a text. Finding a message by one does not depend on
/// it, marking it does: for what a person sees of a hit, comparing every word of a long text costs too much.
const MAX_FUZZY_BYTES: usize = 4 << 10;

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
    pub match_kind: MatchKind,
}

/// How a clause matches; better ones are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum MatchKind {
    /// But for a typing error.
    Fuzzy = 1,
    /// Inside a word.
    Substring = 2,
    /// As the start of a word.
    Prefix = 4,
    /// As a whole word or phrase.
    Whole = 8,
}

/// Finds where each clause matches, in the order of the text.
pub(super) fn find_occurrences(words: &TokenizedText, clauses: &[Clause], fuzzy: bool) -> Vec<Occurrence> {
    find_occurrences_within(&mut { MAX_COMPARISONS }, words, clauses, fuzzy)
}

/// Looks for typing errors until `comparisons` are used up.
fn find_occurrences_within(
    comparisons: &mut usize,
    words: &TokenizedText,
    clauses: &[Clause],
    fuzzy: bool,
) -> Vec<Occurrence> {
    let line = JoinedWords::new(words, JoinerHandling::Keep);
    let has_phrase = clauses.iter().any(|clause| matches!(clause, Clause::Phrase(_)));
    let joined_parts = has_phrase.then(|| JoinedWords::new(words, JoinerHandling::ReplaceWithSpace));
    let mut found = Vec::new();
    for (index, clause) in clauses.iter().enumerate() {
        let mut add = |line: &JoinedWords<'_>, chars: Range<usize>, quality| {
            found.push(Occurrence { clause: index, bytes: line.source_range(&chars), match_kind: quality });
        };
        match (clause, &joined_parts) {
            (Clause::Word(word), _) => {
                let exact = line.find_word(word, |chars, quality| add(&line, chars, quality));
                if fuzzy && !exact {
                    line.find_fuzzy(word, comparisons, |chars| add(&line, chars, MatchKind::Fuzzy));
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
enum JoinerHandling {
    Keep,
    /// Spaces stand in its place: a phrase finds the parts of a word as it finds words.
    ReplaceWithSpace,
}

impl JoinerHandling {
    fn apply(self, c: char) -> char {
        if self == Self::ReplaceWithSpace && is_part_joiner(c) { ' ' } else { c }
    }
}

/// A text's words one after another with a space between each two: the place of a character is its position in the
/// index.
struct JoinedWords<'a> {
    words: &'a TokenizedText,
    text: String,
    /// Of each character, its first byte in `text`; then the length of `text`.
    offsets: Vec<usize>,
    /// Where words and their parts are, and at which places they start and end.
    spans: Vec<Range<usize>>,
    is_start: Vec<bool>,
    is_end: Vec<bool>,
}

impl<'a> JoinedWords<'a> {
    fn new(words: &'a TokenizedText, joints: JoinerHandling) -> Self {
        let (text, at, spans) = (String::new(), Vec::new(), Vec::new());
        let mut line = Self { words, text, offsets: at, spans, is_start: Vec::new(), is_end: Vec::new() };
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
            let inner = word_parts(&chars).filter(|part| *part != whole);
            line.spans.extend(inner.map(|part| word.position + part.start..word.position + part.end));
        }
        line.offsets.push(line.text.len());
        (line.is_start, line.is_end) = (vec![false; line.offsets.len()], vec![false; line.offsets.len()]);
        for span in &line.spans {
            line.is_start[span.start] = true;
            line.is_end[span.end] = true;
        }
        line
    }

    fn push(&mut self, c: char) {
        self.offsets.push(self.text.len());
        self.text.push(c);
    }

    /// The bytes of the original text.
    fn source_range(&self, places: &Range<usize>) -> Range<usize> {
        let folded = |place: usize| {
            let index = self.words.words.partition_point(|word| word.position <= place).saturating_sub(1);
            self.words.words.get(index).map_or(0, |word| word.chars.start + place - word.position)
        };
        self.words.normalized.source_range(&(folded(places.start)..folded(places.end - 1) + 1))
    }

    /// Finds a word as it is typed; `false` where it is nowhere.
    fn find_word(&self, word: &QueryWord, mut add: impl FnMut(Range<usize>, MatchKind)) -> bool {
        let text: String = word.chars().iter().collect();
        let inside = !word.substring_terms().is_empty();
        let mut exact = 0;
        for (byte, _) in self.text.match_indices(&text) {
            let place = self.position_at_byte(byte);
            let places = place..place + word.chars().len();
            let quality = match (self.is_start[places.start], self.is_end[places.end]) {
                (true, true) => MatchKind::Whole,
                (true, false) => MatchKind::Prefix,
                (false, _) if inside => MatchKind::Substring,
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
    fn find_fuzzy(&self, word: &QueryWord, comparisons: &mut usize, mut add: impl FnMut(Range<usize>)) {
        let typos = usize::from(word.max_typos());
        if typos == 0 {
            return;
        }
        let mut verdicts: HashMap<&str, bool> = HashMap::new();
        let mut found = 0;
        for span in self.spans.iter().take_while(|span| self.offsets[span.start] < MAX_FUZZY_BYTES) {
            if span.len().abs_diff(word.chars().len()) > typos {
                continue;
            }
            let text = &self.text[self.offsets[span.start]..self.offsets[span.end]];
            let near = match verdicts.get(text) {
                Some(near) => *near,
                None if *comparisons == 0 => return,
                None => {
                    *comparisons -= 1;
                    let chars: Vec<char> = text.chars().collect();
                    let near = edit_distance(word.chars(), &chars) <= typos;
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

    fn find_phrase(&self, phrase: &Phrase, mut add: impl FnMut(Range<usize>, MatchKind)) {
        let text: String = phrase.text().chars().map(|c| JoinerHandling::ReplaceWithSpace.apply(c)).collect();
        let length = text.chars().count();
        let (open_start, open_end) = phrase.open_ends();
        let mut from = 0;
        for _ in 0..MAX_OCCURRENCES {
            let Some(byte) = self.text.get(from..).and_then(|rest| rest.find(&text)) else { break };
            let place = self.position_at_byte(from + byte);
            let places = place..place + length;
            if (open_start || self.is_start[places.start]) && (open_end || self.is_end[places.end]) {
                add(places, MatchKind::Whole);
            }
            from = self.offsets[place + 1];
        }
    }

    fn position_at_byte(&self, byte: usize) -> usize {
        self.offsets.partition_point(|at| *at < byte)
    }
}

/// How many letters were left out, added, mistaken or swapped with their neighbour to get from one word to the other.
fn edit_distance(a: &[char], b: &[char]) -> usize {
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
    use super::super::query_parser::parse_query;
    use super::*;

    fn find(text: &str, query: &str) -> Vec<(String, MatchKind)> {
        let found = find_occurrences(&TokenizedText::new(text), &parse_query(query), true);
        found.into_iter().map(|found| (text[found.bytes].to_owned(), found.match_kind)).collect()
    }

    #[test]
    fn finds_a_word_by_every_match_kind() {
        for (text, query, expected) in [
            (
                "Formal forms reform FORM",
                "form",
                vec![
                    ("Form", MatchKind::Prefix),
                    ("form", MatchKind::Prefix),
                    ("form", MatchKind::Substring),
                    ("FORM", MatchKind::Whole),
                ],
            ),
            ("of off soft", "of", vec![("of", MatchKind::Whole), ("of", MatchKind::Prefix)]),
            ("the serach box", "search", vec![("serach", MatchKind::Fuzzy)]),
            ("l'homme", "homme", vec![("homme", MatchKind::Whole)]),
        ] {
            let expected: Vec<_> =
                expected.into_iter().map(|(text, quality)| (text.to_owned(), quality)).collect();
            assert_eq!(find(text, query), expected, "{text}");
        }
    }

    #[test]
    fn finds_a_phrase_word_for_word() {
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

    fn count_comparisons(text: &str, query: &str) -> (usize, usize) {
        let (words, clauses) = (TokenizedText::new(text), parse_query(query));
        let mut left = MAX_COMPARISONS;
        let found = find_occurrences_within(&mut left, &words, &clauses, true).len();
        (MAX_COMPARISONS - left, found)
    }

    #[test]
    fn a_word_that_is_repeated_is_compared_once_with_each_word_of_the_query() {
        let (comparisons, found) = count_comparisons(&"abcdefghij ".repeat(7_000), &variants());
        assert_eq!(comparisons, 32);
        assert!((32..=32 * MAX_OCCURRENCES).contains(&found), "{found}");
    }

    #[test]
    fn comparisons_are_bounded_in_a_long_text_of_different_words() {
        let text: Vec<String> = (0..7_000).map(|number| format!("q{number:08}")).collect();
        let (comparisons, _) = count_comparisons(&text.join(" "), &variants());
        assert_eq!(comparisons, MAX_COMPARISONS);
        let (comparisons, _) = count_comparisons(&text.join(" "), "abcdefghij");
        assert_eq!(comparisons, MAX_FUZZY_BYTES.div_ceil(10), "one word in ten bytes, up to the reach");
    }

    #[test]
    fn edit_distance_counts_swapped_neighbours_once() {
        let count =
            |a: &str, b: &str| edit_distance(&a.chars().collect::<Vec<_>>(), &b.chars().collect::<Vec<_>>());
        assert_eq!(count("search", "serach"), 1);
        assert_eq!(count("search", "searh"), 1);
        assert_eq!(count("search", "research"), 2);
        assert_eq!(count("", "abc"), 3);
    }
}
