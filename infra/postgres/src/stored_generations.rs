//! Generations of a read model in a database: listing their schemas, and renaming one that is not to be read again.

use chat_domain::projection::Generation;
use sqlx::{AssertSqlSafe, query_scalar, raw_sql};

use super::error::classify_error;
use super::url::PostgresUrl;
use super::{session, writer};
use chat_ports::read_model::ReadModelError;

impl PostgresUrl {
    /// Lists the schemas of all generations that are in the database: the first one's, which this URL names, and the
    /// numbered ones.
    pub async fn stored_generations(&self) -> Result<Vec<Self>, ReadModelError> {
        let stored = self.stored_generation_numbers().await?;
        Ok(stored.into_iter().map(|generation| self.of_generation(generation)).collect())
    }

    /// Lists the numbers of the generations whose schemas are in the database.
    pub(super) async fn stored_generation_numbers(&self) -> Result<Vec<Generation>, ReadModelError> {
        let first = self.schema_name();
        let mut session = session::connect(&session::full_scan_options(self)).await?;
        let statement = query_scalar::<_, String>("SELECT nspname::text FROM pg_namespace ORDER BY 1");
        let names = statement.fetch_all(&mut session).await.map_err(classify_error)?;
        let generation_of_schema = |name: String| {
            let generation = match name.strip_prefix(first)? {
                "" => Generation::FIRST,
                rest => Generation(rest.strip_prefix('_')?.parse().ok()?),
            };
            // Names such as `chat_read_model_02` and `chat_read_model_0` belong to no generation.
            let is_spelled_so = self.of_generation(generation).schema_name() == name;
            (generation >= Generation::FIRST && is_spelled_so).then_some(generation)
        };
        Ok(names.into_iter().filter_map(generation_of_schema).collect())
    }

    /// The URL of a generation: this URL for the first one, [`Self::with_numbered_schema`] for the others.
    pub(super) fn of_generation(&self, generation: Generation) -> Self {
        match generation {
            Generation::FIRST => self.clone(),
            Generation(number) => self.with_numbered_schema(number),
        }
    }

    /// Checks that no projector writes the schema. Fails with [`ReadModelError::InUse`] if one does.
    pub async fn check_unused(&self) -> Result<(), ReadModelError> {
        writer::connect_and_lock(self).await.map(drop)
    }

    /// Renames the schema, unless a projector writes it. The new name is not quoted, so it must be a valid schema name.
    pub async fn rename_schema(&self, new_name: &str) -> Result<(), ReadModelError> {
        let mut session = writer::connect_and_lock(self).await?;
        let statement = format!("ALTER SCHEMA {} RENAME TO {new_name}", self.schema_name());
        raw_sql(AssertSqlSafe(statement)).execute(&mut session).await.map_err(classify_error)?;
        Ok(())
    }
}
