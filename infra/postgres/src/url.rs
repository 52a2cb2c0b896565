//! The URL of a Postgres database, and the schema in it.

use std::error::Error as StdError;
use std::fmt;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Database as _};
use thiserror::Error;

/// The allowed URL parameters. Others are reported as errors.
const ALLOWED_PARAMETERS: &[&str] = &[
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "user",
];

/// A Postgres database, and the schema in it that holds the read model.
///
/// `Display`, `Debug` and all errors show neither the password nor the user.
#[derive(Clone)]
pub struct PostgresUrl {
    options: PgConnectOptions,
    schema: SchemaName,
}

/// An error of parsing a Postgres URL or a schema name.
#[derive(Debug, Error)]
pub enum InvalidPostgresUrl {
    /// The scheme is not one of Postgres.
    #[error("the URL does not start with postgres:// or postgresql://")]
    Scheme,
    /// A parameter is unknown.
    #[error("the URL has an unknown parameter: {0}")]
    UnknownParameter(String),
    /// The text after `?` is no parameter, and may be the rest of a password.
    #[error(
        "the URL has no parameters after its ?; characters such as ?, / and @ in a password must be percent-encoded"
    )]
    MalformedParameter,
    /// The URL is malformed.
    #[error("the URL is malformed")]
    Malformed(#[source] Box<dyn StdError + Send + Sync>),
    /// The schema name is invalid.
    #[error(
        "a schema name has 1 to {} characters of a-z, 0-9 and _, and starts with a letter but not with pg_",
        SchemaName::MAX_LENGTH
    )]
    SchemaName,
}

impl PostgresUrl {
    /// The default schema.
    pub const DEFAULT_SCHEMA: &'static str = "chat_read_model";

    /// Parses a URL such as `postgres://user:password@host:5432/database?sslmode=verify-full`. Missing parts are taken
    /// from the usual environment variables of Postgres clients (`PGHOST`, `PGUSER`, `PGPASSFILE` …).
    pub fn parse(url: &str) -> Result<Self, InvalidPostgresUrl> {
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(InvalidPostgresUrl::Scheme);
        }
        let (_, query) = url.split_once('?').unwrap_or((url, ""));
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, _) = parameter.split_once('=').unwrap_or((parameter, ""));
            if !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') {
                return Err(InvalidPostgresUrl::MalformedParameter);
            }
            if !ALLOWED_PARAMETERS.contains(&name) {
                return Err(InvalidPostgresUrl::UnknownParameter(name.to_owned()));
            }
        }
        let options: PgConnectOptions =
            url.parse().map_err(|error: sqlx::Error| InvalidPostgresUrl::Malformed(Box::new(error)))?;
        // The client does not log statements; errors are logged by their handlers.
        let options = options.disable_statement_logging();
        Ok(Self { options, schema: SchemaName::parse(Self::DEFAULT_SCHEMA)? })
    }

    /// Returns the same database with another schema.
    pub fn with_schema(self, name: &str) -> Result<Self, InvalidPostgresUrl> {
        Ok(Self { schema: SchemaName::parse(name)?, ..self })
    }

    /// Returns the same database with the schema of a generation after the first, for example `chat_read_model_2`.
    #[must_use]
    pub fn with_numbered_schema(&self, number: u32) -> Self {
        let schema = SchemaName(format!("{}_{number}", self.schema.0));
        Self { options: self.options.clone(), schema }
    }

    /// The name of the schema.
    pub fn schema_name(&self) -> &str {
        self.schema.as_str()
    }

    pub(super) fn options(&self) -> &PgConnectOptions {
        &self.options
    }

    pub(super) fn schema(&self) -> &SchemaName {
        &self.schema
    }
}

impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, port) = (self.options.get_host(), self.options.get_port());
        let database = self.options.get_database().unwrap_or_default();
        write!(f, "{}://{host}:{port}/{database}", sqlx::Postgres::URL_SCHEMES[0])
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresUrl({self}, {})", self.schema.0)
    }
}

/// The name of a schema, which statements contain without quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SchemaName(String);

impl SchemaName {
    /// The maximum length of a name. Leaves room for the suffixes of generations and quarantined schemas: Postgres
    /// truncates names to 63 bytes.
    const MAX_LENGTH: usize = 44;

    fn parse(name: &str) -> Result<Self, InvalidPostgresUrl> {
        let plain =
            name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        let fits = name.starts_with(|first: char| first.is_ascii_lowercase())
            && !name.starts_with("pg_")
            && name.len() <= Self::MAX_LENGTH;
        if plain && fits { Ok(Self(name.to_owned())) } else { Err(InvalidPostgresUrl::SchemaName) }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The name that this schema gets when it is quarantined because it is damaged.
    pub(super) fn quarantine_name(&self) -> String {
        format!("{}_damaged", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn displays_neither_password_nor_user() -> Result<(), InvalidPostgresUrl> {
        let url = PostgresUrl::parse("postgres://operator:s3cret@db.example:5433/chat")?;
        assert_eq!(format!("{url:?}"), "PostgresUrl(postgres://db.example:5433/chat, chat_read_model)");
        Ok(())
    }

    #[test]
    fn rejects_malformed_urls_without_showing_user_and_password() {
        for wrong in [
            "mysql://u:s3cret@h/d",
            "postgres://u:s3cret@h:port/d",
            "postgres://u:s3cret@h/d?sslmode=s3cret",
            "postgres://u@h/d?pasword=s3cret",
        ] {
            let refused = PostgresUrl::parse(wrong).map(|_| ());
            let Err(error) = refused else { panic!("{wrong} is accepted") };
            assert!(!format!("{error} {error:?}").contains("u:s3cret"), "{error:?}");
        }
    }

    #[test]
    fn only_plain_schema_names_are_accepted() -> Result<(), InvalidPostgresUrl> {
        let url = PostgresUrl::parse("postgres://localhost/chat")?;
        assert_eq!(url.clone().with_schema("chat_2")?.schema_name(), "chat_2");
        assert_eq!(url.with_numbered_schema(2).schema_name(), "chat_read_model_2");
        for wrong in ["", "Chat", "2", "_", "a b", "a\"b", "pg_chat", &"a".repeat(45)] {
            assert!(url.clone().with_schema(wrong).is_err(), "{wrong}");
        }
        Ok(())
    }
}
