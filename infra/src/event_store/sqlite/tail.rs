//! The end of the log that the file's index of streams does not hold yet.
//!
//! An index over streams and revisions has a page for each busy stream, and an append to it would write one more page
//! for each event: most of what a commit costs. So the latest events are not in it. They are remembered here, by stream,
//! and filed many at a time: a stream's when it is the one that has waited longest, all that it has.
//!
//! Nothing is kept here alone. What is remembered is read from the events themselves where a process starts, or where
//! another process appended.

use std::collections::{HashMap, VecDeque};

use chat_domain::{Position, Revision};

/// An event of a stream, and where it is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) revision: Revision,
    pub(super) position: Position,
}

/// The events that are not filed, by the row of their stream.
#[derive(Debug)]
pub(super) struct Tail {
    /// Every event up to here is either filed or in this tail.
    known: Position,
    streams: HashMap<i64, Vec<Place>>,
    /// The same streams, in the order of their oldest event here.
    oldest_first: VecDeque<i64>,
    len: usize,
}

impl Tail {
    /// A tail after everything that is filed.
    pub(super) fn after(filed: Position) -> Self {
        Self { known: filed, streams: HashMap::new(), oldest_first: VecDeque::new(), len: 0 }
    }

    /// Every event up to here is either filed or in this tail.
    pub(super) fn known(&self) -> Position {
        self.known
    }

    /// How many events are in it.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds an event of this stream. Events come in the order of the log; one that is known already is passed over.
    pub(super) fn add(&mut self, stream: i64, place: Place) {
        if place.position <= self.known {
            return;
        }
        self.known = place.position;
        self.len += 1;
        let places = self.streams.entry(stream).or_default();
        if places.is_empty() {
            self.oldest_first.push_back(stream);
        }
        places.push(place);
    }

    /// The stream's events, in order. The ones before them are filed.
    pub(super) fn of(&self, stream: i64) -> &[Place] {
        self.streams.get(&stream).map_or(&[], Vec::as_slice)
    }

    /// The streams to be filed, so that no more than `keep` events stay.
    pub(super) fn due(&self, keep: usize) -> impl Iterator<Item = (i64, &[Place])> {
        let mut len = self.len;
        let streams = self.oldest_first.iter().take_while(move |stream| {
            let due = len > keep;
            len -= self.of(**stream).len();
            due
        });
        streams.map(|stream| (*stream, self.of(*stream)))
    }

    /// The first streams were filed, each with so many events as it had then. It may have more by now: a reader can know of
    /// a commit before the thread that made it goes on.
    pub(super) fn filed(&mut self, filed: &[(i64, usize)]) {
        self.oldest_first.drain(..filed.len());
        for (stream, count) in filed {
            let Some(places) = self.streams.get_mut(stream) else { continue };
            places.drain(..*count);
            self.len -= count;
            if places.is_empty() {
                self.streams.remove(stream);
            } else {
                self.oldest_first.push_back(*stream);
            }
        }
    }

    /// Every event up to here is filed, once the first so many streams are.
    pub(super) fn all_filed_up_to(&self, streams: usize) -> Position {
        let oldest = self.oldest_first.get(streams).and_then(|stream| self.of(*stream).first());
        oldest.map_or(self.known, |oldest| Position::new(oldest.position.get() - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(streams: &[i64]) -> Tail {
        let mut tail = Tail::after(Position::START);
        for (position, stream) in (1..).zip(streams) {
            let revision = Revision::new(tail.of(*stream).len() as u64);
            tail.add(*stream, Place { revision, position: Position::new(position) });
        }
        tail
    }

    fn due(tail: &Tail, keep: usize) -> Vec<(i64, usize)> {
        tail.due(keep).map(|(stream, places)| (stream, places.len())).collect()
    }

    #[test]
    fn the_stream_that_has_waited_longest_is_filed_first_and_whole() {
        let mut tail = tail(&[7, 8, 7, 9, 8, 7]);
        assert_eq!(due(&tail, 6), []);
        assert_eq!(due(&tail, 5), [(7, 3)]);
        assert_eq!(due(&tail, 2), [(7, 3), (8, 2)]);
        assert_eq!(tail.all_filed_up_to(0), Position::START);
        assert_eq!(tail.all_filed_up_to(1), Position::new(1));
        assert_eq!(tail.all_filed_up_to(2), Position::new(3));
        assert_eq!(tail.all_filed_up_to(3), Position::new(6));
        tail.filed(&[(7, 3)]);
        assert_eq!((tail.len(), tail.of(7)), (3, &[][..]));
        tail.add(7, Place { revision: Revision::new(3), position: Position::new(7) });
        assert_eq!(due(&tail, 0), [(8, 2), (9, 1), (7, 1)]);
    }

    #[test]
    fn what_a_stream_gets_while_it_is_filed_stays() {
        let mut tail = tail(&[7, 8, 7]);
        let filed = due(&tail, 2);
        tail.add(7, Place { revision: Revision::new(2), position: Position::new(4) });
        tail.filed(&filed);
        assert_eq!(tail.of(7), [Place { revision: Revision::new(2), position: Position::new(4) }]);
        assert_eq!((tail.len(), due(&tail, 0)), (2, vec![(8, 1), (7, 1)]));
        assert_eq!(tail.all_filed_up_to(0), Position::new(1));
    }

    #[test]
    fn an_event_that_is_known_is_not_added_again() {
        let mut tail = tail(&[1, 2]);
        tail.add(1, Place { revision: Revision::FIRST, position: Position::new(1) });
        assert_eq!((tail.len(), tail.known()), (2, Position::new(2)));
    }
}
