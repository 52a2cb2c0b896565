//! The query trait. A query is one statement, so that it reads one snapshot and takes one round trip to a remote
//! server.

use super::row::{self, SqlRow, Value};

/// A query that collects its result row by row.
pub trait Query: Send + Sync + 'static {
    /// The result.
    type Output: Send + 'static;

    /// The statement. `$1` occurs in it before `$2`, and so on: SQLite numbers parameters in the order in which they
    /// first occur.
    const SQL: &'static str;

    /// Whether the query reads at most a page of rows by their keys, independent of the size of the tables.
    const READS_FEW_ROWS: bool;

    /// The parameters.
    fn params(&self) -> Vec<Value<'_>>;

    /// Reads the next row.
    fn read<R: SqlRow>(&mut self, row: &R) -> Result<(), R::Error>;

    /// Returns the result after the last row; `None` if there is no checkpoint of this version of the tables.
    fn into_output(self) -> Option<Self::Output>;
}

pub(super) fn number_param(value: u64) -> Value<'static> {
    Value::Int(row::to_sql_int(value))
}

pub(super) fn limit_param(rows: usize) -> Value<'static> {
    Value::Int(row::to_sql_limit(rows))
}
