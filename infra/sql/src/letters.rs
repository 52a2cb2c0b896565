//! Queries for dead letters. As with the other lists, each statement starts with a row of its own.

use super::load::letter_counts;
use super::query::{Query, limit, number};
use super::row::{self, Row, Value};
use super::tables::version;
use crate::dead_letters;
use chat_ports::dead_letter::{DeadLetter, LetterCounts, LetterList, LetterPage, ListedLetter, WhichLetters};
use chat_ports::waits;

/// The first parked events, and how many there are.
pub struct ListParked {
    limit: usize,
    count: Option<u64>,
    letters: Vec<DeadLetter>,
}

impl ListParked {
    pub fn new(limit: usize) -> Self {
        Self { limit, count: None, letters: Vec::new() }
    }
}

impl Query for ListParked {
    type Answer = (Vec<DeadLetter>, u64);

    const FEW_ROWS: bool = false;

    const SQL: &'static str = concat!(
        "SELECT (SELECT count(*) FROM dead_letters WHERE discarded = 0),
                NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
         FROM checkpoint k WHERE k.layout = ",
        version!(),
        " UNION ALL
          SELECT NULL, page.* FROM (SELECT ",
        dead_letters!(),
        " FROM dead_letters WHERE discarded = 0 ORDER BY position LIMIT $1) AS page"
    );

    fn params(&self) -> Vec<Value<'_>> {
        vec![limit(self.limit)]
    }

    fn read<R: Row>(&mut self, row: &R) -> Result<(), R::Error> {
        if row::is_null(row, 0)? {
            self.letters.push(row::dead_letter(row, 1)?);
        } else {
            self.count = Some(row::uint(row, 0)?);
        }
        Ok(())
    }

    fn answer(mut self) -> Option<Self::Answer> {
        self.letters.sort_unstable_by_key(|letter| letter.position);
        Some((self.letters, self.count?))
    }
}

/// A page of letters, and how many there are.
pub struct ListLetters {
    list: LetterList,
    page: Option<LetterPage>,
    letters: Vec<ListedLetter>,
}

impl ListLetters {
    pub fn new(list: LetterList) -> Self {
        Self { list, page: None, letters: Vec::new() }
    }
}

impl Query for ListLetters {
    type Answer = LetterPage;

    const FEW_ROWS: bool = false;

    const SQL: &'static str = concat!(
        "SELECT k.position, ",
        letter_counts!(),
        ", NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
         FROM checkpoint k WHERE k.layout = ",
        version!(),
        " UNION ALL
          SELECT NULL, NULL, NULL, page.* FROM (SELECT ",
        dead_letters!(),
        ", (SELECT count(*) FROM dead_letters w
            WHERE w.discarded = 0 AND w.stream = d.stream AND w.position > d.position)
          FROM dead_letters d
          WHERE d.position > $1
          AND ($2 = 0 OR (d.acknowledged = 0 AND (d.discarded <> 0 OR d.reason <> '",
        waits!(),
        "')))
          AND ($3 = '' OR d.stream = $3) ORDER BY d.position LIMIT $4) AS page"
    );

    fn params(&self) -> Vec<Value<'_>> {
        let standing = Value::Int(i64::from(self.list.which == WhichLetters::Standing));
        let stream = Value::Text(self.list.stream.as_deref().unwrap_or_default());
        vec![number(self.list.after.get()), standing, stream, limit(self.list.limit)]
    }

    fn read<R: Row>(&mut self, row: &R) -> Result<(), R::Error> {
        if !row::is_null(row, 0)? {
            let counts: LetterCounts = row::letter_counts(row, 1)?;
            self.page = Some(LetterPage { position: row::position(row, 0)?, counts, letters: Vec::new() });
            return Ok(());
        }
        let letter = row::dead_letter(row, 3)?;
        // Nobody waits behind what was given up, nor behind one that waits itself.
        let holds_up = letter.stands() && letter.discarded.is_none();
        let waiting = if holds_up { row::uint(row, 13)? } else { 0 };
        self.letters.push(ListedLetter { letter, waiting });
        Ok(())
    }

    fn answer(mut self) -> Option<Self::Answer> {
        self.letters.sort_unstable_by_key(|listed| listed.letter.position);
        Some(LetterPage { letters: self.letters, ..self.page? })
    }
}
