//! Which messages of a chat are on a page. The numbers are found in the index alone; bodies are read for the page's
//! own rows and no others.

use chat_domain::MessageNumber;
use rusqlite::{Connection, Result};

use super::row;
use crate::read_model::Window;

/// A page as numbers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page {
    /// The first and the last number on it; `None` where it is empty.
    pub range: Option<(i64, i64)>,
    pub older: bool,
    pub newer: bool,
}

/// Finds the page of a chat.
pub(super) fn page(db: &Connection, chat: i64, window: Window, limit: usize) -> Result<Page> {
    // One more than the page holds tells whether there is more.
    let below = |number: MessageNumber| below(db, chat, row::int(number.get()), limit.saturating_add(1));
    let from = |number: i64| from(db, chat, number, limit.saturating_add(1));
    let after = |number: MessageNumber| row::int(number.get()).saturating_add(1);
    match window {
        Window::Newest => Ok(cut(&below_end(db, chat, limit.saturating_add(1))?, &[], limit, 0)),
        Window::Oldest => Ok(cut(&[], &from(0)?, 0, limit)),
        Window::Before(number) => {
            let newer = self::from(db, chat, row::int(number.get()), 1)?;
            let older = below(number)?;
            let page = cut(&older, &[], limit, 0);
            Ok(Page { newer: !newer.is_empty(), ..page })
        }
        Window::After(number) => {
            let older = self::below(db, chat, after(number), 1)?;
            let newer = from(after(number))?;
            let page = cut(&[], &newer, 0, limit);
            Ok(Page { older: !older.is_empty(), ..page })
        }
        Window::Around(number) => {
            let (older, newer) = (below(number)?, from(row::int(number.get()))?);
            // Half the page each; what one side does not fill goes to the other.
            let half = limit / 2;
            let take_older = older.len().min(half.max(limit.saturating_sub(newer.len())));
            Ok(cut(&older, &newer, take_older, limit - take_older))
        }
    }
}

/// Takes the numbers next to where `older` (downwards) and `newer` (upwards) meet.
fn cut(older: &[i64], newer: &[i64], take_older: usize, take_newer: usize) -> Page {
    let page_older = &older[..take_older.min(older.len())];
    let page_newer = &newer[..take_newer.min(newer.len())];
    let first = page_older.last().or(page_newer.first());
    let last = page_newer.last().or(page_older.first());
    Page {
        range: first.copied().zip(last.copied()),
        older: older.len() > page_older.len(),
        newer: newer.len() > page_newer.len(),
    }
}

/// Numbers below `end`, downwards.
fn below(db: &Connection, chat: i64, end: i64, limit: usize) -> Result<Vec<i64>> {
    let sql = "SELECT number FROM messages WHERE chat_id = ?1 AND number < ?2 ORDER BY number DESC LIMIT ?3";
    numbers(db, sql, [chat, end, row::limit(limit)])
}

/// The highest numbers, downwards.
fn below_end(db: &Connection, chat: i64, limit: usize) -> Result<Vec<i64>> {
    let sql = "SELECT number FROM messages WHERE chat_id = ?1 AND number <= ?2 ORDER BY number DESC LIMIT ?3";
    numbers(db, sql, [chat, i64::MAX, row::limit(limit)])
}

/// Numbers from `start`, upwards.
fn from(db: &Connection, chat: i64, start: i64, limit: usize) -> Result<Vec<i64>> {
    let sql = "SELECT number FROM messages WHERE chat_id = ?1 AND number >= ?2 ORDER BY number LIMIT ?3";
    numbers(db, sql, [chat, start, row::limit(limit)])
}

fn numbers(db: &Connection, sql: &str, params: [i64; 3]) -> Result<Vec<i64>> {
    db.prepare_cached(sql)?.query_map(params, |row| row.get(0))?.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_takes_what_is_nearest_and_tells_what_is_left() {
        assert_eq!(
            cut(&[4, 3, 1], &[5, 9, 10], 2, 2),
            Page { range: Some((3, 9)), older: true, newer: true }
        );
        assert_eq!(cut(&[4, 3], &[], 2, 2), Page { range: Some((3, 4)), older: false, newer: false });
        assert_eq!(cut(&[], &[5], 2, 0), Page { range: None, older: false, newer: true });
    }
}
