//! From clauses to tantivy queries whose scores are small whole numbers.

use tantivy::Term;
use tantivy::query::{BooleanQuery, ConstScoreQuery, FuzzyTermQuery, Occur, PhraseQuery, Query, TermQuery};
use tantivy::schema::{Field, IndexRecordOption};

use super::best_match_query::BestMatchQuery;
use super::query_parser::{Clause, QueryWord};
use super::schema::Fields;
use super::terms::PositionedTerm;
use chat_ports::search_index::{SearchRequest, Sort};

// What a word of the query adds to a message's score, by its best match there. A message's score is the sum.
const WHOLE_SCORE: u16 = 8;
const PREFIX_SCORE: u16 = 4;
const SUBSTRING_SCORE: u16 = 2;
const FUZZY_SCORE: u16 = 1;

/// What finds the messages that hold every clause.
#[derive(Debug)]
pub(super) struct QueryPlan {
    /// Finds them and scores them.
    pub scoring_query: Box<dyn Query>,
    /// Finds the same, and does not say how well it matches: where scores don't decide what is on the page, this looks at
    /// less. `None` where they do, and where typing errors are forgiven, which are dear to look up twice.
    pub matching_query: Option<Box<dyn Query>>,
}

/// How a search is carried out; `None` where there is no clause, which finds nothing.
pub(super) fn plan_query(fields: &Fields, request: &SearchRequest, clauses: &[Clause]) -> Option<QueryPlan> {
    if clauses.is_empty() {
        return None;
    }
    let scope = TermQuery::new(fields.scope_term(&request.scope), IndexRecordOption::Basic);
    let defers_scoring = request.sort != Sort::Relevance && !request.fuzzy;
    let mut found: Option<Vec<Box<dyn Query>>> = defers_scoring.then(|| vec![Box::new(scope.clone()) as _]);
    let mut scoring = vec![with_score(Box::new(scope), 0)];
    for clause in clauses {
        match clause {
            Clause::Word(word) => {
                let ways = match_kind_queries(fields.body, word, request.fuzzy);
                if let (Some(found), Some((widest, _))) = (&mut found, ways.last()) {
                    found.push(widest.box_clone());
                }
                scoring.push(best_of(ways));
            }
            Clause::Phrase(phrase) => {
                let query = phrase_query(fields.body, phrase.terms())?;
                let words = u16::try_from(phrase.len()).unwrap_or(u16::MAX);
                if let Some(found) = &mut found {
                    found.push(query.box_clone());
                }
                scoring.push(with_score(query, WHOLE_SCORE.saturating_mul(words)));
            }
        }
    }
    Some(QueryPlan { scoring_query: all_of(scoring), matching_query: found.map(all_of) })
}

fn all_of(queries: Vec<Box<dyn Query>>) -> Box<dyn Query> {
    Box::new(BooleanQuery::new(queries.into_iter().map(|query| (Occur::Must, query)).collect()))
}

/// A way to find a word, and what it scores.
type ScoredQuery = (Box<dyn Query>, u16);

/// Each way a word may match, the narrowest first: a whole word starts with itself, and what starts with a word holds it. So
/// the last finds all, but for words with a typing error, which come after it where they are forgiven.
fn match_kind_queries(body: Field, word: &QueryWord, fuzzy: bool) -> Vec<ScoredQuery> {
    let mut ways = Vec::new();
    if let Some(whole) = word.whole_word_term() {
        ways.push((term_query(body, &whole), WHOLE_SCORE));
    }
    ways.extend(phrase_query(body, word.starting()).map(|query| (query, PREFIX_SCORE)));
    ways.extend(phrase_query(body, word.substring_terms()).map(|query| (query, SUBSTRING_SCORE)));
    if fuzzy
        && word.max_typos() > 0
        && let Some(whole) = word.whole_word_term()
    {
        // Only whole-word terms are within reach: what starts otherwise is at most three characters long.
        let query = FuzzyTermQuery::new(Term::from_field_text(body, &whole), word.max_typos(), true);
        ways.push((Box::new(query), FUZZY_SCORE));
    }
    ways
}

/// Finds a word in any of these ways; the best way counts.
fn best_of(mut ways: Vec<ScoredQuery>) -> Box<dyn Query> {
    match (ways.pop(), ways.is_empty()) {
        (Some((way, score)), true) => with_score(way, score),
        (last, _) => Box::new(BestMatchQuery::new(ways.into_iter().chain(last))),
    }
}

/// Finds terms at their places relative to each other.
fn phrase_query(body: Field, mut terms: Vec<PositionedTerm>) -> Option<Box<dyn Query>> {
    if terms.len() < 2 {
        return terms.pop().map(|(_, term)| term_query(body, &term));
    }
    let terms = terms.into_iter().map(|(at, term)| (at, Term::from_field_text(body, &term))).collect();
    Some(Box::new(PhraseQuery::new_with_offset(terms)))
}

fn term_query(body: Field, term: &str) -> Box<dyn Query> {
    Box::new(TermQuery::new(Term::from_field_text(body, term), IndexRecordOption::Basic))
}

fn with_score(query: Box<dyn Query>, score: u16) -> Box<dyn Query> {
    Box::new(ConstScoreQuery::new(query, f32::from(score)))
}
