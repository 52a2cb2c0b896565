//! The query matcher: matches and scores a query against the words of one message, by the same rules as the index.
//!
//! The index finds a word by terms at character positions ([`Word::position`](crate::text::tokenize::Word)). The
//! position of a term is the number of characters before the term when the words of the message are joined by single
//! spaces. So a match of terms in the index is a match of characters in the joined words, together with a check of
//! where words and their parts begin and end.

use std::ops::Range;

use memchr::memmem::Finder;

use crate::occurrences::is_similar;
use crate::query_parser::{Clause, Phrase, PhraseWordKind, QueryWord};
use crate::query_plan::{FUZZY_SCORE, PREFIX_SCORE, SUBSTRING_SCORE, WHOLE_SCORE, phrase_score};
use crate::text::tokenize::{TokenizedText, is_part_joiner, word_parts};

/// Returns the words of a text, joined by single spaces.
pub(crate) fn join_words(text: &TokenizedText) -> String {
    let mut joined = String::with_capacity(text.normalized.text.len());
    for word in &text.words {
        if !joined.is_empty() {
            joined.push(' ');
        }
        joined.push_str(text.text(word));
    }
    joined
}

/// A Bloom filter of a text's three-byte sequences: the hash of each sets one of 256 bits. The signature of a text
/// contains the signature of every part of the text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Signature([u64; 4]);

impl Signature {
    /// Returns the signature of joined words.
    pub fn new(words: &str) -> Self {
        let mut signature = Self::default();
        signature.add(words);
        signature
    }

    fn add(&mut self, text: &str) {
        /// A multiplier that spreads the bits of a small number (Fibonacci hashing).
        const SPREAD: u32 = 0x9E37_79B1;
        let mut last_three = 0_u32;
        for (index, byte) in text.bytes().enumerate() {
            last_three = (last_three << 8 | u32::from(byte)) & 0x00FF_FFFF;
            if index >= 2 {
                let hash = last_three.wrapping_mul(SPREAD) >> 24;
                self.0[(hash >> 6) as usize] |= 1 << (hash & 63);
            }
        }
    }

    /// Whether the text of this signature may have all sequences of the other text.
    pub fn contains(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(bits, other_bits)| bits & other_bits == *other_bits)
    }
}

/// The clauses of a query, prepared for many messages.
pub(crate) struct QueryMatcher {
    clauses: Vec<ClauseMatcher>,
    /// The signature of the texts that every matching message contains: the words of phrases, and the words in which no
    /// typing error is tolerated.
    signature: Signature,
}

enum ClauseMatcher {
    Word(WordMatcher),
    Phrase(PhraseMatcher),
}

impl QueryMatcher {
    /// Prepares clauses. `fuzzy` is whether words match despite typing errors.
    pub fn new(clauses: &[Clause], fuzzy: bool) -> Self {
        let mut signature = Signature::default();
        let clauses = clauses
            .iter()
            .map(|clause| match clause {
                Clause::Word(word) => {
                    let matcher = WordMatcher::new(word, fuzzy);
                    if matcher.max_typos == 0 {
                        signature.add(&matcher.text);
                    }
                    ClauseMatcher::Word(matcher)
                }
                Clause::Phrase(phrase) => {
                    let matcher = PhraseMatcher::new(phrase);
                    matcher.words.iter().for_each(|word| signature.add(&word.text));
                    ClauseMatcher::Phrase(matcher)
                }
            })
            .collect();
        Self { clauses, signature }
    }

    /// Whether a message with this signature may match. If false, it certainly does not.
    pub fn may_match(&self, signature: &Signature) -> bool {
        signature.contains(&self.signature)
    }

    /// The score of a message with these joined words; `None` if it does not match every clause.
    pub fn score(&self, words: &str) -> Option<u64> {
        let mut score = 0;
        for clause in &self.clauses {
            score += u64::from(match clause {
                ClauseMatcher::Word(word) => word.score(words)?,
                ClauseMatcher::Phrase(phrase) => phrase.score(words)?,
            });
        }
        Some(score)
    }
}

struct WordMatcher {
    text: String,
    chars: Vec<char>,
    /// The word's set of letters, as bits (see [`letter_bit`]).
    letters: u64,
    finder: Finder<'static>,
    /// Whether the word can match a whole word of a message; false if it is too long to have a whole-word term.
    can_match_whole_words: bool,
    /// Whether the word can match inside a word of a message; false if it is too short.
    can_match_inside_words: bool,
    /// The number of typing errors that are tolerated.
    max_typos: usize,
}

impl WordMatcher {
    fn new(word: &QueryWord, fuzzy: bool) -> Self {
        let chars = word.chars().to_vec();
        let text: String = chars.iter().collect();
        Self {
            letters: chars.iter().fold(0, |letters, c| letters | letter_bit(*c)),
            finder: Finder::new(&text).into_owned(),
            can_match_whole_words: word.whole_word_term().is_some(),
            can_match_inside_words: !word.substring_terms().is_empty(),
            max_typos: if fuzzy { usize::from(word.max_typos()) } else { 0 },
            text,
            chars,
        }
    }

    fn score(&self, words: &str) -> Option<u16> {
        let mut best = None;
        for range in find_all(&self.finder, &self.text, words) {
            if self.can_match_whole_words && is_word_or_part(words, &range) {
                return Some(WHOLE_SCORE);
            }
            if is_prefix(words, &range) {
                best = best.max(Some(PREFIX_SCORE));
            } else if self.can_match_inside_words {
                best = best.max(Some(SUBSTRING_SCORE));
            }
        }
        best.or_else(|| self.matches_with_typos(words).then_some(FUZZY_SCORE))
    }

    fn matches_with_typos(&self, words: &str) -> bool {
        let is_match = |chars: &[char]| is_similar(&self.chars, chars, self.max_typos);
        let mut chars = Vec::new();
        self.max_typos > 0
            && words.split(' ').filter(|text| self.may_be_similar(text)).any(|text| {
                chars.clear();
                chars.extend(text.chars());
                is_match(&chars) || word_parts(&chars).any(|part| is_match(&chars[part]))
            })
    }

    /// Whether `text` or a part of it may equal this word except for typing errors. If false, certainly neither does:
    /// each error takes at most one of this word's letters away. This rules out most words without computing edit
    /// distances.
    fn may_be_similar(&self, text: &str) -> bool {
        let (mut letters, mut length, mut has_parts) = (0, 0_usize, false);
        for c in text.chars() {
            letters |= letter_bit(c);
            length += 1;
            has_parts |= is_part_joiner(c);
        }
        let missing = (self.letters & !letters).count_ones() as usize;
        missing <= self.max_typos && (has_parts || length.abs_diff(self.chars.len()) <= self.max_typos)
    }
}

/// The bit of a letter in a set of letters. Some letters share a bit.
fn letter_bit(c: char) -> u64 {
    1 << (u32::from(c) & 63)
}

/// A phrase, prepared for many messages. It matches where all its words occur at their offsets.
struct PhraseMatcher {
    words: Vec<PhraseWordMatcher>,
    first_word_finder: Finder<'static>,
    score: u16,
}

struct PhraseWordMatcher {
    text: String,
    /// The number of characters from the start of the phrase to this word.
    offset: usize,
    kind: PhraseWordKind,
}

impl PhraseMatcher {
    fn new(phrase: &Phrase) -> Self {
        let words: Vec<_> = phrase
            .words()
            .map(|(offset, chars, kind)| PhraseWordMatcher { text: chars.iter().collect(), offset, kind })
            .collect();
        let first = words.first().map_or("", |word| &word.text);
        Self { first_word_finder: Finder::new(first).into_owned(), score: phrase_score(phrase), words }
    }

    fn score(&self, words: &str) -> Option<u16> {
        let (first, others) = self.words.split_first()?;
        let is_match = find_all(&self.first_word_finder, &first.text, words).any(|range| {
            let start = range.start;
            first.matches_at(words, start)
                && others.iter().all(|word| {
                    let next = words[start..].char_indices().nth(word.offset - first.offset);
                    next.is_some_and(|(offset, _)| word.matches_at(words, start + offset))
                })
        });
        is_match.then_some(self.score)
    }
}

impl PhraseWordMatcher {
    fn matches_at(&self, words: &str, start: usize) -> bool {
        let range = start..start + self.text.len();
        words[start..].starts_with(&self.text)
            && match self.kind {
                PhraseWordKind::Whole => is_word_or_part(words, &range),
                PhraseWordKind::Prefix => is_prefix(words, &range),
                PhraseWordKind::Substring => true,
            }
    }
}

/// The ranges of bytes at which a text occurs in the words. They may overlap.
fn find_all<'a>(finder: &'a Finder<'_>, text: &'a str, words: &'a str) -> impl Iterator<Item = Range<usize>> {
    let mut from = 0;
    let step = text.chars().next().map_or(1, char::len_utf8);
    std::iter::from_fn(move || {
        let start = from + finder.find(words.as_bytes().get(from..)?)?;
        from = start + step;
        Some(start..start + text.len())
    })
}

/// Whether a range of the joined words is a whole word, or a part of a word that is joined by punctuation.
fn is_word_or_part(words: &str, range: &Range<usize>) -> bool {
    let (before, after) = neighbours(words, range);
    let is_space = |c: Option<char>| c.is_none_or(|c| c == ' ');
    if is_space(before) && is_space(after) {
        return true;
    }
    // `is_part_joiner` is also true for a space, so this covers a part at the start or end of its word.
    before.is_none_or(is_part_joiner)
        && after.is_none_or(is_part_joiner)
        && !words[range.clone()].contains(is_part_joiner)
}

/// Whether a range of the joined words starts where a word starts, or a part of one.
fn is_prefix(words: &str, range: &Range<usize>) -> bool {
    let (before, _) = neighbours(words, range);
    let starts_with_joiner = words[range.start..].starts_with(is_part_joiner);
    before.is_none_or(|c| c == ' ' || (is_part_joiner(c) && !starts_with_joiner))
}

/// The characters before and after a range.
fn neighbours(words: &str, range: &Range<usize>) -> (Option<char>, Option<char>) {
    (words[..range.start].chars().next_back(), words[range.end..].chars().next())
}
