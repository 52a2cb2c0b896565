//! What happened, who did it, when and why: questions to the log, answered without changing anything.
//!
//! [`Scan`] reads the log through an [`EventFilter`].

pub mod filter;
mod scan;
mod seek;
pub mod time;

pub use filter::{EventFilter, FilterWords, InvalidFilter};
pub use scan::{Found, Order, Scan};
pub use time::Point;
