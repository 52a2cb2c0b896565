//! A scan of the tail for one search.

use chat_domain::{AppToken, ChatNumber, Position, SenderId};
use chat_ports::projection_checkpoint::ProjectionCheckpoint;
use chat_ports::search_index::{Scope, SearchRequest};

use super::message::TailMessage;
use super::segment::Row;
use super::{TailSegment, TailView};
use crate::query_matcher::QueryMatcher;
use crate::query_parser::Clause;
use std::sync::Arc;

/// The part of a view that a snapshot lacks, for one search.
pub(crate) struct TailScan<'a> {
    segments: &'a [Arc<TailSegment>],
    /// The position of the view's end.
    to: Position,
    app: AppToken,
    chat: Option<ChatNumber>,
    sender: Option<&'a SenderId>,
    matcher: QueryMatcher,
}

impl<'a> TailScan<'a> {
    /// Prepares a scan of what the snapshot at `checkpoint` lacks. `None` if the snapshot lacks nothing, or the view
    /// does not continue it.
    pub fn new(
        view: &'a TailView,
        checkpoint: ProjectionCheckpoint,
        request: &'a SearchRequest,
        clauses: &[Clause],
    ) -> Option<Self> {
        Some(Self {
            segments: view.after(checkpoint)?,
            to: view.to,
            app: request.scope.app(),
            chat: match request.scope {
                Scope::App(_) => None,
                Scope::Chat(_, chat) => Some(chat),
            },
            sender: request.sender.as_ref(),
            matcher: QueryMatcher::new(clauses, request.fuzzy),
        })
    }

    /// The messages of the snapshot that the tail hides.
    pub fn mask(&self) -> Mask {
        let replaced = self.segments.iter().flat_map(|segment| segment.replaced(self.app));
        let mut replaced: Vec<_> = replaced.map(|position| position.get()).collect();
        replaced.sort_unstable();
        let after = self.segments.first().map_or(u64::MAX, |segment| segment.from.get());
        Mask { after, replaced }
    }

    /// The messages that may match, those of the last batch first.
    pub fn candidates(&self) -> impl Iterator<Item = Candidate<'_>> {
        let rows = self.segments.iter().rev().flat_map(|segment| segment.rows(self.app).iter().rev());
        let rows = rows.filter(|row| {
            self.matcher.may_match(&row.signature) && self.chat.is_none_or(|chat| chat == row.chat)
        });
        rows.map(|row| Candidate { scan: self, row })
    }
}

/// A message that may match.
pub(crate) struct Candidate<'a> {
    scan: &'a TailScan<'a>,
    row: &'a Row,
}

impl<'a> Candidate<'a> {
    /// The position of the message's creation.
    pub fn created_position(&self) -> Position {
        self.row.created_position
    }

    /// The message.
    pub fn message(&self) -> &'a TailMessage {
        &self.row.message
    }

    /// The score, if the message matches.
    pub fn score(&self) -> Option<u64> {
        let message = self.message();
        let sender = message.document.sender.as_ref().map(|sender| &sender.id);
        let is_searched = message.is_current_at(self.scan.to)
            && self.scan.sender.is_none_or(|wanted| sender == Some(wanted));
        if is_searched { self.scan.matcher.score(&message.words) } else { None }
    }
}

/// The messages that are not taken from the snapshot, because the tail has created, changed or deleted them.
pub(crate) struct Mask {
    /// The position after which all creations are in the tail.
    after: u64,
    /// The creation positions of changed and deleted messages, in order.
    replaced: Vec<u64>,
}

impl Mask {
    /// Whether the message that was created at a position is not taken from the snapshot.
    pub fn hides(&self, position: u64) -> bool {
        position > self.after || self.replaced.binary_search(&position).is_ok()
    }

    /// Whether the mask may hide a message that was created within a range of positions.
    pub fn hides_within(&self, first: u64, last: u64) -> bool {
        let next = self.replaced.partition_point(|replaced| *replaced < first);
        last > self.after || self.replaced.get(next).is_some_and(|replaced| *replaced <= last)
    }
}
