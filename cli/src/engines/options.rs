//! Options that name the storage engines.

use std::path::PathBuf;

use clap::Args;

/// Options that name the storage engines. Not `Debug`: URLs contain secrets.
#[derive(Clone, Args)]
pub(crate) struct EngineOptions {
    /// Folder of all embedded files; created if it does not exist
    #[arg(long, env = "DATA_DIR", value_name = "FOLDER", default_value = "./data")]
    pub(crate) data_dir: PathBuf,
    /// Event store: sqlite://FILE, postgres://USER:PASSWORD@HOST/DATABASE, or KurrentDB at kurrentdb://HOST:2113 or
    /// esdb://… [default: sqlite://DATA_DIR/events.db]
    #[arg(long, env = "EVENT_STORE_URL", value_name = "URL", hide_env_values = true)]
    pub(crate) event_store_url: Option<String>,
    /// Read model: sqlite://FILE or postgres://USER:PASSWORD@HOST/DATABASE [default: sqlite://DATA_DIR/read-model.db]
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub(crate) database_url: Option<String>,
    /// Folder of the full-text index [default: DATA_DIR/search-index]
    #[arg(long, env = "SEARCH_INDEX_DIR", value_name = "FOLDER")]
    pub(crate) search_index_dir: Option<PathBuf>,
}
