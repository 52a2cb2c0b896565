//! Rows of Postgres for the shared SQL.

use std::error::Error as StdError;

use sqlx::postgres::PgRow;
use sqlx::{Decode, Error, Result, Row as _, TypeInfo, ValueRef};

use chat_sql::row::{SqlRow, Value};

/// A row of Postgres.
pub(super) struct PostgresRow<'a>(pub(super) &'a PgRow);

impl SqlRow for PostgresRow<'_> {
    type Error = Error;

    fn value(&self, column: usize) -> Result<Value<'_>> {
        let value = self.0.try_get_raw(column)?;
        if value.is_null() {
            return Ok(Value::Null);
        }
        let unreadable = |cause| Self::decode_error(column, cause);
        match value.type_info().name() {
            "INT8" => <i64 as Decode<sqlx::Postgres>>::decode(value).map(Value::Int).map_err(unreadable),
            "TEXT" => <&str as Decode<sqlx::Postgres>>::decode(value).map(Value::Text).map_err(unreadable),
            other => Err(unreadable(format!("the column has type {other}").into())),
        }
    }

    fn decode_error(column: usize, cause: Box<dyn StdError + Send + Sync>) -> Error {
        Error::ColumnDecode { index: column.to_string(), source: cause }
    }
}
