//! Rows and parameters of SQLite for the shared SQL.

use std::error::Error as StdError;

use rusqlite::types::{Type, ValueRef};
use rusqlite::{Error, Result, ToSql, types};

use chat_sql::row::{SqlRow, Value};

/// A row of SQLite.
pub(super) struct SqliteRow<'row, 'statement>(pub(super) &'row rusqlite::Row<'statement>);

impl SqlRow for SqliteRow<'_, '_> {
    type Error = Error;

    fn value(&self, column: usize) -> Result<Value<'_>> {
        match self.0.get_ref(column)? {
            ValueRef::Null => Ok(Value::Null),
            ValueRef::Integer(value) => Ok(Value::Int(value)),
            ValueRef::Text(text) => match std::str::from_utf8(text) {
                Ok(text) => Ok(Value::Text(text)),
                Err(error) => Err(Error::Utf8Error(column, error)),
            },
            other => Err(Error::InvalidColumnType(column, String::new(), other.data_type())),
        }
    }

    fn decode_error(column: usize, cause: Box<dyn StdError + Send + Sync>) -> Error {
        Error::FromSqlConversionFailure(column, Type::Null, cause)
    }
}

/// A parameter of a SQLite statement.
pub(super) struct SqliteParameter<'a>(pub(super) Value<'a>);

impl ToSql for SqliteParameter<'_> {
    fn to_sql(&self) -> Result<types::ToSqlOutput<'_>> {
        Ok(types::ToSqlOutput::Borrowed(match self.0 {
            Value::Null => ValueRef::Null,
            Value::Int(value) => ValueRef::Integer(value),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
        }))
    }
}
