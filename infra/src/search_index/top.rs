//! The hits of a page: the best of all that match, in the order asked for, after the cursor, and how many match.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use chat_domain::{Position, Timestamp};
use tantivy::collector::{Collector, SegmentCollector};
use tantivy::columnar::Column;
use tantivy::{DocAddress, DocId, Score, SegmentOrdinal, SegmentReader};

use super::{SearchCursor, SearchRequest, Sort};

/// Collects a page. Scores are whole numbers and positions are unique, so the order has no ties.
#[derive(Clone, Copy, Debug)]
pub(super) struct TopHits {
    limit: usize,
    sort: Sort,
    from: i64,
    to: i64,
    after: Option<Rank>,
}

/// A hit's place in the order: smaller comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank(Reverse<u64>, u64);

/// A match: where it is and what the order goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Match {
    /// Where it is stored.
    pub address: DocAddress,
    /// How well it matches.
    pub score: u64,
    /// When it was created, as a position of the log.
    pub position: Position,
}

/// What was collected.
#[derive(Debug, Default)]
pub(super) struct Top {
    /// The page, in order.
    pub matches: Vec<Match>,
    /// How many match, whichever page they are on.
    pub total: u64,
    /// Whether there are more after this page.
    pub more: bool,
}

impl TopHits {
    /// The page that a request asks for.
    pub fn of(request: &SearchRequest) -> Self {
        Self {
            limit: request.limit,
            sort: request.sort,
            from: request.from.map_or(i64::MIN, Timestamp::millis),
            to: request.to.map_or(i64::MAX, Timestamp::millis),
            after: request
                .cursor
                .map(|SearchCursor { score, position }| Rank::of(request.sort, score, position.get())),
        }
    }

    /// The oldest, whatever they score.
    pub fn oldest(limit: usize) -> Self {
        Self { limit, sort: Sort::Oldest, from: i64::MIN, to: i64::MAX, after: None }
    }

    /// The oldest of those after a position.
    pub fn oldest_after(position: Position, limit: usize) -> Self {
        Self { after: Some(Rank::of(Sort::Oldest, 0, position.get())), ..Self::oldest(limit) }
    }
}

impl Rank {
    fn of(sort: Sort, score: u64, position: u64) -> Self {
        match sort {
            Sort::Relevance => Self(Reverse(score), u64::MAX - position),
            Sort::Newest => Self(Reverse(0), u64::MAX - position),
            Sort::Oldest => Self(Reverse(0), position),
        }
    }
}

impl Collector for TopHits {
    type Fruit = Top;
    type Child = SegmentTop;

    fn for_segment(&self, segment: SegmentOrdinal, reader: &SegmentReader) -> tantivy::Result<SegmentTop> {
        let fast = reader.fast_fields();
        Ok(SegmentTop {
            page: *self,
            segment,
            positions: fast.u64(super::schema::POSITION)?,
            times: fast.i64(super::schema::CREATED_AT)?,
            best: BinaryHeap::new(),
            total: 0,
        })
    }

    fn requires_scoring(&self) -> bool {
        true
    }

    fn merge_fruits(&self, segments: Vec<(Vec<(Rank, Match)>, u64)>) -> tantivy::Result<Top> {
        let total = segments.iter().map(|(_, total)| total).sum();
        let mut best: Vec<_> = segments.into_iter().flat_map(|(best, _)| best).collect();
        best.sort_unstable_by_key(|(rank, _)| *rank);
        let more = best.len() > self.limit;
        best.truncate(self.limit);
        Ok(Top { matches: best.into_iter().map(|(_, found)| found).collect(), total, more })
    }
}

/// Collects from one segment.
pub(super) struct SegmentTop {
    page: TopHits,
    segment: SegmentOrdinal,
    positions: Column<u64>,
    times: Column<i64>,
    /// The best so far, the worst of them on top; one more than the page, to know whether there is another page.
    best: BinaryHeap<Ranked>,
    total: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Ranked(Rank, Match);

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl SegmentCollector for SegmentTop {
    type Fruit = (Vec<(Rank, Match)>, u64);

    fn collect(&mut self, doc: DocId, score: Score) {
        let time = self.times.first(doc).unwrap_or_default();
        if time < self.page.from || time > self.page.to {
            return;
        }
        self.total += 1;
        let position = self.positions.first(doc).unwrap_or_default();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "scores are sums of small whole numbers"
        )]
        let score = score.round() as u64;
        let rank = Rank::of(self.page.sort, score, position);
        if self.page.after.is_some_and(|after| rank <= after) {
            return;
        }
        let full = self.best.len() > self.page.limit;
        if full && self.best.peek().is_some_and(|worst| worst.0 <= rank) {
            return;
        }
        if full {
            self.best.pop();
        }
        let address = DocAddress::new(self.segment, doc);
        self.best.push(Ranked(rank, Match { address, score, position: Position::new(position) }));
    }

    fn harvest(self) -> Self::Fruit {
        (self.best.into_iter().map(|Ranked(rank, found)| (rank, found)).collect(), self.total)
    }
}
