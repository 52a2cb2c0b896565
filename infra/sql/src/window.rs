//! Which messages of a chat are on a page.

use super::row;
use chat_ports::read_model::{MessagePage, MessageRow, Window};

/// The messages to look at: those next to where a page can start or end, on either side. One more than the page holds
/// tells whether there is more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reach {
    /// The lowest number of the newer side.
    pub edge: i64,
    /// How many below it, downwards.
    pub older: usize,
    /// How many from it on, upwards.
    pub newer: usize,
}

impl Reach {
    /// Enough for the page, unless it is one around a message near an end of its chat.
    pub(super) fn near(window: Window, limit: usize) -> Self {
        let whole = Self::whole(window, limit);
        match window {
            Window::Around(_) => Self {
                older: (limit / 2).saturating_add(1),
                newer: limit.div_ceil(2).saturating_add(1),
                ..whole
            },
            _ => whole,
        }
    }

    /// Enough for the page, wherever it is.
    pub(super) fn whole(window: Window, limit: usize) -> Self {
        let page = limit.saturating_add(1);
        match window {
            // No message has the largest number there is.
            Window::Newest => Self { edge: i64::MAX, older: page, newer: 0 },
            Window::Oldest => Self { edge: 0, older: 0, newer: page },
            Window::Before(number) => Self { edge: row::int(number.get()), older: page, newer: 1 },
            Window::After(number) => {
                Self { edge: row::int(number.get()).saturating_add(1), older: 1, newer: page }
            }
            Window::Around(number) => Self { edge: row::int(number.get()), older: page, newer: page },
        }
    }

    /// Cuts the page out of what lies in reach: `older` downwards, `newer` upwards from where they meet. `None` where
    /// the page goes beyond that.
    pub(super) fn cut(
        self,
        mut older: Vec<MessageRow>,
        mut newer: Vec<MessageRow>,
        window: Window,
        limit: usize,
    ) -> Option<MessagePage> {
        let (want_older, want_newer) = match window {
            Window::Newest | Window::Before(_) => (limit, 0),
            Window::Oldest | Window::After(_) => (0, limit),
            Window::Around(_) => {
                // Half the page each; what one side does not fill goes to the other.
                let want_older = (limit / 2).max(limit.saturating_sub(newer.len()));
                (want_older, limit - want_older.min(older.len()))
            }
        };
        let (is_older, is_newer) = (older.len() > want_older, newer.len() > want_newer);
        let beyond = (!is_older && want_older > 0 && older.len() == self.older)
            || (!is_newer && want_newer > 0 && newer.len() == self.newer);
        if beyond {
            return None;
        }
        older.truncate(want_older);
        newer.truncate(want_newer);
        older.reverse();
        older.append(&mut newer);
        Some(MessagePage { messages: older, older: is_older, newer: is_newer })
    }
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
                version: Version::new(1),
                created_at: Timestamp::default(),
                updated_at: Timestamp::default(),
            })
        };
        numbers.iter().filter_map(message).collect()
    }

    fn page(older: &[u64], newer: &[u64], window: Window, limit: usize) -> Option<(Vec<u64>, bool, bool)> {
        let reach = Reach::near(window, limit);
        let page = reach.cut(messages(older), messages(newer), window, limit)?;
        Some((page.messages.iter().map(|message| message.number.get()).collect(), page.older, page.newer))
    }

    #[test]
    fn a_cut_takes_what_is_nearest_and_tells_what_is_left() {
        let around = Window::Around(MessageNumber::FIRST);
        assert_eq!(page(&[4, 3, 1], &[5, 9, 10], around, 4), Some((vec![3, 4, 5, 9], true, true)));
        assert_eq!(page(&[4, 3], &[], around, 4), Some((vec![3, 4], false, false)));
        assert_eq!(page(&[], &[5], Window::Before(MessageNumber::FIRST), 2), Some((vec![], false, true)));
    }

    #[test]
    fn a_page_that_one_side_does_not_fill_may_go_beyond_what_is_near() {
        let around = Window::Around(MessageNumber::FIRST);
        assert_eq!(page(&[4, 3, 2], &[5], around, 4), None);
        assert_eq!(page(&[4], &[5, 6, 7], around, 4), None);
        let reach = Reach::whole(around, 4);
        let whole = reach.cut(messages(&[4, 3, 2, 1]), messages(&[5]), around, 4);
        assert_eq!(whole.map(|page| (page.messages.len(), page.older, page.newer)), Some((4, true, false)));
    }
}
