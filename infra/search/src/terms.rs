//! Terms: what the index files a word under, and which of these find a word, its start or its inside.
//!
//! All terms are of one field, so that a phrase may mix them, and their positions count characters ([`Word`](super::tokenize::Word)):
//!
//! - `w` + word: the whole word, and each part of it that punctuation joins;
//! - `s` + one or two characters: how a word, or such a part, starts;
//! - `g` + three characters, or two where both are Han, Kana or Hangul: any place inside a word.
//!
//! A start or an inside of any length is then a phrase of overlapping terms at fixed distances: exact, and read from
//! posting lists alone.

use std::ops::Range;

use tantivy::tokenizer::{Token, TokenStream, Tokenizer};

use super::script::is_cjk;
use super::tokenize::{TokenizedText, word_parts};

/// Characters of a word that matter. A longer word is no word of a language: it is found by what it starts with, and a
/// query's word is cut to this. It bounds what a search costs.
pub(super) const MAX_WORD_CHARS: usize = 128;

const WHOLE_WORD_TAG: char = 'w';
const PREFIX_TAG: char = 's';
const NGRAM_TAG: char = 'g';

/// A term and where it stands relative to the start of what is looked for.
pub(super) type PositionedTerm = (usize, String);

/// The term of a whole word; `None` where it is too long to have one.
pub(super) fn whole_word_term(word: &[char]) -> Option<String> {
    (word.len() <= MAX_WORD_CHARS).then(|| tagged_term(WHOLE_WORD_TAG, word))
}

/// The terms of all words that start so.
pub(super) fn prefix_terms(start: &[char]) -> Vec<PositionedTerm> {
    let mut terms = vec![(0, tagged_term(PREFIX_TAG, &start[..start.len().min(2)]))];
    terms.extend(covering_ngrams(start, 2));
    terms
}

/// The terms of all words that hold these characters next to each other; empty where they are too few.
pub(super) fn substring_terms(part: &[char]) -> Vec<PositionedTerm> {
    match part {
        [] | [_] => Vec::new(),
        [a, b] if !(is_cjk(*a) && is_cjk(*b)) => Vec::new(),
        _ => covering_ngrams(part, 0),
    }
}

/// Few grams that together hold every character from `from` on.
fn covering_ngrams(chars: &[char], from: usize) -> Vec<PositionedTerm> {
    let mut terms = Vec::new();
    let mut covered = from;
    while covered < chars.len() {
        let gram = (covered.saturating_sub(2)..=covered)
            .rev()
            .filter_map(|start| longest_ngram_at(chars, start))
            .filter(|gram| gram.end > covered)
            .max_by_key(|gram| gram.end);
        let Some(gram) = gram else { break };
        covered = gram.end;
        terms.push((gram.start, tagged_term(NGRAM_TAG, &chars[gram])));
    }
    terms
}

/// The longest gram that starts here.
fn longest_ngram_at(chars: &[char], start: usize) -> Option<Range<usize>> {
    let cjk = |index: usize| chars.get(index).copied().is_some_and(is_cjk);
    let pair = cjk(start) && cjk(start + 1);
    if start + 2 < chars.len() && !(pair && cjk(start + 2)) {
        return Some(start..start + 3);
    }
    pair.then_some(start..start + 2)
}

fn tagged_term(kind: char, chars: &[char]) -> String {
    std::iter::once(kind).chain(chars.iter().copied()).collect()
}

/// Cuts bodies into terms, one after another in the same memory.
#[derive(Clone, Default)]
pub(super) struct TermTokenizer {
    tokenized: TokenizedText,
    /// The characters of the current word, and what it is filed under.
    word_chars: Vec<char>,
    term_spans: Vec<TermSpan>,
    token: Token,
}

/// A term of a word: its kind, and which of the word's characters.
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
pub(super) struct TermStream<'a> {
    tokenizer: &'a mut TermTokenizer,
    next_word: usize,
    /// How many terms of the current word were given out.
    next_term: usize,
    /// The current word's first character in the text, and its position.
    word_start: usize,
    word_position: usize,
}

impl TermStream<'_> {
    /// Goes on to the next word; `false` after the last.
    fn load_next_word(&mut self) -> bool {
        let TermTokenizer { tokenized: words, word_chars: word, term_spans: filed, .. } =
            &mut *self.tokenizer;
        let Some(next) = words.words.get(self.next_word) else { return false };
        (self.word_start, self.word_position) = (next.chars.start, next.position);
        word.clear();
        word.extend(words.text(next).chars());
        filed.clear();
        push_word_terms(word, filed);
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
        let TermTokenizer { tokenized: words, term_spans: filed, token, .. } = &mut *self.tokenizer;
        let (kind, Range { start, end }) = &filed[self.next_term];
        self.next_term += 1;
        token.position = self.word_position + start;
        token.text.clear();
        token.text.push(*kind);
        token.text.push_str(words.normalized.slice(&(self.word_start + start..self.word_start + end)));
        true
    }

    fn token(&self) -> &Token {
        &self.tokenizer.token
    }

    fn token_mut(&mut self) -> &mut Token {
        &mut self.tokenizer.token
    }
}

/// What a word is filed under; the ranges of each kind rise.
fn push_word_terms(word: &[char], filed: &mut Vec<TermSpan>) {
    let whole = 0..word.len();
    if word.len() <= MAX_WORD_CHARS {
        filed.push((WHOLE_WORD_TAG, whole.clone()));
    }
    let mut covers_start = false;
    for part in word_parts(word) {
        if part != whole && part.len() <= MAX_WORD_CHARS {
            filed.push((WHOLE_WORD_TAG, part.clone()));
        }
        covers_start |= part.start == 0;
        push_prefix_terms(word, part.start, filed);
    }
    if !covers_start {
        push_prefix_terms(word, 0, filed);
    }
    for start in 0..word.len().saturating_sub(1) {
        if let Some(gram) = longest_ngram_at(word, start) {
            if gram.len() == 3 && is_cjk(word[start]) && is_cjk(word[start + 1]) {
                filed.push((NGRAM_TAG, start..start + 2));
            }
            filed.push((NGRAM_TAG, gram));
        }
    }
}

fn push_prefix_terms(word: &[char], start: usize, filed: &mut Vec<TermSpan>) {
    filed.push((PREFIX_TAG, start..start + 1));
    if start + 1 < word.len() {
        filed.push((PREFIX_TAG, start..start + 2));
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
    fn parts_are_words_too() {
        let terms = terms("l'eau");
        for term in ["wl'eau@0", "wl@0", "weau@2", "sea@2", "gl'e@0", "geau@2"] {
            assert!(terms.iter().any(|found| found == term), "{term} in {terms:?}");
        }
    }

    #[test]
    fn few_grams_cover_a_part() {
        let placed = |terms: Vec<PositionedTerm>| {
            terms.into_iter().map(|(at, term)| format!("{term}@{at}")).collect::<Vec<_>>()
        };
        assert_eq!(placed(substring_terms(&chars("abcdefgh"))), ["gabc@0", "gdef@3", "gfgh@5"]);
        assert_eq!(placed(substring_terms(&chars("喜欢吃苹果"))), ["g喜欢@0", "g吃苹@2", "g苹果@3"]);
        assert_eq!(placed(prefix_terms(&chars("abcd"))), ["sab@0", "gbcd@1"]);
        assert_eq!(placed(prefix_terms(&chars("a"))), ["sa@0"]);
        assert!(substring_terms(&chars("ab")).is_empty());
    }
}
