//! From clauses to a tantivy query whose scores are small whole numbers.

use tantivy::Term;
use tantivy::query::{
    BooleanQuery, ConstScoreQuery, DisjunctionMaxQuery, FuzzyTermQuery, Occur, PhraseQuery, Query, TermQuery,
};
use tantivy::schema::{Field, IndexRecordOption};

use super::Scope;
use super::clauses::{Clause, QueryWord};
use super::schema::Fields;
use super::terms::Placed;

// What a word of the query adds to a message's score, by its best match there. A message's score is the sum.
const WHOLE: u16 = 8;
const START: u16 = 4;
const INSIDE: u16 = 2;
const TYPO: u16 = 1;

/// The query that finds what holds every clause; `None` where there is no clause, which finds nothing.
pub(super) fn plan(
    fields: &Fields,
    scope: &Scope,
    clauses: &[Clause],
    fuzzy: bool,
) -> Option<Box<dyn Query>> {
    if clauses.is_empty() {
        return None;
    }
    let scope = TermQuery::new(fields.scope_term(scope), IndexRecordOption::Basic);
    let mut musts = vec![(Occur::Must, scored(Box::new(scope), 0))];
    for clause in clauses {
        let query = match clause {
            Clause::Word(word) => any_way(fields.body, word, fuzzy),
            Clause::Phrase(phrase) => {
                let words = u16::try_from(phrase.len()).unwrap_or(u16::MAX);
                scored(adjacent(fields.body, phrase.terms())?, WHOLE.saturating_mul(words))
            }
        };
        musts.push((Occur::Must, query));
    }
    Some(Box::new(BooleanQuery::new(musts)))
}

/// Finds a word in each way it may match; the best way counts.
fn any_way(body: Field, word: &QueryWord, fuzzy: bool) -> Box<dyn Query> {
    let mut ways = Vec::new();
    if let Some(whole) = word.whole() {
        ways.push(scored(one(body, &whole), WHOLE));
    }
    ways.extend(adjacent(body, word.starting()).map(|query| scored(query, START)));
    ways.extend(adjacent(body, word.inside()).map(|query| scored(query, INSIDE)));
    if fuzzy
        && word.typos() > 0
        && let Some(whole) = word.whole()
    {
        // Only whole-word terms are within reach: what starts otherwise is at most three characters long.
        let query = FuzzyTermQuery::new(Term::from_field_text(body, &whole), word.typos(), true);
        ways.push(scored(Box::new(query), TYPO));
    }
    Box::new(DisjunctionMaxQuery::new(ways))
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
