//! The queries. Each is one statement, so that all it answers is of one snapshot, and takes one round trip where the
//! engine is elsewhere.

use super::row::{self, SqlRow, Value};

/// A query and, as its rows come, its answer.
pub trait Query: Send + Sync + 'static {
    /// What it asks for.
    type Output: Send + 'static;

    /// The statement. Each parameter first stands where its number says, which is how SQLite counts them.
    const SQL: &'static str;

    /// Whether it looks at a page of rows at most, by their keys, however many there are.
    const READS_FEW_ROWS: bool;

    /// The parameters.
    fn params(&self) -> Vec<Value<'_>>;

    /// Takes the next row.
    fn read<R: SqlRow>(&mut self, row: &R) -> Result<(), R::Error>;

    /// The answer after the last row; `None` where there was no checkpoint for this version of the tables.
    fn into_output(self) -> Option<Self::Output>;
}

pub(super) fn number_param(value: u64) -> Value<'static> {
    Value::Int(row::to_sql_int(value))
}

pub(super) fn limit_param(rows: usize) -> Value<'static> {
    Value::Int(row::to_sql_limit(rows))
}
