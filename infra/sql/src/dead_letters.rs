//! Queries for dead letters. One row of each statement is a header with the counts; in the rows of dead letters the
//! first column is NULL.

use super::load::dead_letter_counts;
use super::query::{Query, limit_param, number_param};
use super::row::{self, SqlRow, Value};
use super::tables::schema_version;
use crate::dead_letter_columns;
use chat_ports::behind_dead_letter;
use chat_ports::dead_letter::{
    DeadLetter, DeadLetterCounts, DeadLetterFilter, DeadLetterPage, DeadLetterQuery, ListedDeadLetter,
};

/// Lists the first pending dead letters, and counts all pending ones.
pub struct ListPendingDeadLetters {
    limit: usize,
    pending_count: Option<u64>,
    dead_letters: Vec<DeadLetter>,
}

impl ListPendingDeadLetters {
    pub fn new(limit: usize) -> Self {
        Self { limit, pending_count: None, dead_letters: Vec::new() }
    }
}

impl Query for ListPendingDeadLetters {
    type Output = (Vec<DeadLetter>, u64);

    const READS_FEW_ROWS: bool = false;

    const SQL: &'static str = concat!(
        "SELECT (SELECT count(*) FROM dead_letters WHERE discarded = 0),
                NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
         FROM checkpoint k WHERE k.layout = ",
        schema_version!(),
        " UNION ALL
          SELECT NULL, page.* FROM (SELECT ",
        dead_letter_columns!(),
        " FROM dead_letters WHERE discarded = 0 ORDER BY position LIMIT $1) AS page"
    );

    fn params(&self) -> Vec<Value<'_>> {
        vec![limit_param(self.limit)]
    }

    fn read<R: SqlRow>(&mut self, row: &R) -> Result<(), R::Error> {
        if row::is_null(row, 0)? {
            self.dead_letters.push(row::read_dead_letter(row, 1)?);
        } else {
            self.pending_count = Some(row::read_u64(row, 0)?);
        }
        Ok(())
    }

    fn into_output(mut self) -> Option<Self::Output> {
        self.dead_letters.sort_unstable_by_key(|dead_letter| dead_letter.position);
        Some((self.dead_letters, self.pending_count?))
    }
}

/// Lists a page of dead letters, and counts the pending ones and the unacknowledged discarded ones.
pub struct ListDeadLetters {
    query: DeadLetterQuery,
    page: Option<DeadLetterPage>,
    dead_letters: Vec<ListedDeadLetter>,
}

impl ListDeadLetters {
    pub fn new(query: DeadLetterQuery) -> Self {
        Self { query, page: None, dead_letters: Vec::new() }
    }
}

impl Query for ListDeadLetters {
    type Output = DeadLetterPage;

    const READS_FEW_ROWS: bool = false;

    const SQL: &'static str = concat!(
        "SELECT k.position, ",
        dead_letter_counts!(),
        ", NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
         FROM checkpoint k WHERE k.layout = ",
        schema_version!(),
        " UNION ALL
          SELECT NULL, NULL, NULL, page.* FROM (SELECT ",
        dead_letter_columns!(),
        ", (SELECT count(*) FROM dead_letters w
            WHERE w.discarded = 0 AND w.stream = d.stream AND w.position > d.position)
          FROM dead_letters d
          WHERE d.position > $1
          AND ($2 = 0 OR (d.acknowledged = 0 AND (d.discarded <> 0 OR d.reason <> '",
        behind_dead_letter!(),
        "')))
          AND ($3 = '' OR d.stream = $3) ORDER BY d.position LIMIT $4) AS page"
    );

    fn params(&self) -> Vec<Value<'_>> {
        let needs_attention = Value::Int(i64::from(self.query.filter == DeadLetterFilter::NeedsAttention));
        let stream = Value::Text(self.query.stream.as_deref().unwrap_or_default());
        vec![number_param(self.query.after.get()), needs_attention, stream, limit_param(self.query.limit)]
    }

    fn read<R: SqlRow>(&mut self, row: &R) -> Result<(), R::Error> {
        if !row::is_null(row, 0)? {
            let counts: DeadLetterCounts = row::read_dead_letter_counts(row, 1)?;
            self.page = Some(DeadLetterPage {
                position: row::read_position(row, 0)?,
                counts,
                dead_letters: Vec::new(),
            });
            return Ok(());
        }
        let dead_letter = row::read_dead_letter(row, 3)?;
        // No dead letter waits behind a discarded one, or behind one that waits itself.
        let blocks_stream = dead_letter.needs_attention() && dead_letter.discarded.is_none();
        let waiting_behind = if blocks_stream { row::read_u64(row, 13)? } else { 0 };
        self.dead_letters.push(ListedDeadLetter { dead_letter, waiting_behind });
        Ok(())
    }

    fn into_output(mut self) -> Option<Self::Output> {
        self.dead_letters.sort_unstable_by_key(|listed| listed.dead_letter.position);
        Some(DeadLetterPage { dead_letters: self.dead_letters, ..self.page? })
    }
}
