//! The query plan: clauses as tantivy queries whose scores are small whole numbers.

use chat_ports::search_index::{Scope, SearchRequest, Sort};
use tantivy::Term;
use tantivy::query::{BooleanQuery, ConstScoreQuery, Occur, PhraseQuery, Query, TermQuery};
use tantivy::schema::{Field, IndexRecordOption};

use crate::best_match_query::BestMatchQuery;
use crate::query_parser::{Clause, Phrase, QueryWord};
use crate::schema::Fields;
use crate::similar_word_query::SimilarWordQuery;
use crate::terms::PositionedTerm;

// The score of a word of the query, by its best match in a message. A message's score is the sum over all words.
pub(crate) const WHOLE_SCORE: u16 = 8;
pub(crate) const PREFIX_SCORE: u16 = 4;
pub(crate) const SUBSTRING_SCORE: u16 = 2;
pub(crate) const FUZZY_SCORE: u16 = 1;

/// The tantivy queries of a search. Each finds the messages that match every clause.
#[derive(Debug)]
pub(crate) struct QueryPlan {
    /// Finds and scores the messages.
    pub scoring_query: Box<dyn Query>,
    /// Finds the same messages without scoring them, and reads less of the index. The scoring query then scores only
    /// the page. `None` if scores decide the order, and for fuzzy searches, where running both queries is expensive.
    pub matching_query: Option<Box<dyn Query>>,
    /// The highest score that a message can have.
    pub highest_score: u64,
}

/// Plans a search. `None` if there is no clause: such a search finds nothing.
pub(crate) fn plan_query(fields: &Fields, request: &SearchRequest, clauses: &[Clause]) -> Option<QueryPlan> {
    if clauses.is_empty() {
        return None;
    }
    let filters = filters(fields, request);
    let defers_scoring = request.sort != Sort::Relevance && !request.fuzzy;
    let mut matching: Option<Vec<Box<dyn Query>>> =
        defers_scoring.then(|| filters.iter().map(|filter| Box::new(filter.clone()) as _).collect());
    let mut scoring: Vec<_> = filters.into_iter().map(|filter| with_score(Box::new(filter), 0)).collect();
    let mut highest_score = 0;
    for clause in clauses {
        match clause {
            Clause::Word(word) => {
                let queries = match_kind_queries(fields.body, word, request.fuzzy);
                highest_score += u64::from(queries.iter().map(|(_, score)| *score).max().unwrap_or_default());
                if let (Some(matching), Some((widest, _))) = (&mut matching, queries.last()) {
                    matching.push(widest.box_clone());
                }
                scoring.push(best_of(queries));
            }
            Clause::Phrase(phrase) => {
                let query = phrase_query(fields.body, phrase.terms())?;
                if let Some(matching) = &mut matching {
                    matching.push(query.box_clone());
                }
                let score = phrase_score(phrase);
                highest_score += u64::from(score);
                scoring.push(with_score(query, score));
            }
        }
    }
    Some(QueryPlan { scoring_query: all_of(scoring), matching_query: matching.map(all_of), highest_score })
}

/// The score of a phrase: [`WHOLE_SCORE`] for each of its words.
pub(crate) fn phrase_score(phrase: &Phrase) -> u16 {
    WHOLE_SCORE.saturating_mul(u16::try_from(phrase.len()).unwrap_or(u16::MAX))
}

/// Queries for the terms that all hits have.
fn filters(fields: &Fields, request: &SearchRequest) -> Vec<TermQuery> {
    let scope = fields.scope_term(&request.scope);
    let sender = request.sender.as_ref().map(|sender| fields.sender_term(&request.scope, sender));
    let terms = match (&request.scope, sender) {
        // The term of a sender has the app in it.
        (Scope::App(_), Some(sender)) => vec![sender],
        (_, sender) => [scope].into_iter().chain(sender).collect(),
    };
    terms.into_iter().map(|term| TermQuery::new(term, IndexRecordOption::Basic)).collect()
}

fn all_of(queries: Vec<Box<dyn Query>>) -> Box<dyn Query> {
    Box::new(BooleanQuery::new(queries.into_iter().map(|query| (Occur::Must, query)).collect()))
}

/// A query and the score of its matches.
type ScoredQuery = (Box<dyn Query>, u16);

/// One query per match kind of a word, the narrowest first. A whole-word match is also a prefix match, and a prefix
/// match is also a substring match. A short word has no substring query. So the last of these queries finds all matches.
/// In a fuzzy search, another query may follow, which finds whole words with up to the allowed typos.
fn match_kind_queries(body: Field, word: &QueryWord, fuzzy: bool) -> Vec<ScoredQuery> {
    let mut queries = Vec::new();
    if let Some(whole) = word.whole_word_term() {
        queries.push((term_query(body, &whole), WHOLE_SCORE));
    }
    queries.extend(phrase_query(body, word.prefix_terms()).map(|query| (query, PREFIX_SCORE)));
    queries.extend(phrase_query(body, word.substring_terms()).map(|query| (query, SUBSTRING_SCORE)));
    if fuzzy && word.max_typos() > 0 {
        let query = SimilarWordQuery::new(body, word.chars(), word.max_typos());
        queries.push((Box::new(query), FUZZY_SCORE));
    }
    queries
}

/// Finds the messages that any of the queries finds, with the score of the best one.
fn best_of(mut queries: Vec<ScoredQuery>) -> Box<dyn Query> {
    match (queries.pop(), queries.is_empty()) {
        (Some((query, score)), true) => with_score(query, score),
        (last, _) => Box::new(BestMatchQuery::new(queries.into_iter().chain(last))),
    }
}

/// Finds terms at fixed distances from each other. `None` if there are no terms.
fn phrase_query(body: Field, mut terms: Vec<PositionedTerm>) -> Option<Box<dyn Query>> {
    if terms.len() < 2 {
        return terms.pop().map(|(_, term)| term_query(body, &term));
    }
    let terms =
        terms.into_iter().map(|(offset, term)| (offset, Term::from_field_text(body, &term))).collect();
    Some(Box::new(PhraseQuery::new_with_offset(terms)))
}

fn term_query(body: Field, term: &str) -> Box<dyn Query> {
    Box::new(TermQuery::new(Term::from_field_text(body, term), IndexRecordOption::Basic))
}

fn with_score(query: Box<dyn Query>, score: u16) -> Box<dyn Query> {
    Box::new(ConstScoreQuery::new(query, f32::from(score)))
}
