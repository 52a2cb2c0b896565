//! Which events are meant, with a time up to which.

use chat_operations::audit::EventFilter;
use clap::Args;

use super::super::filter::FilterOptions;
use crate::failure::Failure;

/// Which events: those that everything given here fits.
#[derive(Args)]
pub(super) struct AuditFilterArgs {
    #[command(flatten)]
    common: FilterOptions,
    /// Recorded at this time or earlier
    #[arg(long, value_name = "TIME", help_heading = "Which events")]
    to: Option<String>,
}

impl AuditFilterArgs {
    pub(super) fn parse(&self) -> Result<EventFilter, Failure> {
        self.common.parse(self.to.as_deref())
    }
}
