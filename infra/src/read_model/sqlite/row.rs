//! What SQLite's columns hold.

use std::error::Error as StdError;

use rusqlite::types::{Type, ValueRef};
use rusqlite::{Error, Result, ToSql, types};

use crate::read_model::sql::row::{Row, Value};

impl Row for rusqlite::Row<'_> {
    type Error = Error;

    fn value(&self, column: usize) -> Result<Value<'_>> {
        match self.get_ref(column)? {
            ValueRef::Null => Ok(Value::Null),
            ValueRef::Integer(value) => Ok(Value::Int(value)),
            ValueRef::Text(text) => match std::str::from_utf8(text) {
                Ok(text) => Ok(Value::Text(text)),
                Err(error) => Err(Error::Utf8Error(column, error)),
            },
            other => Err(Error::InvalidColumnType(column, String::new(), other.data_type())),
        }
    }

    fn unreadable(column: usize, cause: Box<dyn StdError + Send + Sync>) -> Error {
        Error::FromSqlConversionFailure(column, Type::Null, cause)
    }
}

impl ToSql for Value<'_> {
    fn to_sql(&self) -> Result<types::ToSqlOutput<'_>> {
        Ok(types::ToSqlOutput::Borrowed(match *self {
            Self::Null => ValueRef::Null,
            Self::Int(value) => ValueRef::Integer(value),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
        }))
    }
}
