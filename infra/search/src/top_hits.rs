//! The top-hits collector: finds the hits of a page, in the requested order, and counts matches up to a bound.

use std::cmp::Reverse;
use std::ops::RangeInclusive;

use chat_domain::{Position, Timestamp};
use tantivy::columnar::Column;
use tantivy::query::{EnableScoring, Query, Weight};
use tantivy::{
    COLLECT_BLOCK_BUFFER_LEN, DocAddress, DocId, DocSet, Score, Searcher, SegmentOrdinal, SegmentReader,
};

use chat_ports::search_index::{SearchCursor, SearchRequest, Sort, Total};

use crate::tail::{Mask, TailMessage, TailScan};

/// The columns of a segment that sorting and filtering read.
#[derive(Clone, Debug)]
pub(crate) struct SortColumns {
    positions: Column<u64>,
    created_at: Column<i64>,
}

impl SortColumns {
    /// Opens the columns of a segment. They never change.
    pub fn open(reader: &SegmentReader) -> tantivy::Result<Self> {
        let fast = reader.fast_fields();
        Ok(Self {
            positions: fast.u64(crate::schema::POSITION)?,
            created_at: fast.i64(crate::schema::CREATED_AT)?,
        })
    }

    fn position(&self, doc: DocId) -> u64 {
        self.positions.first(doc).unwrap_or_default()
    }
}

/// The page to collect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageRequest {
    limit: usize,
    sort: Sort,
    /// The inclusive range of creation times, in milliseconds; `None` for all.
    created_range: Option<(i64, i64)>,
    /// The rank after which the page starts.
    after: Option<Rank>,
    /// The highest possible score, if matches are scored while they are collected.
    highest_score: Option<u64>,
    /// The number up to which matches are counted.
    count_up_to: u64,
}

/// The sort key of a match; smaller ones come first. Consists of the score (a higher one makes a smaller rank), which
/// is 0 unless the sort is by relevance, and of the position, counted down from `u64::MAX` where newer matches come
/// first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank(Reverse<u64>, u64);

/// The location of a match's document.
#[derive(Clone, Copy, Debug)]
pub(crate) enum MatchedDocument<'a> {
    /// In the snapshot.
    Stored(DocAddress),
    /// In the tail.
    InTail(&'a TailMessage),
}

/// A match and the values that it is sorted by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Match<'a> {
    /// Its document.
    pub document: MatchedDocument<'a>,
    /// Its score; 0 if not scored yet (see [`score_matches`]).
    pub score: u64,
    /// The position of its creation in the log.
    pub position: Position,
}

/// The collected page.
#[derive(Debug)]
pub(crate) struct TopHits<'a> {
    /// The matches on the page, in order.
    pub matches: Vec<Match<'a>>,
    /// The number of matches on all pages.
    pub total: Total,
    /// Whether there are matches after this page.
    pub has_more: bool,
}

impl PageRequest {
    /// The page of a search.
    pub fn from_request(request: &SearchRequest) -> Self {
        let bounded = request.created_from.is_some() || request.created_until.is_some();
        let from = request.created_from.map_or(i64::MIN, Timestamp::millis);
        let to = request.created_until.map_or(i64::MAX, Timestamp::millis);
        Self {
            limit: request.limit,
            sort: request.sort,
            created_range: bounded.then_some((from, to)),
            after: request
                .cursor
                .map(|SearchCursor { score, position }| Rank::new(request.sort, score, position.get())),
            highest_score: None,
            count_up_to: request.count_up_to,
        }
    }

    /// A page of the oldest matches. The matches on all pages are counted, without a bound.
    pub fn oldest(limit: usize) -> Self {
        let (sort, count_up_to) = (Sort::Oldest, u64::MAX);
        Self { limit, sort, created_range: None, after: None, highest_score: None, count_up_to }
    }

    /// A page of the oldest matches after a position.
    pub fn oldest_after(position: Position, limit: usize) -> Self {
        Self { after: Some(Rank::new(Sort::Oldest, 0, position.get())), ..Self::oldest(limit) }
    }

    /// The same page, with matches scored while they are collected. No match scores above `highest`.
    pub fn with_scores(self, highest: u64) -> Self {
        Self { highest_score: Some(highest), ..self }
    }

    /// The number of matches to keep: one more than the page has, to detect whether there is another page.
    fn capacity(&self) -> usize {
        self.limit.saturating_add(1)
    }

    /// The range of ranks that a segment's documents can have, from the positions in it and the highest score.
    fn rank_range(&self, columns: &SortColumns) -> RangeInclusive<Rank> {
        let (lowest, highest) = (columns.positions.min_value(), columns.positions.max_value());
        let (first, last) = match self.sort {
            Sort::Relevance | Sort::Newest => (highest, lowest),
            Sort::Oldest => (lowest, highest),
        };
        let best_score = self.highest_score.unwrap_or_default();
        Rank::new(self.sort, best_score, first)..=Rank::new(self.sort, 0, last)
    }
}

impl Rank {
    fn new(sort: Sort, score: u64, position: u64) -> Self {
        match sort {
            Sort::Relevance => Self(Reverse(score), u64::MAX - position),
            Sort::Newest => Self(Reverse(0), u64::MAX - position),
            Sort::Oldest => Self(Reverse(0), position),
        }
    }
}

/// Collects a page of a query's matches, given the columns of each segment and the tail that the snapshot lacks.
/// Positions are unique, so there are no ties.
///
/// Visits segments in the order of their best possible rank. If no document of a segment can be on the page, because
/// the page is full of better ones or the cursor is past all of them, the segment's matches are merely counted. Once
/// enough matches are counted, such a segment is skipped. Most of a large index is old and most pages are of new
/// messages, so this saves most of the work.
pub(crate) fn collect_top_hits<'a>(
    searcher: &Searcher,
    columns: &[SortColumns],
    query: &dyn Query,
    page: PageRequest,
    tail: Option<&'a TailScan<'_>>,
) -> tantivy::Result<TopHits<'a>> {
    let scoring = if page.highest_score.is_some() {
        EnableScoring::enabled_from_searcher(searcher)
    } else {
        EnableScoring::disabled_from_searcher(searcher)
    };
    let weight = query.weight(scoring)?;
    let mut segments: Vec<_> = (0..).zip(columns).collect();
    segments.sort_by_cached_key(|(_, columns)| *page.rank_range(columns).start());
    let mask = tail.map(TailScan::mask);
    let mut collector = TopHitsCollector { page, mask, matches: Vec::new(), cutoff: None, total: 0 };
    // Most messages of the tail are newer than all messages of the snapshot.
    let (tail_first, tail_last) = if page.sort == Sort::Oldest { (None, tail) } else { (tail, None) };
    if let Some(tail) = tail_first {
        collector.collect_tail(tail);
    }
    for (segment, columns) in segments {
        collector.collect_segment(weight.as_ref(), segment, searcher.segment_reader(segment), columns)?;
        collector.prune();
    }
    if let Some(tail) = tail_last {
        collector.collect_tail(tail);
    }
    Ok(collector.into_top_hits())
}

/// The best matches so far.
struct TopHitsCollector<'a> {
    page: PageRequest,
    /// The messages of the snapshot that the tail hides.
    mask: Option<Mask>,
    /// The matches that are kept: up to twice the capacity of the page, so that pruning is rare.
    matches: Vec<(Rank, Match<'a>)>,
    /// The rank of the worst match that the latest pruning kept; `None` until there are enough matches to prune.
    /// Matches that rank after it are dropped at once.
    cutoff: Option<Rank>,
    /// The number of matches seen.
    total: u64,
}

impl<'a> TopHitsCollector<'a> {
    /// Collects the matches of the tail. Once enough matches are counted, skips those that can't be on the page.
    fn collect_tail(&mut self, tail: &'a TailScan<'_>) {
        for candidate in tail.candidates() {
            let position = candidate.created_position();
            let best_score = self.page.highest_score.unwrap_or_default();
            if self.has_counted_enough()
                && self.is_beyond_cutoff(Rank::new(self.page.sort, best_score, position.get()))
            {
                continue;
            }
            let message = candidate.message();
            if self.is_in_time_range(message.document.created_at.millis())
                && let Some(score) = candidate.score()
            {
                self.collect(Match { document: MatchedDocument::InTail(message), score, position });
            }
        }
        self.prune();
    }

    fn collect_segment(
        &mut self,
        weight: &dyn Weight,
        segment: SegmentOrdinal,
        reader: &SegmentReader,
        columns: &SortColumns,
    ) -> tantivy::Result<()> {
        let alive = reader.alive_bitset();
        if !self.can_be_on_page(columns) {
            if self.has_counted_enough() {
                return Ok(());
            }
            // With a time range, the time of each match has to be read to count it.
            if self.page.created_range.is_none() {
                return self.count_segment(weight, reader, columns);
            }
        }
        let scored = self.page.highest_score.is_some();
        let mut visit = |doc: DocId, score: Score| {
            if alive.is_none_or(|alive| alive.is_alive(doc)) {
                self.collect_doc(DocAddress::new(segment, doc), columns, score);
            }
        };
        if scored {
            weight.for_each(reader, &mut visit)
        } else {
            weight.for_each_no_score(reader, &mut |docs| docs.iter().for_each(|doc| visit(*doc, 0.0)))
        }
    }

    /// Counts matches until there are enough. tantivy's `Weight::count` would count all.
    fn count_segment(
        &mut self,
        weight: &dyn Weight,
        reader: &SegmentReader,
        columns: &SortColumns,
    ) -> tantivy::Result<()> {
        let alive = reader.alive_bitset();
        let (first, last) = (columns.positions.min_value(), columns.positions.max_value());
        let mask = self.mask.as_ref().filter(|mask| mask.hides_within(first, last));
        let mut matches = weight.scorer(reader, 1.0)?;
        let mut block = [0; COLLECT_BLOCK_BUFFER_LEN];
        while !self.has_counted_enough() {
            let filled = matches.fill_buffer(&mut block);
            let docs = &block[..filled];
            if docs.is_empty() {
                break;
            }
            let is_visible = |doc: &&DocId| {
                alive.is_none_or(|alive| alive.is_alive(**doc))
                    && mask.is_none_or(|mask| !mask.hides(columns.position(**doc)))
            };
            let counted = if alive.is_none() && mask.is_none() {
                docs.len()
            } else {
                docs.iter().filter(is_visible).count()
            };
            self.total += counted as u64;
        }
        Ok(())
    }

    /// Whether more than `count_up_to` matches are counted. Further ones need not be counted then.
    fn has_counted_enough(&self) -> bool {
        self.total > self.page.count_up_to
    }

    /// Whether a document of a segment can be on this page.
    fn can_be_on_page(&self, columns: &SortColumns) -> bool {
        let ranks = self.page.rank_range(columns);
        !self.is_beyond_cutoff(*ranks.start()) && self.page.after.is_none_or(|after| *ranks.end() > after)
    }

    fn collect_doc(&mut self, address: DocAddress, columns: &SortColumns, score: Score) {
        if self.page.created_range.is_some()
            && !self.is_in_time_range(columns.created_at.first(address.doc_id).unwrap_or_default())
        {
            return;
        }
        let position = columns.position(address.doc_id);
        if self.mask.as_ref().is_some_and(|mask| mask.hides(position)) {
            return;
        }
        let document = MatchedDocument::Stored(address);
        self.collect(Match { document, score: to_integer_score(score), position: Position::new(position) });
    }

    fn is_in_time_range(&self, millis: i64) -> bool {
        self.page.created_range.is_none_or(|(from, to)| (from..=to).contains(&millis))
    }

    fn collect(&mut self, found: Match<'a>) {
        self.total += 1;
        let rank = Rank::new(self.page.sort, found.score, found.position.get());
        if self.page.after.is_some_and(|after| rank <= after) || self.is_beyond_cutoff(rank) {
            return;
        }
        if self.matches.len() >= self.page.capacity().saturating_mul(2) {
            self.prune();
        }
        self.matches.push((rank, found));
    }

    fn is_beyond_cutoff(&self, rank: Rank) -> bool {
        self.cutoff.is_some_and(|cutoff| cutoff < rank)
    }

    /// Drops all but the best matches.
    fn prune(&mut self) {
        let kept = self.page.capacity();
        if self.matches.len() >= kept {
            let (_, (last_kept, _), _) = self.matches.select_nth_unstable_by_key(kept - 1, |(rank, _)| *rank);
            self.cutoff = Some(*last_kept);
            self.matches.truncate(kept);
        }
    }

    fn into_top_hits(self) -> TopHits<'a> {
        let Self { page, mut matches, total, .. } = self;
        matches.sort_unstable_by_key(|(rank, _)| *rank);
        let has_more = matches.len() > page.limit;
        matches.truncate(page.limit);
        let total =
            if total > page.count_up_to { Total::MoreThan(page.count_up_to) } else { Total::Exactly(total) };
        TopHits { matches: matches.into_iter().map(|(_, found)| found).collect(), total, has_more }
    }
}

/// Scores the matches of the snapshot, which were collected without scores. `query` must find the same documents as the
/// query that collected them.
pub(crate) fn score_matches(
    searcher: &Searcher,
    query: &dyn Query,
    matches: &mut [Match<'_>],
) -> tantivy::Result<()> {
    let weight = query.weight(EnableScoring::enabled_from_searcher(searcher))?;
    let mut by_address: Vec<_> = matches
        .iter_mut()
        .filter_map(|found| match found.document {
            MatchedDocument::Stored(address) => Some((address, found)),
            MatchedDocument::InTail(_) => None,
        })
        .collect();
    by_address.sort_unstable_by_key(|(address, _)| *address);
    for segment_matches in by_address.chunk_by_mut(|(a, _), (b, _)| a.segment_ord == b.segment_ord) {
        let mut scorer = weight.scorer(searcher.segment_reader(segment_matches[0].0.segment_ord), 1.0)?;
        for (address, found) in segment_matches {
            if scorer.doc() < address.doc_id {
                scorer.seek(address.doc_id);
            }
            debug_assert_eq!(scorer.doc(), address.doc_id, "the scoring query does not find a match");
            if scorer.doc() == address.doc_id {
                found.score = to_integer_score(scorer.score());
            }
        }
    }
    Ok(())
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "scores are sums of small whole numbers"
)]
fn to_integer_score(score: Score) -> u64 {
    score.round() as u64
}
