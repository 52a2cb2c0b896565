//! Which events are meant, with a time up to which.

use chat_operations::audit::EventFilter;
use clap::Args;

use super::super::filter::FilterOptions;
use crate::failure::Failure;

/// Which events: those that everything given here fits.
#[derive(Args)]
pub(super) struct Filter {
    #[command(flatten)]
    rest: FilterOptions,
    /// Recorded at this time or earlier
    #[arg(long, value_name = "TIME", help_heading = "Which events")]
    to: Option<String>,
}

impl Filter {
    pub(super) fn parse(&self) -> Result<EventFilter, Failure> {
        self.rest.filter(self.to.as_deref())
    }
}
