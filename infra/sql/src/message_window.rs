//! Decides which messages to fetch for a page of messages, and cuts the page out of the fetched ones.

use super::row;
use chat_ports::MAX_PAGE_BYTES;
use chat_ports::read_model::{MessagePage, MessageRow, MessageWindow};

/// The messages to fetch on both sides of a pivot: one more than the page holds, to see whether there are more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FetchRange {
    /// The lowest message number of the newer side.
    pub pivot: i64,
    /// The number of messages to fetch below the pivot, downwards.
    pub older_limit: usize,
    /// The number of messages to fetch from the pivot on, upwards.
    pub newer_limit: usize,
}

impl FetchRange {
    /// A range that suffices unless the page is around a message with few older or few newer messages.
    pub(super) fn optimistic(window: MessageWindow, limit: usize) -> Self {
        let exhaustive = Self::exhaustive(window, limit);
        match window {
            MessageWindow::Around(_) => Self {
                older_limit: (limit / 2).saturating_add(1),
                newer_limit: limit.div_ceil(2).saturating_add(1),
                ..exhaustive
            },
            _ => exhaustive,
        }
    }

    /// A range that always suffices.
    pub(super) fn exhaustive(window: MessageWindow, limit: usize) -> Self {
        let page_and_one = limit.saturating_add(1);
        match window {
            // No message has the largest number.
            MessageWindow::Newest => Self { pivot: i64::MAX, older_limit: page_and_one, newer_limit: 0 },
            MessageWindow::Oldest => Self { pivot: 0, older_limit: 0, newer_limit: page_and_one },
            MessageWindow::Before(number) => {
                Self { pivot: row::to_sql_int(number.get()), older_limit: page_and_one, newer_limit: 1 }
            }
            MessageWindow::After(number) => Self {
                pivot: row::to_sql_int(number.get()).saturating_add(1),
                older_limit: 1,
                newer_limit: page_and_one,
            },
            MessageWindow::Around(number) => Self {
                pivot: row::to_sql_int(number.get()),
                older_limit: page_and_one,
                newer_limit: page_and_one,
            },
        }
    }

    /// Cuts the page out of the fetched messages: `older` downwards and `newer` upwards from the pivot. `None` if the
    /// page may need messages outside the range.
    pub(super) fn cut_page(
        self,
        mut older: Vec<MessageRow>,
        mut newer: Vec<MessageRow>,
        window: MessageWindow,
        limit: usize,
    ) -> Option<MessagePage> {
        let (max_older, max_newer) = match window {
            MessageWindow::Newest | MessageWindow::Before(_) => (limit, 0),
            MessageWindow::Oldest | MessageWindow::After(_) => (0, limit),
            MessageWindow::Around(_) => {
                // Each side gets half of the page. A side with fewer messages leaves the rest of its half to the other
                // side.
                let max_older = (limit / 2).max(limit.saturating_sub(newer.len()));
                (max_older, limit - max_older.min(older.len()))
            }
        };
        let (has_older, has_newer) = (older.len() > max_older, newer.len() > max_newer);
        let exceeds_range = (!has_older && max_older > 0 && older.len() == self.older_limit)
            || (!has_newer && max_newer > 0 && newer.len() == self.newer_limit);
        if exceeds_range {
            return None;
        }
        older.truncate(max_older);
        newer.truncate(max_newer);
        let (kept_older, kept_newer) = nearest_within(MAX_PAGE_BYTES, &older, &newer);
        let has_older = has_older || kept_older < older.len();
        let has_newer = has_newer || kept_newer < newer.len();
        older.truncate(kept_older);
        newer.truncate(kept_newer);
        older.reverse();
        older.append(&mut newer);
        Some(MessagePage { messages: older, has_older, has_newer })
    }
}

/// Returns how many older and how many newer messages to keep, counted from the pivot, so that all together have at
/// most `max_bytes` of text and data. Takes from both sides in turn, and from one side alone when the other is used
/// up. Keeps the first message even if it alone has more bytes.
fn nearest_within(max_bytes: usize, older: &[MessageRow], newer: &[MessageRow]) -> (usize, usize) {
    let (mut kept_older, mut kept_newer, mut bytes) = (0, 0, 0);
    loop {
        let next_newer =
            newer.get(kept_newer).filter(|_| kept_newer <= kept_older || kept_older == older.len());
        let Some(next) = next_newer.or_else(|| older.get(kept_older)) else { break };
        bytes += next.body.len() + next.data.as_ref().map_or(0, |data| data.as_str().len());
        if bytes > max_bytes && kept_older + kept_newer > 0 {
            break;
        }
        if next_newer.is_some() {
            kept_newer += 1;
        } else {
            kept_older += 1;
        }
    }
    (kept_older, kept_newer)
}

#[cfg(test)]
mod tests {
    use chat_domain::{MessageNumber, Timestamp, Version};

    use super::*;

    fn messages(numbers: &[u64]) -> Vec<MessageRow> {
        let message = |number: &u64| {
            Some(MessageRow {
                number: MessageNumber::try_from(*number).ok()?,
                body: String::new(),
                sender: None,
                data: None,
                version: Version::new(1),
                created_at: Timestamp::default(),
                updated_at: Timestamp::default(),
            })
        };
        numbers.iter().filter_map(message).collect()
    }

    /// Returns the numbers of the messages on the page, `has_older` and `has_newer`.
    fn page(
        older: &[u64],
        newer: &[u64],
        window: MessageWindow,
        limit: usize,
    ) -> Option<(Vec<u64>, bool, bool)> {
        let range = FetchRange::optimistic(window, limit);
        let page = range.cut_page(messages(older), messages(newer), window, limit)?;
        Some((
            page.messages.iter().map(|message| message.number.get()).collect(),
            page.has_older,
            page.has_newer,
        ))
    }

    #[test]
    fn a_page_holds_the_nearest_messages_and_says_whether_there_are_more() {
        let around = MessageWindow::Around(MessageNumber::FIRST);
        assert_eq!(page(&[4, 3, 1], &[5, 9, 10], around, 4), Some((vec![3, 4, 5, 9], true, true)));
        assert_eq!(page(&[4, 3], &[], around, 4), Some((vec![3, 4], false, false)));
        assert_eq!(
            page(&[], &[5], MessageWindow::Before(MessageNumber::FIRST), 2),
            Some((vec![], false, true))
        );
    }

    #[test]
    fn needs_the_exhaustive_range_if_one_side_is_short_and_the_other_is_cut_off() {
        let around = MessageWindow::Around(MessageNumber::FIRST);
        assert_eq!(page(&[4, 3, 2], &[5], around, 4), None);
        assert_eq!(page(&[4], &[5, 6, 7], around, 4), None);
        let range = FetchRange::exhaustive(around, 4);
        let exhaustive = range.cut_page(messages(&[4, 3, 2, 1]), messages(&[5]), around, 4);
        assert_eq!(
            exhaustive.map(|page| (page.messages.len(), page.has_older, page.has_newer)),
            Some((4, true, false))
        );
    }
}
