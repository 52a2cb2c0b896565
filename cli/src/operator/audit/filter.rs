//! Event filter of the audit commands.

use chat_operations::audit::EventFilter;
use clap::Args;

use super::super::filter::FilterOptions;
use crate::failure::Failure;

/// The common event filter and a latest time.
#[derive(Args)]
pub(super) struct AuditFilterArgs {
    #[command(flatten)]
    common: FilterOptions,
    /// Only events recorded at this time or earlier
    #[arg(long, value_name = "TIME", help_heading = "Which events")]
    to: Option<String>,
}

impl AuditFilterArgs {
    pub(super) fn parse(&self) -> Result<EventFilter, Failure> {
        self.common.parse(self.to.as_deref())
    }
}
