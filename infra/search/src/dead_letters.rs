//! Dead letters in the index: their documents, and how they are listed and counted.
//!
//! A dead letter is a document with a key, a position, tags to find it by, and itself as JSON. It has no app and no chat,
//! so that no search finds it.

use chat_domain::{Position, Revision, Timestamp};
use chat_ports::dead_letter::{
    DeadLetter, DeadLetterCounts, DeadLetterFilter, DeadLetterPage, DeadLetterQuery, DiscardRecord,
    ListedDeadLetter,
};
use chat_ports::search_index::SearchError;
use serde::{Deserialize, Serialize};
use tantivy::query::TermQuery;
use tantivy::schema::IndexRecordOption;
use tantivy::{TantivyDocument, Term};

use crate::index::{Snapshot, TantivyIndex};
use crate::schema::{Fields, StoredDocument};
use crate::top_hits::PageRequest;

/// A set of dead letters. Each dead letter is tagged with the sets that it belongs to, alone and together with its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DeadLetterTag {
    /// All dead letters.
    All,
    /// Those that [need attention](DeadLetter::needs_attention).
    NeedsAttention,
    /// Those that are neither applied nor discarded.
    Pending,
    /// Those that were discarded, until the discard is acknowledged.
    Discarded,
}

impl DeadLetterTag {
    const ALL: [Self; 4] = [Self::All, Self::NeedsAttention, Self::Pending, Self::Discarded];

    /// The stored name.
    const fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::NeedsAttention => "standing",
            Self::Pending => "parked",
            Self::Discarded => "discarded",
        }
    }

    fn applies_to(self, dead_letter: &DeadLetter) -> bool {
        match self {
            Self::All => true,
            Self::NeedsAttention => dead_letter.needs_attention(),
            Self::Pending => dead_letter.discarded.is_none(),
            Self::Discarded => dead_letter.discarded.is_some() && dead_letter.needs_attention(),
        }
    }

    /// The tag as a term, of one stream or of all.
    fn term_text(self, stream: Option<&str>) -> String {
        stream.map_or_else(|| self.as_str().to_owned(), |stream| format!("{}/{stream}", self.as_str()))
    }
}

impl TantivyIndex {
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
        let top_hits = snapshot.collect_page(&query, PageRequest::oldest(1))?;
        let Some(found) = top_hits.matches.first() else { return Ok(None) };
        match snapshot.read_document(self.fields(), found.address)? {
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

    /// The numbers of pending and of discarded dead letters.
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

    fn find_dead_letters(
        &self,
        snapshot: &Snapshot,
        tag: DeadLetterTag,
        stream: Option<&str>,
        page: PageRequest,
    ) -> Result<(Vec<DeadLetter>, u64), SearchError> {
        let term = Term::from_field_text(self.fields().dead_letter_tags, &tag.term_text(stream));
        let top_hits = snapshot.collect_page(&TermQuery::new(term, IndexRecordOption::Basic), page)?;
        let mut dead_letters = Vec::with_capacity(top_hits.matches.len());
        for found in top_hits.matches {
            if let StoredDocument::DeadLetter(dead_letter) =
                snapshot.read_document(self.fields(), found.address)?
            {
                dead_letters.push(dead_letter);
            }
        }
        Ok((dead_letters, top_hits.total))
    }
}

#[derive(Serialize, Deserialize)]
struct StoredDeadLetter {
    stream: String,
    revision: u64,
    event_type: String,
    reason: String,
    parked_at: Timestamp,
    discarded: Option<DiscardRecord>,
}

impl Fields {
    /// The term that only the dead letter of the event at a position has.
    pub fn dead_letter_key_term(&self, position: Position) -> Term {
        Term::from_field_text(self.key, &dead_letter_key(position))
    }

    /// Encodes a dead letter.
    pub fn dead_letter_document(
        &self,
        dead_letter: DeadLetter,
    ) -> Result<TantivyDocument, serde_json::Error> {
        let mut stored = TantivyDocument::new();
        stored.add_text(self.key, dead_letter_key(dead_letter.position));
        for tag in DeadLetterTag::ALL.into_iter().filter(|tag| tag.applies_to(&dead_letter)) {
            stored.add_text(self.dead_letter_tags, tag.term_text(None));
            stored.add_text(self.dead_letter_tags, tag.term_text(Some(&dead_letter.stream)));
        }
        stored.add_u64(self.position, dead_letter.position.get());
        let json = serde_json::to_string(&StoredDeadLetter {
            stream: dead_letter.stream,
            revision: dead_letter.revision.get(),
            event_type: dead_letter.event_type,
            reason: dead_letter.reason,
            parked_at: dead_letter.dead_lettered_at,
            discarded: dead_letter.discarded,
        })?;
        stored.add_text(self.dead_letter, json);
        Ok(stored)
    }
}

/// Decodes the JSON of a dead letter.
pub(crate) fn parse_dead_letter(position: Position, json: &str) -> Result<DeadLetter, serde_json::Error> {
    let stored: StoredDeadLetter = serde_json::from_str(json)?;
    Ok(DeadLetter {
        position,
        stream: stored.stream,
        revision: Revision::new(stored.revision),
        event_type: stored.event_type,
        reason: stored.reason,
        dead_lettered_at: stored.parked_at,
        discarded: stored.discarded,
    })
}

/// Differs from the key of every message: no app token is this short.
fn dead_letter_key(position: Position) -> String {
    format!("letter/{position}")
}
