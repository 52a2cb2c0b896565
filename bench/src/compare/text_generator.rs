//! Generates any number of message texts from a corpus.

use std::fmt::Write as _;
use std::sync::Arc;

/// A generated text combines two messages whose distance in the corpus is below this. Messages close to each other
/// often belong to the same conversation, or have the same language.
const NEIGHBOUR_RANGE: u64 = 100;

/// Generates texts from a corpus.
///
/// The first texts are those of the corpus. Each other text combines the first half of the words of one message with
/// the second half of the words of a message nearby. Every fourth of these ends in a unique number. Words are about as
/// frequent as in the corpus, and few texts are equal.
#[derive(Clone, Debug)]
pub struct TextGenerator {
    corpus: Arc<[String]>,
}

impl TextGenerator {
    /// Creates a generator from a corpus of at least one text.
    pub fn new(corpus: Vec<String>) -> Self {
        Self { corpus: corpus.into() }
    }

    /// Returns the texts of the corpus.
    pub fn corpus(&self) -> &[String] {
        &self.corpus
    }

    /// Returns the text number `nth`, counted from 0. The text depends on the corpus and `nth` only.
    pub fn text(&self, nth: u64) -> String {
        let corpus_len = self.corpus.len() as u64;
        if nth < corpus_len {
            return self.corpus_text(nth).to_owned();
        }
        let first = split_mix64(nth) % corpus_len;
        let second = (first + split_mix64(!nth) % NEIGHBOUR_RANGE) % corpus_len;
        let (start, _) = halves(self.corpus_text(first));
        let (_, end) = halves(self.corpus_text(second));
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

/// Splits a text at the middle space. If the text is a single word, both halves are this word.
fn halves(text: &str) -> (&str, &str) {
    let spaces: Vec<usize> = text.match_indices(' ').map(|(index, _)| index).collect();
    match spaces.get(spaces.len() / 2) {
        Some(middle) => (text[..*middle].trim_end(), text[*middle..].trim_start()),
        None => (text, text),
    }
}

/// Returns the pseudo-random number of a seed (SplitMix64, Steele, Lea, Flood 2014).
fn split_mix64(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn texts_are_reproducible_and_mostly_distinct() {
        let corpus = (0..500).map(|line| format!("one {line} two three {line} four")).collect();
        let texts = TextGenerator::new(corpus);
        let many: Vec<String> = (0..5_000).map(|nth| texts.text(nth)).collect();
        assert!(many.iter().collect::<HashSet<_>>().len() > 4_500);
        assert_eq!(many[4_000], texts.text(4_000));
        assert_eq!(many[7], "one 7 two three 7 four");
    }

    #[test]
    fn splits_a_text_at_the_middle_space() {
        assert_eq!(halves("one two three"), ("one two", "three"));
        assert_eq!(halves("one"), ("one", "one"));
    }
}
