//! A tantivy query of several alternatives that scores by the best one.

use std::fmt;
use std::sync::Arc;

use tantivy::query::{EnableScoring, Explanation, Query, Scorer, Weight};
use tantivy::{DocId, DocSet, Score, SeekDangerResult, SegmentReader, TERMINATED, TantivyError};

/// Finds the documents that any alternative finds. The score is that of the best alternative that finds the document.
///
/// tantivy's `DisjunctionMaxQuery` finds the same, but fills a window of 4,096 documents at a time. That is expensive
/// for selective searches, as in one chat of many. This query seeks instead: it tests one document at a time with each
/// alternative, the best first, until one matches.
#[derive(Clone, Debug)]
pub(crate) struct BestMatchQuery(Arc<[Alternative<Box<dyn Query>>]>);

/// A query (or its weight), and the score of its matches.
struct Alternative<T> {
    matcher: T,
    score: Score,
}

impl<T: fmt::Debug> fmt::Debug for Alternative<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} for {}", self.matcher, self.score)
    }
}

impl BestMatchQuery {
    /// A query of alternatives with their scores.
    pub fn new(alternatives: impl IntoIterator<Item = (Box<dyn Query>, u16)>) -> Self {
        let mut alternatives: Vec<_> = alternatives
            .into_iter()
            .map(|(matcher, score)| Alternative { matcher, score: f32::from(score) })
            .collect();
        alternatives.sort_by(|a, b| b.score.total_cmp(&a.score));
        Self(alternatives.into())
    }
}

impl Query for BestMatchQuery {
    fn weight(&self, scoring: EnableScoring<'_>) -> tantivy::Result<Box<dyn Weight>> {
        // The alternatives' queries compute no scores: each alternative has a fixed one.
        let without_scores = match scoring {
            EnableScoring::Enabled { searcher, .. } => EnableScoring::disabled_from_searcher(searcher),
            EnableScoring::Disabled { .. } => scoring,
        };
        let weigh = |Alternative { matcher, score }: &Alternative<Box<dyn Query>>| {
            Ok(Alternative { matcher: matcher.weight(without_scores)?, score: *score })
        };
        Ok(Box::new(BestMatchWeight(self.0.iter().map(weigh).collect::<tantivy::Result<_>>()?)))
    }
}

struct BestMatchWeight(Vec<Alternative<Box<dyn Weight>>>);

impl BestMatchWeight {
    /// Creates a scorer without a current document. Its alternatives have sought `target`.
    fn scorer_from(
        &self,
        reader: &SegmentReader,
        target: DocId,
        boost: Score,
    ) -> tantivy::Result<BestMatchScorer> {
        let mut alternatives = Vec::with_capacity(self.0.len());
        for Alternative { matcher, score } in &self.0 {
            let (result, scorer) = matcher.scorer_danger(reader, target, 1.0)?;
            alternatives.push(AlternativeScorer {
                position: ScorerPosition::from_seek(target, result),
                scorer,
                score: score * boost,
            });
        }
        Ok(BestMatchScorer { alternatives, doc: TERMINATED, score: 0.0 })
    }
}

impl Weight for BestMatchWeight {
    fn scorer(&self, reader: &SegmentReader, boost: Score) -> tantivy::Result<Box<dyn Scorer>> {
        let mut scorer = self.scorer_from(reader, 0, boost)?;
        scorer.seek_from(0);
        Ok(Box::new(scorer))
    }

    fn scorer_danger(
        &self,
        reader: &SegmentReader,
        target: DocId,
        boost: Score,
    ) -> tantivy::Result<(SeekDangerResult, Box<dyn Scorer>)> {
        let mut scorer = self.scorer_from(reader, target, boost)?;
        Ok((scorer.seek_exact(target), Box::new(scorer)))
    }

    fn explain(&self, reader: &SegmentReader, doc: DocId) -> tantivy::Result<Explanation> {
        let mut scorer = self.scorer_from(reader, doc, 1.0)?;
        if scorer.seek_exact(doc) != SeekDangerResult::Found {
            return Err(TantivyError::InvalidArgument(format!("document {doc} does not match")));
        }
        Ok(Explanation::new("the best alternative", scorer.score))
    }
}

/// The position of an alternative's scorer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ScorerPosition {
    /// On a match.
    OnDoc(DocId),
    /// Before the scorer's next match, which is this document or a later one. Only `seek_danger` may be called on the
    /// scorer.
    BeforeDoc(DocId),
}

impl ScorerPosition {
    fn from_seek(target: DocId, result: SeekDangerResult) -> Self {
        match result {
            SeekDangerResult::Found => Self::OnDoc(target),
            SeekDangerResult::SeekLowerBound(bound) => Self::BeforeDoc(bound),
        }
    }

    fn doc(self) -> DocId {
        match self {
            Self::OnDoc(doc) | Self::BeforeDoc(doc) => doc,
        }
    }
}

struct AlternativeScorer {
    position: ScorerPosition,
    scorer: Box<dyn Scorer>,
    score: Score,
}

impl AlternativeScorer {
    /// Whether this alternative matches a document. Must be called with ascending documents.
    fn matches(&mut self, doc: DocId) -> bool {
        if self.position.doc() < doc || self.position == ScorerPosition::BeforeDoc(doc) {
            self.position = ScorerPosition::from_seek(doc, self.scorer.seek_danger(doc));
        }
        self.position == ScorerPosition::OnDoc(doc)
    }
}

struct BestMatchScorer {
    /// The best first. An alternative is not moved if a better one matches the document.
    alternatives: Vec<AlternativeScorer>,
    doc: DocId,
    score: Score,
}

impl BestMatchScorer {
    /// Moves to the document if any alternative matches it.
    fn seek_exact(&mut self, doc: DocId) -> SeekDangerResult {
        if doc >= TERMINATED {
            return SeekDangerResult::SeekLowerBound(TERMINATED);
        }
        if let Some(score) = self
            .alternatives
            .iter_mut()
            .find_map(|alternative| alternative.matches(doc).then_some(alternative.score))
        {
            (self.doc, self.score) = (doc, score);
            return SeekDangerResult::Found;
        }
        SeekDangerResult::SeekLowerBound(self.lower_bound())
    }

    /// Moves to the first match at or after `doc`.
    fn seek_from(&mut self, mut doc: DocId) -> DocId {
        while let SeekDangerResult::SeekLowerBound(bound) = self.seek_exact(doc) {
            if bound >= TERMINATED {
                self.doc = TERMINATED;
                break;
            }
            doc = bound;
        }
        self.doc
    }

    fn lower_bound(&self) -> DocId {
        self.alternatives
            .iter()
            .map(|alternative| alternative.position.doc())
            .min()
            .unwrap_or(TERMINATED)
            .min(TERMINATED)
    }
}

impl DocSet for BestMatchScorer {
    fn advance(&mut self) -> DocId {
        if self.doc >= TERMINATED { TERMINATED } else { self.seek_from(self.doc + 1) }
    }

    fn seek(&mut self, target: DocId) -> DocId {
        if self.doc >= target { self.doc } else { self.seek_from(target) }
    }

    fn seek_danger(&mut self, target: DocId) -> SeekDangerResult {
        self.seek_exact(target)
    }

    fn doc(&self) -> DocId {
        self.doc
    }

    fn size_hint(&self) -> u32 {
        self.alternatives
            .iter()
            .map(|alternative| alternative.scorer.size_hint())
            .fold(0, u32::saturating_add)
    }

    fn cost(&self) -> u64 {
        self.alternatives.iter().map(|alternative| alternative.scorer.cost()).fold(0, u64::saturating_add)
    }
}

impl Scorer for BestMatchScorer {
    fn score(&mut self) -> Score {
        self.score
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tantivy::query::{BooleanQuery, ConstScoreQuery, DisjunctionMaxQuery, Occur, PhraseQuery, TermQuery};
    use tantivy::schema::{Field, IndexRecordOption, Schema, TEXT};
    use tantivy::{Index, Searcher, Term, doc};

    use super::*;

    fn index(texts: &[String]) -> (Searcher, Field) {
        let mut schema = Schema::builder();
        let text = schema.add_text_field("text", TEXT);
        let index = Index::create_in_ram(schema.build());
        let mut writer = index.writer_with_num_threads(1, 15_000_000).unwrap();
        for words in texts {
            writer.add_document(doc!(text => words.as_str())).unwrap();
        }
        writer.commit().unwrap();
        (index.reader().unwrap().searcher(), text)
    }

    /// The documents that a query finds, with their scores.
    fn found(searcher: &Searcher, query: &dyn Query) -> Vec<(DocId, Score)> {
        let weight = query.weight(EnableScoring::enabled_from_searcher(searcher)).unwrap();
        let mut found = Vec::new();
        for reader in searcher.segment_readers() {
            weight.for_each(reader, &mut |doc, score| found.push((doc, score))).unwrap();
        }
        found
    }

    /// A query for one word, or for two adjacent ones.
    fn word_or_phrase_query(text: Field, words: &str) -> Box<dyn Query> {
        let terms: Vec<_> = words.split(' ').map(|word| Term::from_field_text(text, word)).collect();
        match <[Term; 1]>::try_from(terms) {
            Ok([term]) => Box::new(TermQuery::new(term, IndexRecordOption::Basic)),
            Err(terms) => Box::new(PhraseQuery::new(terms)),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn finds_and_scores_as_tantivys_dismax_does(
            texts in prop::collection::vec("[a-e]( [a-e]){0,5}", 1..300),
            alternatives in prop::collection::vec("[a-f]( [a-f])?", 2..5),
            others in prop::collection::vec("[a-f]( [a-f])?", 0..3),
        ) {
            let (searcher, text) = index(&texts);
            let scored: Vec<_> = alternatives.iter().zip([1_u16, 8, 2, 4]).collect();
            let dismax = scored.iter().map(|(words, score)| {
                Box::new(ConstScoreQuery::new(word_or_phrase_query(text, words), f32::from(*score))) as Box<dyn Query>
            });
            let dismax: Box<dyn Query> = Box::new(DisjunctionMaxQuery::new(dismax.collect()));
            let best_match: Box<dyn Query> =
                Box::new(BestMatchQuery::new(scored.iter().map(|(words, score)| (word_or_phrase_query(text, words), *score))));
            prop_assert_eq!(found(&searcher, &best_match), found(&searcher, &dismax));

            // Combined with other required queries, at each position among them.
            for position in 0..=others.len() {
                let with_others = |query: &dyn Query| {
                    let mut all: Vec<Box<dyn Query>> = others.iter().map(|words| word_or_phrase_query(text, words)).collect();
                    all.insert(position, query.box_clone());
                    let musts = all.into_iter().enumerate().map(|(index, query)| {
                        let query = if index == position { query } else { Box::new(ConstScoreQuery::new(query, 0.0)) };
                        (Occur::Must, query)
                    });
                    found(&searcher, &BooleanQuery::new(musts.collect()))
                };
                prop_assert_eq!(with_others(best_match.as_ref()), with_others(dismax.as_ref()));
            }
        }
    }
}
