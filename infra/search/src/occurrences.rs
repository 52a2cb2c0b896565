//! Occurrences of a query's clauses in a text, by the same rules as in the index.

use std::collections::HashMap;
use std::ops::Range;

use crate::query_parser::{Clause, MAX_FUZZY_CHARS, MAX_QUERY_WORDS, Phrase, PhraseWordKind, QueryWord};
use crate::text::tokenize::{TokenizedText, word_parts};

/// The maximum number of occurrences of one clause.
pub(crate) const MAX_OCCURRENCES: usize = 512;

/// Fuzzy occurrences are found only if they start within this many bytes from the start of a text's joined words.
/// Comparing every word of a long text is too expensive for a snippet. Whether a message matches does not depend on
/// this.
const FUZZY_SEARCH_BYTES: usize = 4 << 10;

/// The maximum number of comparisons of a word of the text with a word of the query, for all clauses together.
const MAX_COMPARISONS: usize = 4_096;

/// The maximum length of a word that is compared for typing errors, in characters: that of a query's word, plus two
/// letters that typing errors may add.
const MAX_SIMILAR_CHARS: usize = MAX_FUZZY_CHARS + 2;

/// A match of a clause in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Occurrence {
    /// The index of the clause.
    pub clause: usize,
    /// The matching bytes of the original text, in whole grapheme clusters.
    pub bytes: Range<usize>,
    /// How it matches.
    pub match_kind: MatchKind,
}

/// How a clause matches. Better kinds are greater. The value of a kind is its score in a snippet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum MatchKind {
    /// A whole word with typing errors.
    Fuzzy = 1,
    /// A part of a word.
    Substring = 2,
    /// The start of a word.
    Prefix = 4,
    /// A whole word or phrase.
    Whole = 8,
}

/// The score of a snippet: the sum of the scores of each clause's best occurrence in it. Takes the clause and the match
/// kind of each occurrence that the snippet shows.
pub(crate) fn score_visible(occurrences: impl Iterator<Item = (usize, MatchKind)>) -> u32 {
    let mut scores = [0_u8; MAX_QUERY_WORDS];
    for (clause, kind) in occurrences.take(MAX_SCORED_OCCURRENCES) {
        if let Some(score) = scores.get_mut(clause) {
            *score = (*score).max(kind as u8);
        }
    }
    scores.iter().map(|score| u32::from(*score)).sum()
}

/// The maximum number of occurrences that count in the score of a snippet.
const MAX_SCORED_OCCURRENCES: usize = 64;

/// Finds the occurrences of all clauses, in text order.
pub(crate) fn find_occurrences(text: &TokenizedText, clauses: &[Clause], fuzzy: bool) -> Vec<Occurrence> {
    find_occurrences_within(&mut { MAX_COMPARISONS }, text, clauses, fuzzy)
}

/// Like [`find_occurrences`]. `comparisons` is the number of comparisons that are left for fuzzy matches.
fn find_occurrences_within(
    comparisons: &mut usize,
    text: &TokenizedText,
    clauses: &[Clause],
    fuzzy: bool,
) -> Vec<Occurrence> {
    let joined_words = JoinedWords::new(text);
    let mut found = Vec::new();
    for (index, clause) in clauses.iter().enumerate() {
        let mut add = |positions: Range<usize>, match_kind| {
            found.push(Occurrence {
                clause: index,
                bytes: joined_words.source_range(&positions),
                match_kind,
            });
        };
        match clause {
            Clause::Word(word) => {
                let is_found = joined_words.find_word(word, &mut add);
                if fuzzy && !is_found {
                    joined_words.find_fuzzy(word, comparisons, |positions| add(positions, MatchKind::Fuzzy));
                }
            }
            Clause::Phrase(phrase) => {
                joined_words.find_phrase(phrase, |positions| add(positions, MatchKind::Whole));
            }
        }
    }
    found.sort_by_key(|occurrence| (occurrence.bytes.start, occurrence.bytes.end));
    found
}

/// The words of a text, joined by single spaces. The number of characters before a character of `text` is this
/// character's position in the search index.
struct JoinedWords<'a> {
    tokenized: &'a TokenizedText,
    text: String,
    /// The byte offset in `text` of each position; the last entry is the length of `text`.
    offsets: Vec<usize>,
    /// The positions of words and of their parts, in the order of their starts.
    spans: Vec<Range<usize>>,
    /// Whether a span starts at each position.
    is_start: Vec<bool>,
}

impl<'a> JoinedWords<'a> {
    fn new(tokenized: &'a TokenizedText) -> Self {
        let mut joined = Self {
            tokenized,
            text: String::new(),
            offsets: Vec::new(),
            spans: Vec::new(),
            is_start: Vec::new(),
        };
        for word in &tokenized.words {
            if !joined.text.is_empty() {
                joined.push(' ');
            }
            let chars: Vec<char> = tokenized.text(word).chars().collect();
            for c in &chars {
                joined.push(*c);
            }
            let whole = 0..chars.len();
            joined.spans.push(word.position..word.position + whole.end);
            let parts = word_parts(&chars).filter(|part| *part != whole);
            joined.spans.extend(parts.map(|part| word.position + part.start..word.position + part.end));
        }
        joined.offsets.push(joined.text.len());
        joined.is_start = vec![false; joined.offsets.len()];
        for span in &joined.spans {
            joined.is_start[span.start] = true;
        }
        joined
    }

    fn push(&mut self, c: char) {
        self.offsets.push(self.text.len());
        self.text.push(c);
    }

    /// The bytes of the original text for a range of positions.
    fn source_range(&self, positions: &Range<usize>) -> Range<usize> {
        let words = &self.tokenized.words;
        let normalized_index = |position: usize| {
            let index = words.partition_point(|word| word.position <= position).saturating_sub(1);
            words.get(index).map_or(0, |word| word.chars.start + position - word.position)
        };
        let (first, last) = (normalized_index(positions.start), normalized_index(positions.end - 1));
        self.tokenized.normalized.source_range(&(first..last + 1))
    }

    /// Finds the occurrences of a word, except those with typing errors. Returns whether there are any.
    fn find_word(&self, word: &QueryWord, mut add: impl FnMut(Range<usize>, MatchKind)) -> bool {
        let text: String = word.chars().iter().collect();
        let can_match_whole_words = word.whole_word_term().is_some();
        let can_match_inside_words = !word.substring_terms().is_empty();
        let mut found = 0;
        for (byte, _) in self.text.match_indices(&text) {
            let start = self.position_at_byte(byte);
            let positions = start..start + word.chars().len();
            let match_kind = if can_match_whole_words && self.is_span(&positions) {
                MatchKind::Whole
            } else if self.is_start[start] {
                MatchKind::Prefix
            } else if can_match_inside_words {
                MatchKind::Substring
            } else {
                continue;
            };
            add(positions, match_kind);
            found += 1;
            if found == MAX_OCCURRENCES {
                break;
            }
        }
        found > 0
    }

    /// Finds words that equal a word of the query except for typing errors. Compares each distinct word at most
    /// once.
    fn find_fuzzy(&self, word: &QueryWord, comparisons: &mut usize, mut add: impl FnMut(Range<usize>)) {
        let max_typos = usize::from(word.max_typos());
        if max_typos == 0 {
            return;
        }
        let mut compared: HashMap<&str, bool> = HashMap::new();
        let mut found = 0;
        for span in self.spans.iter().take_while(|span| self.offsets[span.start] < FUZZY_SEARCH_BYTES) {
            if span.len().abs_diff(word.chars().len()) > max_typos {
                continue;
            }
            let text = &self.text[self.offsets[span.start]..self.offsets[span.end]];
            let is_match = match compared.get(text) {
                Some(is_match) => *is_match,
                None if *comparisons == 0 => return,
                None => {
                    *comparisons -= 1;
                    let chars: Vec<char> = text.chars().collect();
                    let is_match = is_similar(word.chars(), &chars, max_typos);
                    compared.insert(text, is_match);
                    is_match
                }
            };
            if is_match {
                add(span.clone());
                found += 1;
                if found == MAX_OCCURRENCES {
                    return;
                }
            }
        }
    }

    fn find_phrase(&self, phrase: &Phrase, mut add: impl FnMut(Range<usize>)) {
        let words: Vec<PhraseWord> = phrase.words().map(PhraseWord::new).collect();
        let (Some(first), Some(last)) = (words.first(), words.last()) else { return };
        let length = last.offset + last.length;
        let (mut from, mut found) = (0, 0);
        while found < MAX_OCCURRENCES {
            let Some(byte) = self.text.get(from..).and_then(|rest| rest.find(&first.text)) else { break };
            let start = self.position_at_byte(from + byte);
            if words.iter().all(|word| self.has_phrase_word(word, start)) {
                add(start..start + length);
                found += 1;
            }
            from = self.offsets[start + 1];
        }
    }

    /// Whether a word of a phrase occurs at its place, if the phrase starts at a position.
    fn has_phrase_word(&self, word: &PhraseWord, phrase_start: usize) -> bool {
        let start = phrase_start + word.offset;
        let rest = self.offsets.get(start).and_then(|byte| self.text.get(*byte..));
        rest.is_some_and(|rest| rest.starts_with(&word.text))
            && match word.kind {
                PhraseWordKind::Whole => self.is_span(&(start..start + word.length)),
                PhraseWordKind::Prefix => self.is_start[start],
                PhraseWordKind::Substring => true,
            }
    }

    /// Whether these are the positions of a word, or of a part of a word.
    fn is_span(&self, positions: &Range<usize>) -> bool {
        let first = self.spans.partition_point(|span| span.start < positions.start);
        let spans = self.spans[first..].iter();
        spans.take_while(|span| span.start == positions.start).any(|span| span == positions)
    }

    fn position_at_byte(&self, byte: usize) -> usize {
        self.offsets.partition_point(|offset| *offset < byte)
    }
}

/// A word of a phrase, as far as it is searched.
struct PhraseWord {
    /// The number of characters from the start of the phrase to this word.
    offset: usize,
    text: String,
    /// The number of characters of `text`.
    length: usize,
    kind: PhraseWordKind,
}

impl PhraseWord {
    fn new((offset, chars, kind): (usize, &[char], PhraseWordKind)) -> Self {
        Self { offset, text: chars.iter().collect(), length: chars.len(), kind }
    }
}

/// Whether two words are equal except for at most `max_typos` typing errors: insertions, deletions, substitutions, and
/// swaps of adjacent letters. Words longer than [`MAX_SIMILAR_CHARS`] never are.
///
/// Computes the table of edit distances row by row, without the cells whose distance is certainly greater than
/// `max_typos`.
pub(crate) fn is_similar(a: &[char], b: &[char], max_typos: usize) -> bool {
    if a.len().abs_diff(b.len()) > max_typos || a.len().max(b.len()) > MAX_SIMILAR_CHARS {
        return false;
    }
    let too_many = max_typos + 1;
    // This row and the two before it.
    let mut rows = [[too_many; MAX_SIMILAR_CHARS + 2]; 3];
    for (distance, cell) in rows[0].iter_mut().enumerate().take(max_typos + 1) {
        *cell = distance;
    }
    for i in 1..=a.len() {
        let [row, previous, before_previous] = [i, i + 2, i + 1].map(|row| row % 3);
        let (start, end) = (i.saturating_sub(max_typos).max(1), (i + max_typos).min(b.len()));
        rows[row][start - 1] = if start == 1 { i.min(too_many) } else { too_many };
        let mut least = rows[row][start - 1];
        for j in start..=end {
            let substituted = rows[previous][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut distance = substituted.min(rows[previous][j] + 1).min(rows[row][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                distance = distance.min(rows[before_previous][j - 2] + 1);
            }
            rows[row][j] = distance.min(too_many);
            least = least.min(distance);
        }
        rows[row][end + 1] = too_many;
        // The next row derives from this row, or by a swap from the previous one. A swap adds an error.
        if least > max_typos && rows[previous].iter().all(|distance| *distance >= max_typos) {
            return false;
        }
    }
    rows[a.len() % 3][b.len()] <= max_typos
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query_parser::parse_query;

    fn find(text: &str, query: &str) -> Vec<(String, MatchKind)> {
        let found = find_occurrences(&TokenizedText::new(text), &parse_query(query), true);
        found.into_iter().map(|one| (text[one.bytes].to_owned(), one.match_kind)).collect()
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
            let expected: Vec<_> = expected.into_iter().map(|(text, kind)| (text.to_owned(), kind)).collect();
            assert_eq!(find(text, query), expected, "{text}");
        }
    }

    #[test]
    fn several_parts_of_a_word_are_a_prefix_and_not_whole() {
        let whole = |found: &str| vec![(found.to_owned(), MatchKind::Whole)];
        assert_eq!(find("see a.b.c", "a.b"), [("a.b".to_owned(), MatchKind::Prefix)]);
        assert_eq!(find("see a.b.c", "a.b.c"), whole("a.b.c"));
        assert_eq!(find("see a.b.c", "b"), whole("b"));
        let long = "ab".repeat(100);
        assert_eq!(find(&long, &long), [(long[..128].to_owned(), MatchKind::Prefix)]);
    }

    #[test]
    fn a_long_word_of_a_phrase_is_found_by_its_beginning() {
        let long = "ab".repeat(100);
        let found =
            |text: &str, query: &str| find(text, query).into_iter().map(|(text, _)| text).collect::<Vec<_>>();
        let (text, marked) = (format!("big {long}cd cat"), format!("big {}", &long[..128]));
        assert_eq!(found(&text, &format!("\"big {long}\"")), [marked]);
        let text = format!("big {long} cat");
        assert_eq!(found(&text, &format!("\"{text}\"")), [text]);
    }

    #[test]
    fn finds_a_phrase_word_for_word() {
        let phrase = |text| find(text, "\"big cat\"").into_iter().map(|(text, _)| text).collect::<Vec<_>>();
        assert_eq!(phrase("a big  CAT, big.cat, big cats, a cat big"), ["big  CAT", "big.cat"]);
        assert_eq!(find("xa a a", "\"a a\"").len(), 1);
        assert_eq!(find("我喜欢吃苹果", "\"欢吃\"").len(), 1);
    }

    /// 32 words, each one typing error away from `abcdefghij`.
    fn variants() -> String {
        let mut variants: Vec<String> = Vec::new();
        for index in 0..10 {
            for letter in ["x", "y", "z", "w"] {
                let mut word = "abcdefghij".to_owned();
                word.replace_range(index..=index, letter);
                variants.push(word);
            }
        }
        variants[..32].join(" ")
    }

    /// The number of comparisons that were made, and the number of occurrences.
    fn count_comparisons(text: &str, query: &str) -> (usize, usize) {
        let (text, clauses) = (TokenizedText::new(text), parse_query(query));
        let mut left = MAX_COMPARISONS;
        let found = find_occurrences_within(&mut left, &text, &clauses, true).len();
        (MAX_COMPARISONS - left, found)
    }

    #[test]
    fn compares_a_repeated_word_once_with_each_word_of_the_query() {
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
        assert_eq!(comparisons, FUZZY_SEARCH_BYTES.div_ceil(10), "one word per ten bytes, up to the limit");
    }

    /// The edit distance between two words, by the whole table.
    fn edit_distance(a: &[char], b: &[char]) -> usize {
        let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
        for i in 1..=a.len() {
            let mut row = vec![i; b.len() + 1];
            for j in 1..=b.len() {
                let substituted = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                row[j] = substituted.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    row[j] = row[j].min(rows[i - 2][j - 2] + 1);
                }
            }
            rows.push(row);
        }
        rows[a.len()][b.len()]
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

    proptest::proptest! {
        #[test]
        fn words_are_similar_up_to_an_edit_distance(a in "[abc]{0,8}", b in "[abc]{0,8}", long in "[ab]{64}") {
            let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
            let longer: Vec<char> = long.chars().chain(['a', 'b']).collect();
            for max_typos in [1, 2] {
                proptest::prop_assert_eq!(is_similar(&a, &b, max_typos), edit_distance(&a, &b) <= max_typos);
                proptest::prop_assert_eq!(is_similar(&longer[..64], &longer, max_typos), max_typos == 2);
            }
        }
    }
}
