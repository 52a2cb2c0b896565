//! Which generations of the projections this process keeps, and which its queries are answered from, as operators promote
//! them and roll them back.
//!
//! [`keeper`] runs the projectors: that of the live generation, and for a while that of the one before. [`readers`]
//! switches queries over once the new generations have reached what the old ones have answered. Neither waits for the
//! other, nor for other processes: each follows the log.

mod keeper;
mod readers;

use std::time::Duration;

pub(crate) use keeper::{Keepers, Surroundings};
pub(crate) use readers::{InUse, Readers};

/// How often it is looked whether what was waited for has come.
const LOOK_EVERY: Duration = Duration::from_millis(20);
