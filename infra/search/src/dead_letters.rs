//! Lists and counts the dead letters of the index.

use std::collections::HashSet;

use chat_domain::Position;
use chat_ports::dead_letter::{
    DeadLetter, DeadLetterCounts, DeadLetterFilter, DeadLetterPage, DeadLetterQuery, ListedDeadLetter,
};
use chat_ports::search_index::SearchError;
use tantivy::Term;
use tantivy::query::TermQuery;
use tantivy::schema::IndexRecordOption;

use crate::documents::{DeadLetterTag, StoredDocument};
use crate::index::{Snapshot, TantivyIndex};
use crate::top_hits::PageRequest;

impl TantivyIndex {
    /// The streams that have a pending dead letter, and the position of the snapshot.
    pub fn blocked_streams(&self) -> Result<(Position, HashSet<String>), SearchError> {
        let snapshot = self.snapshot();
        let find = |page| self.find_dead_letters(&snapshot, DeadLetterTag::Pending, None, page);
        let (_, count) = find(PageRequest::oldest(0))?;
        let (dead_letters, _) = find(PageRequest::oldest(usize::try_from(count).unwrap_or(usize::MAX)))?;
        let streams = dead_letters.into_iter().map(|dead_letter| dead_letter.stream).collect();
        Ok((snapshot.checkpoint.position, streams))
    }

    /// The first `limit` pending dead letters by position, and the number of all pending ones.
    pub fn dead_letters(&self, limit: usize) -> Result<(Vec<DeadLetter>, u64), SearchError> {
        self.find_dead_letters(&self.snapshot(), DeadLetterTag::Pending, None, PageRequest::oldest(limit))
    }

    /// The first `limit` pending dead letters of a stream, by position.
    pub fn dead_letters_of_stream(&self, stream: &str, limit: usize) -> Result<Vec<DeadLetter>, SearchError> {
        let page = PageRequest::oldest(limit);
        Ok(self.find_dead_letters(&self.snapshot(), DeadLetterTag::Pending, Some(stream), page)?.0)
    }

    /// The dead letter of the event at a position.
    pub fn dead_letter(&self, position: Position) -> Result<Option<DeadLetter>, SearchError> {
        let snapshot = self.snapshot();
        let query = TermQuery::new(self.fields().dead_letter_key_term(position), IndexRecordOption::Basic);
        let top_hits = snapshot.collect_page(&query, PageRequest::oldest(1), None)?;
        let Some(found) = top_hits.matches.first() else { return Ok(None) };
        match snapshot.read_document(self.fields(), found.document)? {
            StoredDocument::DeadLetter(dead_letter) => Ok(Some(dead_letter)),
            StoredDocument::Message(_) => Ok(None),
        }
    }

    /// A page of dead letters, with the counts of all.
    pub fn dead_letter_page(&self, query: &DeadLetterQuery) -> Result<DeadLetterPage, SearchError> {
        let snapshot = self.snapshot();
        let tag = match query.filter {
            DeadLetterFilter::NeedsAttention => DeadLetterTag::NeedsAttention,
            DeadLetterFilter::All => DeadLetterTag::All,
        };
        let page = PageRequest::oldest_after(query.after, query.limit);
        let (found, _) = self.find_dead_letters(&snapshot, tag, query.stream.as_deref(), page)?;
        let mut dead_letters = Vec::with_capacity(found.len());
        for dead_letter in found {
            // Only the first pending dead letter of a stream blocks others.
            let waiting_behind = if dead_letter.needs_attention() && dead_letter.discarded.is_none() {
                let count_only = PageRequest::oldest(0);
                let stream = Some(dead_letter.stream.as_str());
                let (_, pending) =
                    self.find_dead_letters(&snapshot, DeadLetterTag::Pending, stream, count_only)?;
                pending.saturating_sub(1)
            } else {
                0
            };
            dead_letters.push(ListedDeadLetter { dead_letter, waiting_behind });
        }
        let counts = self.count_dead_letters(&snapshot)?;
        Ok(DeadLetterPage { position: snapshot.checkpoint.position, counts, dead_letters })
    }

    /// The numbers of pending dead letters and of discards that are not acknowledged yet.
    pub fn dead_letter_counts(&self) -> Result<DeadLetterCounts, SearchError> {
        self.count_dead_letters(&self.snapshot())
    }

    fn count_dead_letters(&self, snapshot: &Snapshot) -> Result<DeadLetterCounts, SearchError> {
        let count = |tag| Ok(self.find_dead_letters(snapshot, tag, None, PageRequest::oldest(0))?.1);
        Ok(DeadLetterCounts {
            pending: count(DeadLetterTag::Pending)?,
            unacknowledged_discards: count(DeadLetterTag::Discarded)?,
        })
    }

    /// A page of the dead letters that have a tag, of one stream or of all streams, and the number of dead letters on
    /// all pages.
    fn find_dead_letters(
        &self,
        snapshot: &Snapshot,
        tag: DeadLetterTag,
        stream: Option<&str>,
        page: PageRequest,
    ) -> Result<(Vec<DeadLetter>, u64), SearchError> {
        let term = Term::from_field_text(self.fields().dead_letter_tags, &tag.term_text(stream));
        let top_hits = snapshot.collect_page(&TermQuery::new(term, IndexRecordOption::Basic), page, None)?;
        let mut dead_letters = Vec::with_capacity(top_hits.matches.len());
        for found in top_hits.matches {
            if let StoredDocument::DeadLetter(dead_letter) =
                snapshot.read_document(self.fields(), found.document)?
            {
                dead_letters.push(dead_letter);
            }
        }
        Ok((dead_letters, top_hits.total.count()))
    }
}
