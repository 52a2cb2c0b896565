//! A query that may match in several ways, of which the best counts.

use std::fmt;
use std::sync::Arc;

use tantivy::query::{EnableScoring, Explanation, Query, Scorer, Weight};
use tantivy::{DocId, DocSet, Score, SeekDangerResult, SegmentReader, TERMINATED, TantivyError};

/// Finds what any of its ways finds; the score is that of the best way that does.
///
/// tantivy has this as `DisjunctionMaxQuery`, which fills a window of 4,096 documents at a time. That is dear where few
/// documents are asked about, as in one chat of many: here each is asked of one way after the other, the best first,
/// until one has it.
#[derive(Clone, Debug)]
pub(super) struct BestMatchQuery(Arc<[Alternative<Box<dyn Query>>]>);

/// One of the ways, and what it scores.
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
    /// Ways with what they score.
    pub fn new(ways: impl IntoIterator<Item = (Box<dyn Query>, u16)>) -> Self {
        let mut ways: Vec<_> = ways
            .into_iter()
            .map(|(by, score)| Alternative { matcher: by, score: f32::from(score) })
            .collect();
        ways.sort_by(|a, b| b.score.total_cmp(&a.score));
        Self(ways.into())
    }
}

impl Query for BestMatchQuery {
    fn weight(&self, scoring: EnableScoring<'_>) -> tantivy::Result<Box<dyn Weight>> {
        let disabled = match scoring {
            EnableScoring::Enabled { searcher, .. } => EnableScoring::disabled_from_searcher(searcher),
            EnableScoring::Disabled { .. } => scoring,
        };
        let weigh = |Alternative { matcher: by, score }: &Alternative<Box<dyn Query>>| {
            Ok(Alternative { matcher: by.weight(disabled)?, score: *score })
        };
        Ok(Box::new(BestMatchWeight(self.0.iter().map(weigh).collect::<tantivy::Result<_>>()?)))
    }
}

struct BestMatchWeight(Vec<Alternative<Box<dyn Weight>>>);

impl BestMatchWeight {
    /// The ways, each near a document.
    fn scorer_from(
        &self,
        reader: &SegmentReader,
        target: DocId,
        boost: Score,
    ) -> tantivy::Result<BestMatchScorer> {
        let mut ways = Vec::with_capacity(self.0.len());
        for Alternative { matcher: by, score } in &self.0 {
            let (sought, by) = by.scorer_danger(reader, target, 1.0)?;
            ways.push(AlternativeScorer {
                position: ScorerPosition::from_seek(target, sought),
                scorer: by,
                score: score * boost,
            });
        }
        Ok(BestMatchScorer { alternatives: ways, doc: TERMINATED, score: 0.0 })
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
        Ok(Explanation::new("the best way", scorer.score))
    }
}

/// Where a way stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ScorerPosition {
    /// On this document.
    OnDoc(DocId),
    /// Before its next document, which is this one or a later one. It may only be asked for with `seek_danger`.
    BeforeDoc(DocId),
}

impl ScorerPosition {
    fn from_seek(target: DocId, sought: SeekDangerResult) -> Self {
        match sought {
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
    /// Whether this way finds a document. It must be asked for documents in rising order.
    fn matches(&mut self, doc: DocId) -> bool {
        if self.position.doc() < doc || self.position == ScorerPosition::BeforeDoc(doc) {
            self.position = ScorerPosition::from_seek(doc, self.scorer.seek_danger(doc));
        }
        self.position == ScorerPosition::OnDoc(doc)
    }
}

struct BestMatchScorer {
    /// The best first. A way that nobody asked, since a better one had the document, stands where it stood.
    alternatives: Vec<AlternativeScorer>,
    doc: DocId,
    score: Score,
}

impl BestMatchScorer {
    /// Whether any way has the document, and how well.
    fn seek_exact(&mut self, doc: DocId) -> SeekDangerResult {
        if doc >= TERMINATED {
            return SeekDangerResult::SeekLowerBound(TERMINATED);
        }
        if let Some(score) =
            self.alternatives.iter_mut().find_map(|way| way.matches(doc).then_some(way.score))
        {
            (self.doc, self.score) = (doc, score);
            return SeekDangerResult::Found;
        }
        SeekDangerResult::SeekLowerBound(self.lower_bound())
    }

    /// Goes to the first document from `doc` on that any way has.
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
        self.alternatives.iter().map(|way| way.position.doc()).min().unwrap_or(TERMINATED).min(TERMINATED)
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
        self.alternatives.iter().map(|way| way.scorer.size_hint()).fold(0, u32::saturating_add)
    }

    fn cost(&self) -> u64 {
        self.alternatives.iter().map(|way| way.scorer.cost()).fold(0, u64::saturating_add)
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

    /// Each document that a query finds, with its score.
    fn found(searcher: &Searcher, query: &dyn Query) -> Vec<(DocId, Score)> {
        let weight = query.weight(EnableScoring::enabled_from_searcher(searcher)).unwrap();
        let mut found = Vec::new();
        for reader in searcher.segment_readers() {
            weight.for_each(reader, &mut |doc, score| found.push((doc, score))).unwrap();
        }
        found
    }

    /// A word, or two next to each other.
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
        fn the_same_is_found_as_by_the_largest_of_several_scores(
            texts in prop::collection::vec("[a-e]( [a-e]){0,5}", 1..300),
            ways in prop::collection::vec("[a-f]( [a-f])?", 2..5),
            others in prop::collection::vec("[a-f]( [a-f])?", 0..3),
        ) {
            let (searcher, text) = index(&texts);
            let scored: Vec<_> = ways.iter().zip([1_u16, 8, 2, 4]).collect();
            let largest = scored.iter().map(|(words, score)| {
                Box::new(ConstScoreQuery::new(word_or_phrase_query(text, words), f32::from(*score))) as Box<dyn Query>
            });
            let largest: Box<dyn Query> = Box::new(DisjunctionMaxQuery::new(largest.collect()));
            let ways: Box<dyn Query> =
                Box::new(BestMatchQuery::new(scored.iter().map(|(words, score)| (word_or_phrase_query(text, words), *score))));
            prop_assert_eq!(found(&searcher, &ways), found(&searcher, &largest));

            // Among others that all have to match, in whichever place.
            for place in 0..=others.len() {
                let among = |query: &dyn Query| {
                    let mut all: Vec<Box<dyn Query>> = others.iter().map(|words| word_or_phrase_query(text, words)).collect();
                    all.insert(place, query.box_clone());
                    let musts = all.into_iter().enumerate().map(|(index, query)| {
                        let query = if index == place { query } else { Box::new(ConstScoreQuery::new(query, 0.0)) };
                        (Occur::Must, query)
                    });
                    found(&searcher, &BooleanQuery::new(musts.collect()))
                };
                prop_assert_eq!(among(ways.as_ref()), among(largest.as_ref()));
            }
        }
    }
}
