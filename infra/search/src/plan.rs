//! From clauses to tantivy queries whose scores are small whole numbers.

use tantivy::Term;
use tantivy::query::{BooleanQuery, ConstScoreQuery, FuzzyTermQuery, Occur, PhraseQuery, Query, TermQuery};
use tantivy::schema::{Field, IndexRecordOption};

use super::clauses::{Clause, QueryWord};
use super::schema::Fields;
use super::terms::Placed;
use super::ways::Ways;
use chat_ports::search_index::{SearchRequest, Sort};

// What a word of the query adds to a message's score, by its best match there. A message's score is the sum.
const WHOLE: u16 = 8;
const START: u16 = 4;
const INSIDE: u16 = 2;
const TYPO: u16 = 1;

/// What finds the messages that hold every clause.
#[derive(Debug)]
pub(super) struct Plan {
    /// Finds them and scores them.
    pub scored: Box<dyn Query>,
    /// Finds the same, and does not say how well it matches: where scores don't decide what is on the page, this looks at
    /// less. `None` where they do, and where typing errors are forgiven, which are dear to look up twice.
    pub found: Option<Box<dyn Query>>,
}

/// How a search is carried out; `None` where there is no clause, which finds nothing.
pub(super) fn plan(fields: &Fields, request: &SearchRequest, clauses: &[Clause]) -> Option<Plan> {
    if clauses.is_empty() {
        return None;
    }
    let scope = TermQuery::new(fields.scope_term(&request.scope), IndexRecordOption::Basic);
    let found_first = request.sort != Sort::Relevance && !request.fuzzy;
    let mut found: Option<Vec<Box<dyn Query>>> = found_first.then(|| vec![Box::new(scope.clone()) as _]);
    let mut scoring = vec![scored(Box::new(scope), 0)];
    for clause in clauses {
        match clause {
            Clause::Word(word) => {
                let ways = ways(fields.body, word, request.fuzzy);
                if let (Some(found), Some((widest, _))) = (&mut found, ways.last()) {
                    found.push(widest.box_clone());
                }
                scoring.push(any(ways));
            }
            Clause::Phrase(phrase) => {
                let query = adjacent(fields.body, phrase.terms())?;
                let words = u16::try_from(phrase.len()).unwrap_or(u16::MAX);
                if let Some(found) = &mut found {
                    found.push(query.box_clone());
                }
                scoring.push(scored(query, WHOLE.saturating_mul(words)));
            }
        }
    }
    Some(Plan { scored: all(scoring), found: found.map(all) })
}

fn all(queries: Vec<Box<dyn Query>>) -> Box<dyn Query> {
    Box::new(BooleanQuery::new(queries.into_iter().map(|query| (Occur::Must, query)).collect()))
}

/// A way to find a word, and what it scores.
type Way = (Box<dyn Query>, u16);

/// Each way a word may match, the narrowest first: a whole word starts with itself, and what starts with a word holds it. So
/// the last finds all, but for words with a typing error, which come after it where they are forgiven.
fn ways(body: Field, word: &QueryWord, fuzzy: bool) -> Vec<Way> {
    let mut ways = Vec::new();
    if let Some(whole) = word.whole() {
        ways.push((one(body, &whole), WHOLE));
    }
    ways.extend(adjacent(body, word.starting()).map(|query| (query, START)));
    ways.extend(adjacent(body, word.inside()).map(|query| (query, INSIDE)));
    if fuzzy
        && word.typos() > 0
        && let Some(whole) = word.whole()
    {
        // Only whole-word terms are within reach: what starts otherwise is at most three characters long.
        let query = FuzzyTermQuery::new(Term::from_field_text(body, &whole), word.typos(), true);
        ways.push((Box::new(query), TYPO));
    }
    ways
}

/// Finds a word in any of these ways; the best way counts.
fn any(mut ways: Vec<Way>) -> Box<dyn Query> {
    match (ways.pop(), ways.is_empty()) {
        (Some((way, score)), true) => scored(way, score),
        (last, _) => Box::new(Ways::new(ways.into_iter().chain(last))),
    }
}

/// Finds terms at their places relative to each other.
fn adjacent(body: Field, mut terms: Vec<Placed>) -> Option<Box<dyn Query>> {
    if terms.len() < 2 {
        return terms.pop().map(|(_, term)| one(body, &term));
    }
    let terms = terms.into_iter().map(|(at, term)| (at, Term::from_field_text(body, &term))).collect();
    Some(Box::new(PhraseQuery::new_with_offset(terms)))
}

fn one(body: Field, term: &str) -> Box<dyn Query> {
    Box::new(TermQuery::new(Term::from_field_text(body, term), IndexRecordOption::Basic))
}

fn scored(query: Box<dyn Query>, score: u16) -> Box<dyn Query> {
    Box::new(ConstScoreQuery::new(query, f32::from(score)))
}
