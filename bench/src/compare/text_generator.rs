//! More texts than a corpus has.

use std::fmt::Write as _;
use std::sync::Arc;

/// Neighbours in the corpus that a text may be completed from: they are of the same conversation, or at least language.
const NEIGHBOUR_RANGE: u64 = 100;

/// As many texts as are asked for, made of a corpus: first its own, then each of the first half of the words of one of
/// its messages and the second half of those of another one nearby, and every fourth ends in a number of its own. Words
/// are as frequent as in the corpus, and few texts are the same.
#[derive(Clone, Debug)]
pub struct TextGenerator {
    corpus: Arc<[String]>,
}

impl TextGenerator {
    /// Texts made of these, of which there must be one.
    pub fn new(corpus: Vec<String>) -> Self {
        Self { corpus: corpus.into() }
    }

    /// The corpus as it is.
    pub fn corpus(&self) -> &[String] {
        &self.corpus
    }

    /// The `nth` text: always the same one.
    pub fn text(&self, nth: u64) -> String {
        let corpus = self.corpus.len() as u64;
        if nth < corpus {
            return self.corpus_text(nth).to_owned();
        }
        let (chosen, other) = (split_mix64(nth), split_mix64(!nth));
        let first = chosen % corpus;
        let (start, end) =
            (self.corpus_text(first), self.corpus_text((first + other % NEIGHBOUR_RANGE) % corpus));
        let (start, _) = halves(start);
        let (_, end) = halves(end);
        let mut text = format!("{start} {end}");
        if nth.is_multiple_of(4) {
            // Writing to a String can't fail.
            let _ = write!(text, " {nth}");
        }
        text
    }

    fn corpus_text(&self, index: u64) -> &str {
        &self.corpus[usize::try_from(index).unwrap_or(0) % self.corpus.len()]
    }
}

/// A text cut at a space in its middle. A single word is both halves.
fn halves(text: &str) -> (&str, &str) {
    let spaces: Vec<usize> = text.match_indices(' ').map(|(at, _)| at).collect();
    match spaces.get(spaces.len() / 2) {
        Some(middle) => (text[..*middle].trim_end(), text[*middle..].trim_start()),
        None => (text, text),
    }
}

/// A number that looks drawn at random, always the same one for the same one (SplitMix64, Steele and others 2014).
pub fn split_mix64(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn few_of_many_texts_are_the_same_and_each_comes_again() {
        let corpus = (0..500).map(|line| format!("one {line} two three {line} four")).collect();
        let texts = TextGenerator::new(corpus);
        let many: Vec<String> = (0..5_000).map(|nth| texts.text(nth)).collect();
        assert!(many.iter().collect::<HashSet<_>>().len() > 4_500);
        assert_eq!(many[4_000], texts.text(4_000));
        assert_eq!(many[7], "one 7 two three 7 four");
    }

    #[test]
    fn a_text_is_cut_between_words() {
        assert_eq!(halves("one two three"), ("one two", "three"));
        assert_eq!(halves("one"), ("one", "one"));
    }
}
