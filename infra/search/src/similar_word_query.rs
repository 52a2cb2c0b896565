//! A tantivy query for whole words that differ from a word by a few typos.

use tantivy::Term;
use tantivy::query::{AutomatonWeight, DfaWrapper, EnableScoring, FuzzyTermQuery, Query, Weight};
use tantivy::schema::Field;
use tantivy_fst::Automaton;

use crate::terms::WHOLE_WORD_TAG;

/// Finds the whole words that a word becomes with up to `max_typos` typos. Two swapped neighbors are one typo.
///
/// A [`FuzzyTermQuery`] for the term of the whole word would allow a typo in the term's tag too: without its tag, the
/// term of a word such as `game` is the n-gram term of `ame`.
#[derive(Clone, Debug)]
pub(crate) struct SimilarWordQuery {
    field: Field,
    /// The query for the word without a tag.
    untagged: FuzzyTermQuery,
}

impl SimilarWordQuery {
    pub fn new(field: Field, word: &[char], max_typos: u8) -> Self {
        let word: String = word.iter().collect();
        Self { field, untagged: FuzzyTermQuery::new(Term::from_field_text(field, &word), max_typos, true) }
    }
}

impl Query for SimilarWordQuery {
    fn weight(&self, _: EnableScoring<'_>) -> tantivy::Result<Box<dyn Weight>> {
        Ok(Box::new(AutomatonWeight::new(self.field, TaggedWords(self.untagged.automaton()?))))
    }
}

/// Matches whole-word terms: their tag, then a word that the inner automaton matches.
struct TaggedWords(DfaWrapper);

/// How far a term was read.
#[derive(Clone)]
enum ReadTerm {
    Start,
    /// The tag was read. Has the state of the inner automaton.
    Tag(u32),
    /// The term is not that of a whole word.
    OtherTag,
}

impl Automaton for TaggedWords {
    type State = ReadTerm;

    fn start(&self) -> ReadTerm {
        ReadTerm::Start
    }

    fn is_match(&self, state: &ReadTerm) -> bool {
        matches!(state, ReadTerm::Tag(word) if self.0.is_match(word))
    }

    fn can_match(&self, state: &ReadTerm) -> bool {
        match state {
            ReadTerm::Start => true,
            ReadTerm::Tag(word) => self.0.can_match(word),
            ReadTerm::OtherTag => false,
        }
    }

    fn accept(&self, state: &ReadTerm, byte: u8) -> ReadTerm {
        match state {
            ReadTerm::Start if char::from(byte) == WHOLE_WORD_TAG => ReadTerm::Tag(self.0.start()),
            ReadTerm::Tag(word) => ReadTerm::Tag(self.0.accept(word, byte)),
            ReadTerm::Start | ReadTerm::OtherTag => ReadTerm::OtherTag,
        }
    }
}
