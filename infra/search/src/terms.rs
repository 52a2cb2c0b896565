//! The terms that a word is indexed by, and the terms that find whole words, prefixes and substrings.
//!
//! All terms are in one field, so that a phrase query can mix them. Their positions count characters
//! ([`Word`](crate::text::tokenize::Word)). The first character of a term is its tag:
//!
//! - `w` + word: a whole word, or a part of a word joined by punctuation;
//! - `s` + one or two characters: the prefix of a word or part;
//! - `g` + two characters of Han, Kana, Bopomofo or Hangul, or `g` + three characters with at least one of another
//!   script: an n-gram anywhere in a word.
//!
//! A longer prefix or substring is found as a phrase of terms at fixed distances, without gaps. This is exact and reads
//! only posting lists.

use std::ops::Range;

use tantivy::tokenizer::{Token, TokenStream, Tokenizer};

use crate::text::script::is_cjk;
use crate::text::tokenize::{TokenizedText, word_parts};

/// The length of a word, in characters, up to which it has a whole-word term. Words are rarely longer; a longer run
/// is found by its prefixes and substrings, and a query's word is truncated to this length. Bounds the cost of a
/// search.
pub(crate) const MAX_WORD_CHARS: usize = 128;

pub(crate) const WHOLE_WORD_TAG: char = 'w';
const PREFIX_TAG: char = 's';
const NGRAM_TAG: char = 'g';

/// A term, and its offset in characters from the start of a match.
pub(crate) type PositionedTerm = (usize, String);

/// The term of a whole word; `None` if the word is too long to have one.
pub(crate) fn whole_word_term(word: &[char]) -> Option<String> {
    (word.len() <= MAX_WORD_CHARS).then(|| tagged_term(WHOLE_WORD_TAG, word))
}

/// The terms that find words with this prefix.
pub(crate) fn prefix_terms(prefix: &[char]) -> Vec<PositionedTerm> {
    let mut terms = vec![(0, tagged_term(PREFIX_TAG, &prefix[..prefix.len().min(2)]))];
    terms.extend(covering_ngrams(prefix, 2));
    terms
}

/// The terms that find words with this substring; empty if it is too short.
pub(crate) fn substring_terms(substring: &[char]) -> Vec<PositionedTerm> {
    match substring {
        [] | [_] => Vec::new(),
        [a, b] if !(is_cjk(*a) && is_cjk(*b)) => Vec::new(),
        _ => covering_ngrams(substring, 0),
    }
}

/// Returns a few n-grams that together cover every character from `from` on.
fn covering_ngrams(chars: &[char], from: usize) -> Vec<PositionedTerm> {
    let mut terms = Vec::new();
    let mut covered = from;
    while covered < chars.len() {
        let ngram = (covered.saturating_sub(2)..=covered)
            .rev()
            .filter_map(|start| longest_ngram_at(chars, start))
            .filter(|ngram| ngram.end > covered)
            .max_by_key(|ngram| ngram.end);
        let Some(ngram) = ngram else { break };
        covered = ngram.end;
        terms.push((ngram.start, tagged_term(NGRAM_TAG, &chars[ngram])));
    }
    terms
}

/// The longest n-gram that starts at a character.
fn longest_ngram_at(chars: &[char], start: usize) -> Option<Range<usize>> {
    let is_cjk_at = |index: usize| chars.get(index).copied().is_some_and(is_cjk);
    let is_cjk_pair = is_cjk_at(start) && is_cjk_at(start + 1);
    if start + 2 < chars.len() && !(is_cjk_pair && is_cjk_at(start + 2)) {
        return Some(start..start + 3);
    }
    is_cjk_pair.then_some(start..start + 2)
}

fn tagged_term(tag: char, chars: &[char]) -> String {
    std::iter::once(tag).chain(chars.iter().copied()).collect()
}

/// tantivy's tokenizer for bodies. Reuses its memory from one body to the next.
#[derive(Clone, Default)]
pub(crate) struct TermTokenizer {
    tokenized: TokenizedText,
    /// The characters of the current word.
    word_chars: Vec<char>,
    /// The terms of the current word.
    term_spans: Vec<TermSpan>,
    token: Token,
}

/// A term of a word: its tag, and a range of the word's characters.
type TermSpan = (char, Range<usize>);

impl Tokenizer for TermTokenizer {
    type TokenStream<'a> = TermStream<'a>;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> TermStream<'a> {
        self.tokenized.read(text);
        self.term_spans.clear();
        TermStream { tokenizer: self, next_word: 0, next_term: 0, word_start: 0, word_position: 0 }
    }
}

/// The terms of one body.
pub(crate) struct TermStream<'a> {
    tokenizer: &'a mut TermTokenizer,
    next_word: usize,
    /// The number of terms of the current word that were returned.
    next_term: usize,
    /// The index of the current word's first character in the normalized text.
    word_start: usize,
    /// The current word's position.
    word_position: usize,
}

impl TermStream<'_> {
    /// Loads the terms of the next word; `false` after the last word.
    fn load_next_word(&mut self) -> bool {
        let TermTokenizer { tokenized, word_chars, term_spans, .. } = &mut *self.tokenizer;
        let Some(word) = tokenized.words.get(self.next_word) else { return false };
        (self.word_start, self.word_position) = (word.chars.start, word.position);
        word_chars.clear();
        word_chars.extend(tokenized.text(word).chars());
        term_spans.clear();
        push_word_terms(word_chars, term_spans);
        self.next_word += 1;
        self.next_term = 0;
        true
    }
}

impl TokenStream for TermStream<'_> {
    fn advance(&mut self) -> bool {
        while self.next_term == self.tokenizer.term_spans.len() {
            if !self.load_next_word() {
                return false;
            }
        }
        let TermTokenizer { tokenized, term_spans, token, .. } = &mut *self.tokenizer;
        let (tag, Range { start, end }) = &term_spans[self.next_term];
        self.next_term += 1;
        token.position = self.word_position + start;
        token.text.clear();
        token.text.push(*tag);
        let chars = self.word_start + start..self.word_start + end;
        token.text.push_str(tokenized.normalized.slice(&chars));
        true
    }

    fn token(&self) -> &Token {
        &self.tokenizer.token
    }

    fn token_mut(&mut self) -> &mut Token {
        &mut self.tokenizer.token
    }
}

/// Appends the terms of a word. The positions of equal terms ascend.
fn push_word_terms(word: &[char], term_spans: &mut Vec<TermSpan>) {
    let whole = 0..word.len();
    if word.len() <= MAX_WORD_CHARS {
        term_spans.push((WHOLE_WORD_TAG, whole.clone()));
    }
    let mut covers_start = false;
    for part in word_parts(word) {
        if part != whole && part.len() <= MAX_WORD_CHARS {
            term_spans.push((WHOLE_WORD_TAG, part.clone()));
        }
        covers_start |= part.start == 0;
        push_prefix_terms(word, part.start, term_spans);
    }
    if !covers_start {
        push_prefix_terms(word, 0, term_spans);
    }
    for start in 0..word.len().saturating_sub(1) {
        if let Some(ngram) = longest_ngram_at(word, start) {
            if ngram.len() == 3 && is_cjk(word[start]) && is_cjk(word[start + 1]) {
                term_spans.push((NGRAM_TAG, start..start + 2));
            }
            term_spans.push((NGRAM_TAG, ngram));
        }
    }
}

fn push_prefix_terms(word: &[char], start: usize, term_spans: &mut Vec<TermSpan>) {
    term_spans.push((PREFIX_TAG, start..start + 1));
    if start + 1 < word.len() {
        term_spans.push((PREFIX_TAG, start..start + 2));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(text: &str) -> Vec<String> {
        let mut tokenizer = TermTokenizer::default();
        let mut stream = tokenizer.token_stream(text);
        let mut terms = Vec::new();
        while stream.advance() {
            terms.push(format!("{}@{}", stream.token().text, stream.token().position));
        }
        terms
    }

    fn chars(text: &str) -> Vec<char> {
        text.chars().collect()
    }

    #[test]
    fn a_word_has_whole_prefix_and_substring_terms() {
        assert_eq!(
            terms("an Étude"),
            ["wan@0", "sa@0", "san@0", "wetude@3", "se@3", "set@3", "getu@3", "gtud@4", "gude@5"]
        );
    }

    #[test]
    fn han_is_indexed_by_pairs() {
        assert_eq!(terms("吃苹果"), ["w吃苹果@0", "s吃@0", "s吃苹@0", "g吃苹@0", "g苹果@1"]);
    }

    #[test]
    fn parts_of_a_word_are_indexed_as_words() {
        let terms = terms("l'eau");
        for term in ["wl'eau@0", "wl@0", "weau@2", "sea@2", "gl'e@0", "geau@2"] {
            assert!(terms.iter().any(|found| found == term), "{term} in {terms:?}");
        }
    }

    #[test]
    fn few_terms_cover_a_substring_or_a_prefix() {
        let listed = |terms: Vec<PositionedTerm>| {
            terms.into_iter().map(|(offset, term)| format!("{term}@{offset}")).collect::<Vec<_>>()
        };
        assert_eq!(listed(substring_terms(&chars("abcdefgh"))), ["gabc@0", "gdef@3", "gfgh@5"]);
        assert_eq!(listed(substring_terms(&chars("喜欢吃苹果"))), ["g喜欢@0", "g吃苹@2", "g苹果@3"]);
        assert_eq!(listed(prefix_terms(&chars("abcd"))), ["sab@0", "gbcd@1"]);
        assert_eq!(listed(prefix_terms(&chars("a"))), ["sa@0"]);
        assert!(substring_terms(&chars("ab")).is_empty());
    }
}
