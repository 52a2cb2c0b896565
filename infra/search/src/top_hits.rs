//! The hits of a page: the best of all that match, in the order asked for, after the cursor, and how many match.

use std::cmp::Reverse;
use std::ops::RangeInclusive;

use chat_domain::{Position, Timestamp};
use tantivy::columnar::Column;
use tantivy::fastfield::AliveBitSet;
use tantivy::query::{EnableScoring, Query, Weight};
use tantivy::{DocAddress, DocId, DocSet, Score, Searcher, SegmentOrdinal, SegmentReader};

use chat_ports::search_index::{SearchCursor, SearchRequest, Sort};

/// What a page goes by, of each document of a segment.
#[derive(Clone, Debug)]
pub(super) struct SortColumns {
    positions: Column<u64>,
    created_at: Column<i64>,
}

impl SortColumns {
    /// Opens those of a segment. They never change.
    pub fn open(reader: &SegmentReader) -> tantivy::Result<Self> {
        let fast = reader.fast_fields();
        Ok(Self {
            positions: fast.u64(super::schema::POSITION)?,
            created_at: fast.i64(super::schema::CREATED_AT)?,
        })
    }
}

/// Which page.
#[derive(Clone, Copy, Debug)]
pub(super) struct PageRequest {
    limit: usize,
    sort: Sort,
    /// The times, in milliseconds, that a message may be from; `None`: any.
    created_range: Option<(i64, i64)>,
    after: Option<Rank>,
    /// Whether matches are scored as they are found.
    scores_matches: bool,
}

/// A hit's place in the order: smaller comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank(Reverse<u64>, u64);

/// A match: where it is and what the order goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Match {
    /// Where it is stored.
    pub address: DocAddress,
    /// How well it matches; 0 where that was not looked at ([`score`] does).
    pub score: u64,
    /// When it was created, as a position of the log.
    pub position: Position,
}

/// What was collected.
#[derive(Debug, Default)]
pub(super) struct TopHits {
    /// The page, in order.
    pub matches: Vec<Match>,
    /// How many match, whichever page they are on.
    pub total: u64,
    /// Whether there are more after this page.
    pub has_more: bool,
}

impl PageRequest {
    /// The page that a request asks for.
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
            scores_matches: false,
        }
    }

    /// The oldest.
    pub fn oldest(limit: usize) -> Self {
        Self { limit, sort: Sort::Oldest, created_range: None, after: None, scores_matches: false }
    }

    /// The oldest of those after a position.
    pub fn oldest_after(position: Position, limit: usize) -> Self {
        Self { after: Some(Rank::new(Sort::Oldest, 0, position.get())), ..Self::oldest(limit) }
    }

    /// The same, with matches scored as they are found.
    pub fn with_scores(self) -> Self {
        Self { scores_matches: true, ..self }
    }

    /// How many matches are kept: one more than the page has, to know whether there is another page.
    fn capacity(&self) -> usize {
        self.limit.saturating_add(1)
    }

    /// Between which places in the order everything of a segment is, by the positions that it holds. By relevance, that
    /// says nothing.
    fn rank_range(&self, columns: &SortColumns) -> Option<RangeInclusive<Rank>> {
        let (lowest, highest) = (columns.positions.min_value(), columns.positions.max_value());
        let (first, last) = match self.sort {
            Sort::Relevance => return None,
            Sort::Newest => (highest, lowest),
            Sort::Oldest => (lowest, highest),
        };
        Some(Rank::new(self.sort, 0, first)..=Rank::new(self.sort, 0, last))
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

/// Collects the page of what a query finds, given the columns of each segment. Scores are whole numbers and positions are
/// unique, so the order has no ties.
///
/// Segments come in the order of the best that they can have. Where nothing of a segment can be on the page, since the page
/// is full of better ones by then or comes after all of them, what matches is counted and not looked at: of a large index
/// most is old, and pages are of what is new.
pub(super) fn collect_top_hits(
    searcher: &Searcher,
    columns: &[SortColumns],
    query: &dyn Query,
    page: PageRequest,
) -> tantivy::Result<TopHits> {
    let scoring = if page.scores_matches {
        EnableScoring::enabled_from_searcher(searcher)
    } else {
        EnableScoring::disabled_from_searcher(searcher)
    };
    let weight = query.weight(scoring)?;
    let mut segments: Vec<_> = (0..).zip(columns).collect();
    segments.sort_by_cached_key(|(_, columns)| page.rank_range(columns).map(|span| *span.start()));
    let mut best = TopHitsCollector { page, matches: Vec::new(), worst: None, total: 0 };
    for (segment, columns) in segments {
        best.collect_segment(weight.as_ref(), segment, searcher.segment_reader(segment), columns)?;
        best.prune();
    }
    Ok(best.into_top_hits())
}

/// The best so far.
struct TopHitsCollector {
    page: PageRequest,
    /// Up to twice as many as are kept.
    matches: Vec<(Rank, Match)>,
    /// Once there are as many as are kept: the worst of those that are. What is worse need not be looked at.
    worst: Option<Rank>,
    /// How many match, good or bad.
    total: u64,
}

impl TopHitsCollector {
    fn collect_segment(
        &mut self,
        weight: &dyn Weight,
        segment: SegmentOrdinal,
        reader: &SegmentReader,
        columns: &SortColumns,
    ) -> tantivy::Result<()> {
        let alive = reader.alive_bitset();
        if self.can_skip_segment(columns) {
            // tantivy's own way to count looks at more where a scope is a part of a segment.
            return weight.for_each_no_score(reader, &mut |docs| {
                let count = |alive: &AliveBitSet| docs.iter().filter(|doc| alive.is_alive(**doc)).count();
                self.total += alive.map_or(docs.len(), count) as u64;
            });
        }
        let scored = self.page.scores_matches;
        let mut look = |doc: DocId, score: Score| {
            if alive.is_none_or(|alive| alive.is_alive(doc)) {
                self.collect_doc(DocAddress::new(segment, doc), columns, score);
            }
        };
        if scored {
            weight.for_each(reader, &mut look)
        } else {
            weight.for_each_no_score(reader, &mut |docs| docs.iter().for_each(|doc| look(*doc, 0.0)))
        }
    }

    /// Whether nothing of a segment is on this page, whatever matches. Where a search is bounded in time, each match has to
    /// be asked for its own, on whatever page it is.
    fn can_skip_segment(&self, columns: &SortColumns) -> bool {
        self.page.created_range.is_none()
            && self.page.rank_range(columns).is_some_and(|span| {
                self.is_below_worst(*span.start())
                    || self.page.after.is_some_and(|after| *span.end() <= after)
            })
    }

    fn collect_doc(&mut self, address: DocAddress, columns: &SortColumns, score: Score) {
        if let Some((from, to)) = self.page.created_range {
            let time = columns.created_at.first(address.doc_id).unwrap_or_default();
            if time < from || time > to {
                return;
            }
        }
        self.total += 1;
        let position = columns.positions.first(address.doc_id).unwrap_or_default();
        let score = to_integer_score(score);
        let rank = Rank::new(self.page.sort, score, position);
        if self.page.after.is_some_and(|after| rank <= after) || self.is_below_worst(rank) {
            return;
        }
        if self.matches.len() >= self.page.capacity().saturating_mul(2) {
            self.prune();
        }
        self.matches.push((rank, Match { address, score, position: Position::new(position) }));
    }

    fn is_below_worst(&self, rank: Rank) -> bool {
        self.worst.is_some_and(|worst| worst < rank)
    }

    /// Drops all but the best that are kept.
    fn prune(&mut self) {
        let kept = self.page.capacity();
        if self.matches.len() >= kept {
            let (_, (worst, _), _) = self.matches.select_nth_unstable_by_key(kept - 1, |(rank, _)| *rank);
            self.worst = Some(*worst);
            self.matches.truncate(kept);
        }
    }

    fn into_top_hits(self) -> TopHits {
        let Self { page, mut matches, total, .. } = self;
        matches.sort_unstable_by_key(|(rank, _)| *rank);
        let more = matches.len() > page.limit;
        matches.truncate(page.limit);
        TopHits { matches: matches.into_iter().map(|(_, found)| found).collect(), total, has_more: more }
    }
}

/// Scores matches that were found without it, by a query that finds the same.
pub(super) fn score_matches(
    searcher: &Searcher,
    query: &dyn Query,
    matches: &mut [Match],
) -> tantivy::Result<()> {
    let weight = query.weight(EnableScoring::enabled_from_searcher(searcher))?;
    let mut by_address: Vec<_> = matches.iter_mut().collect();
    by_address.sort_unstable_by_key(|found| found.address);
    for of_a_segment in by_address.chunk_by_mut(|a, b| a.address.segment_ord == b.address.segment_ord) {
        let mut scorer = weight.scorer(searcher.segment_reader(of_a_segment[0].address.segment_ord), 1.0)?;
        for found in of_a_segment {
            if scorer.doc() < found.address.doc_id {
                scorer.seek(found.address.doc_id);
            }
            debug_assert_eq!(scorer.doc(), found.address.doc_id, "both queries find the same");
            if scorer.doc() == found.address.doc_id {
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
