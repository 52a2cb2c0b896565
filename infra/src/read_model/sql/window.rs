//! Which messages of a chat are on a page.

use super::row;
use crate::read_model::{MessagePage, MessageRow, Window};

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
    pub(super) fn of(window: Window, limit: usize) -> Self {
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
}

/// Cuts the page out of what lies in its reach: `older` downwards, `newer` upwards from where they meet.
pub(super) fn cut(
    mut older: Vec<MessageRow>,
    mut newer: Vec<MessageRow>,
    window: Window,
    limit: usize,
) -> MessagePage {
    let (take_older, take_newer) = match window {
        Window::Newest | Window::Before(_) => (limit, 0),
        Window::Oldest | Window::After(_) => (0, limit),
        Window::Around(_) => {
            // Half the page each; what one side does not fill goes to the other.
            let half = limit / 2;
            let take_older = older.len().min(half.max(limit.saturating_sub(newer.len())));
            (take_older, limit - take_older)
        }
    };
    let (is_older, is_newer) = (older.len() > take_older, newer.len() > take_newer);
    older.truncate(take_older);
    newer.truncate(take_newer);
    older.reverse();
    older.append(&mut newer);
    MessagePage { messages: older, older: is_older, newer: is_newer }
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

    fn page(older: &[u64], newer: &[u64], window: Window, limit: usize) -> (Vec<u64>, bool, bool) {
        let page = cut(messages(older), messages(newer), window, limit);
        (page.messages.iter().map(|message| message.number.get()).collect(), page.older, page.newer)
    }

    #[test]
    fn a_cut_takes_what_is_nearest_and_tells_what_is_left() {
        let around = Window::Around(MessageNumber::FIRST);
        assert_eq!(page(&[4, 3, 1], &[5, 9, 10], around, 4), (vec![3, 4, 5, 9], true, true));
        assert_eq!(page(&[4, 3], &[], around, 4), (vec![3, 4], false, false));
        assert_eq!(page(&[], &[5], Window::Before(MessageNumber::FIRST), 2), (vec![], false, true));
    }
}
