//! Terms: what the index files a word under, and which of these find a word, its start or its inside.
//!
//! All terms are of one field, so that a phrase may mix them, and their positions count characters ([`Word`](super::words::Word)):
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
use super::words::{Words, parts};

/// Characters of a word that matter. A longer word is no word of a language: it is found by what it starts with, and a
/// query's word is cut to this. It bounds what a search costs.
pub(super) const MAX_WORD_CHARS: usize = 128;

const WHOLE: char = 'w';
const START: char = 's';
const GRAM: char = 'g';

/// A term and where it stands relative to the start of what is looked for.
pub(super) type Placed = (usize, String);

/// The term of a whole word; `None` where it is too long to have one.
pub(super) fn whole(word: &[char]) -> Option<String> {
    (word.len() <= MAX_WORD_CHARS).then(|| term(WHOLE, word))
}

/// The terms of all words that start so.
pub(super) fn starting_with(start: &[char]) -> Vec<Placed> {
    let mut terms = vec![(0, term(START, &start[..start.len().min(2)]))];
    terms.extend(cover(start, 2));
    terms
}

/// The terms of all words that hold these characters next to each other; empty where they are too few.
pub(super) fn inside(part: &[char]) -> Vec<Placed> {
    match part {
        [] | [_] => Vec::new(),
        [a, b] if !(is_cjk(*a) && is_cjk(*b)) => Vec::new(),
        _ => cover(part, 0),
    }
}

/// Few grams that together hold every character from `from` on.
fn cover(chars: &[char], from: usize) -> Vec<Placed> {
    let mut terms = Vec::new();
    let mut covered = from;
    while covered < chars.len() {
        let gram = (covered.saturating_sub(2)..=covered)
            .rev()
            .filter_map(|start| gram_at(chars, start))
            .filter(|gram| gram.end > covered)
            .max_by_key(|gram| gram.end);
        let Some(gram) = gram else { break };
        covered = gram.end;
        terms.push((gram.start, term(GRAM, &chars[gram])));
    }
    terms
}

/// The longest gram that starts here.
fn gram_at(chars: &[char], start: usize) -> Option<Range<usize>> {
    let cjk = |index: usize| chars.get(index).copied().is_some_and(is_cjk);
    let pair = cjk(start) && cjk(start + 1);
    if start + 2 < chars.len() && !(pair && cjk(start + 2)) {
        return Some(start..start + 3);
    }
    pair.then_some(start..start + 2)
}

fn term(kind: char, chars: &[char]) -> String {
    std::iter::once(kind).chain(chars.iter().copied()).collect()
}

/// Cuts bodies into terms, one after another in the same memory.
#[derive(Clone, Default)]
pub(super) struct Terms {
    words: Words,
    /// The characters of the current word, and what it is filed under.
    word: Vec<char>,
    filed: Vec<Filed>,
    token: Token,
}

/// A term of a word: its kind, and which of the word's characters.
type Filed = (char, Range<usize>);

impl Tokenizer for Terms {
    type TokenStream<'a> = TermStream<'a>;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> TermStream<'a> {
        self.words.read(text);
        self.filed.clear();
        TermStream { terms: self, next_word: 0, next: 0, first: 0, position: 0 }
    }
}

/// The terms of one body.
pub(super) struct TermStream<'a> {
    terms: &'a mut Terms,
    next_word: usize,
    /// How many terms of the current word were given out.
    next: usize,
    /// The current word's first character in the text, and its position.
    first: usize,
    position: usize,
}

impl TermStream<'_> {
    /// Goes on to the next word; `false` after the last.
    fn load(&mut self) -> bool {
        let Terms { words, word, filed, .. } = &mut *self.terms;
        let Some(next) = words.words.get(self.next_word) else { return false };
        (self.first, self.position) = (next.chars.start, next.position);
        word.clear();
        word.extend(words.text(next).chars());
        filed.clear();
        file(word, filed);
        self.next_word += 1;
        self.next = 0;
        true
    }
}

impl TokenStream for TermStream<'_> {
    fn advance(&mut self) -> bool {
        while self.next == self.terms.filed.len() {
            if !self.load() {
                return false;
            }
        }
        let Terms { words, filed, token, .. } = &mut *self.terms;
        let (kind, Range { start, end }) = &filed[self.next];
        self.next += 1;
        token.position = self.position + start;
        token.text.clear();
        token.text.push(*kind);
        token.text.push_str(words.folded.slice(&(self.first + start..self.first + end)));
        true
    }

    fn token(&self) -> &Token {
        &self.terms.token
    }

    fn token_mut(&mut self) -> &mut Token {
        &mut self.terms.token
    }
}

/// What a word is filed under; the ranges of each kind rise.
fn file(word: &[char], filed: &mut Vec<Filed>) {
    let whole = 0..word.len();
    if word.len() <= MAX_WORD_CHARS {
        filed.push((WHOLE, whole.clone()));
    }
    let mut starts_itself = false;
    for part in parts(word) {
        if part != whole && part.len() <= MAX_WORD_CHARS {
            filed.push((WHOLE, part.clone()));
        }
        starts_itself |= part.start == 0;
        file_start(word, part.start, filed);
    }
    if !starts_itself {
        file_start(word, 0, filed);
    }
    for start in 0..word.len().saturating_sub(1) {
        if let Some(gram) = gram_at(word, start) {
            if gram.len() == 3 && is_cjk(word[start]) && is_cjk(word[start + 1]) {
                filed.push((GRAM, start..start + 2));
            }
            filed.push((GRAM, gram));
        }
    }
}

fn file_start(word: &[char], start: usize, filed: &mut Vec<Filed>) {
    filed.push((START, start..start + 1));
    if start + 1 < word.len() {
        filed.push((START, start..start + 2));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(text: &str) -> Vec<String> {
        let mut tokenizer = Terms::default();
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
    fn a_word_is_filed_whole_by_its_start_and_by_its_inside() {
        assert_eq!(
            terms("an Étude"),
            ["wan@0", "sa@0", "san@0", "wetude@3", "se@3", "set@3", "getu@3", "gtud@4", "gude@5"]
        );
    }

    #[test]
    fn han_is_filed_by_pairs() {
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
        let placed = |terms: Vec<Placed>| {
            terms.into_iter().map(|(at, term)| format!("{term}@{at}")).collect::<Vec<_>>()
        };
        assert_eq!(placed(inside(&chars("abcdefgh"))), ["gabc@0", "gdef@3", "gfgh@5"]);
        assert_eq!(placed(inside(&chars("喜欢吃苹果"))), ["g喜欢@0", "g吃苹@2", "g苹果@3"]);
        assert_eq!(placed(starting_with(&chars("abcd"))), ["sab@0", "gbcd@1"]);
        assert_eq!(placed(starting_with(&chars("a"))), ["sa@0"]);
        assert!(inside(&chars("ab")).is_empty());
    }
}
