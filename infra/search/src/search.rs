//! Searches one snapshot of the index together with the tail that continues it.

use std::sync::Arc;

use chat_domain::Position;
use chat_ports::MAX_PAGE_BYTES;
use chat_ports::search_index::{Hit, SearchCursor, SearchError, SearchPage, SearchRequest};

use crate::documents::StoredDocument;
use crate::error::classify_error;
use crate::index::{Snapshot, TantivyIndex};
use crate::query_parser::parse_query;
use crate::query_plan::{QueryPlan, plan_query};
use crate::schema::Fields;
use crate::snippet::build_snippet;
use crate::tail::{Tail, TailScan, TailView};
use crate::top_hits::{self, PageRequest, TopHits};

/// The state that a search is answered from: a snapshot and a view of the tail.
pub(crate) struct SearchState {
    fields: Fields,
    /// The view of the tail. Not used if it does not continue the snapshot.
    view: Option<Arc<TailView>>,
    snapshot: Arc<Snapshot>,
}

impl TantivyIndex {
    /// Finds messages in the current snapshot. A query without a word finds none.
    pub fn search(&self, request: &SearchRequest) -> Result<SearchPage, SearchError> {
        SearchState { fields: *self.fields(), view: None, snapshot: self.snapshot() }.search(request)
    }

    /// The current snapshot and the current tail.
    pub(crate) fn state_with_tail(&self, tail: &Tail) -> SearchState {
        // The view must be taken before the snapshot: see `Tail::view`.
        let view = tail.view();
        SearchState { fields: *self.fields(), view, snapshot: self.snapshot() }
    }
}

impl SearchState {
    /// The position of answers: the end of the view if it continues the snapshot, otherwise that of the snapshot.
    pub fn position(&self) -> Position {
        let checkpoint = self.snapshot.checkpoint;
        self.view.as_ref().map_or(checkpoint.position, |view| view.position_with(checkpoint))
    }

    /// Finds messages. A query without a word finds none.
    pub fn search(&self, request: &SearchRequest) -> Result<SearchPage, SearchError> {
        let snapshot = &self.snapshot;
        let clauses = parse_query(&request.query);
        let Some(plan) = plan_query(&self.fields, request, &clauses) else {
            return Ok(SearchPage::empty(self.position()));
        };
        let view = self.view.as_ref();
        let tail = view.and_then(|view| TailScan::new(view, snapshot.checkpoint, request, &clauses));
        let top_hits = snapshot.run_plan(&plan, PageRequest::from_request(request), tail.as_ref())?;
        let mut hits = Vec::with_capacity(top_hits.matches.len());
        let mut bytes = 0;
        let mut last = None;
        let mut has_more = top_hits.has_more;
        for found in &top_hits.matches {
            let StoredDocument::Message(document) = snapshot.read_document(&self.fields, found.document)?
            else {
                continue;
            };
            bytes += document.body.len() + document.data.as_ref().map_or(0, |data| data.as_str().len());
            if bytes > MAX_PAGE_BYTES && !hits.is_empty() {
                has_more = true;
                break;
            }
            let snippet = build_snippet(&document.body, &clauses, request.fuzzy);
            hits.push(Hit { document, snippet, score: found.score });
            last = Some(found);
        }
        let last = last.filter(|_| has_more);
        Ok(SearchPage {
            position: self.position(),
            hits,
            total: top_hits.total,
            next: last.map(|last| SearchCursor { score: last.score, position: last.position }),
        })
    }
}

impl Snapshot {
    /// Collects the page of a plan. If the plan has a query that does not score, that query collects the matches, and
    /// only those on the page are scored afterwards. Matches of the tail already have scores.
    fn run_plan<'a>(
        &self,
        plan: &QueryPlan,
        page: PageRequest,
        tail: Option<&'a TailScan<'_>>,
    ) -> Result<TopHits<'a>, SearchError> {
        let Some(matching_query) = &plan.matching_query else {
            let page = page.with_scores(plan.highest_score);
            return self.collect_page(plan.scoring_query.as_ref(), page, tail);
        };
        let mut top_hits = self.collect_page(matching_query.as_ref(), page, tail)?;
        top_hits::score_matches(&self.searcher, plan.scoring_query.as_ref(), &mut top_hits.matches)
            .map_err(classify_error)?;
        Ok(top_hits)
    }
}
