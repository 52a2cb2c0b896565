//! Event filter of the audit commands.

use chat_operations::audit::EventFilter;
use chat_ports::event_store::EventStore;
use clap::Args;

use super::super::filter::{self, FilterOptions};
use crate::failure::Failure;

/// The filter options that `replay` has too, and `--to`.
#[derive(Args)]
pub(super) struct AuditFilterArgs {
    #[command(flatten)]
    common: FilterOptions,
    /// Only events recorded at this time or earlier
    #[arg(long, value_name = "TIME", help_heading = "Which events")]
    to: Option<String>,
}

impl AuditFilterArgs {
    /// Checks the options before the log is opened.
    pub(super) fn check(&self) -> Result<(), Failure> {
        self.common.check(self.to.as_deref())
    }

    /// Parses the options, and finds the app and the stream that they name.
    pub(super) async fn parse(&self, log: &dyn EventStore) -> Result<EventFilter, Failure> {
        filter::parse(self.common.resolve(self.to.as_deref(), log).await?)
    }
}
