//! What happened, who did it, when and why: questions to the log, answered without changing anything.
//!
//! [`Scan`] reads the log through an [`EventFilter`], a stretch at a time; [`list`](list()), [`Tail`], [`trace`](trace()),
//! [`stats`](stats()) and [`export`](export()) are made of it. [`show`](show()) is about one event. What the log says of
//! an app, a chat or a message is folded by [`state`](state()), for [`explain`](explain()), [`at`] and [`difference`];
//! [`touched`](touched()) goes the other way, from an event to what it changes.
//!
//! Nothing here holds more of the log than a few hundred events.

pub mod event;
mod explain;
mod export;
pub mod filter;
mod history;
pub(crate) mod line;
mod list;
mod row;
mod scan;
mod seek;
mod show;
mod state;
mod stats;
mod subject;
mod tail;
pub mod time;
mod top;
mod touched;
mod trace;

pub use event::{AuditedEvent, EventReference};
pub use explain::{ExplainError, ExplainedField, Explanation, ParkedEvent, explain};
pub use export::{ExportError, ExportFormat, export};
pub use filter::{EventFilter, FilterWords, InvalidFilter};
pub use history::{Change, Difference, StateThen, at, difference};
pub use list::{EventPage, ListRequest, list, unknown_types};
pub use scan::{Found, Order, Scan};
pub use show::{ShownEvent, WhichEvent, find, show};
pub use state::{Existence, Field, State, state};
pub use stats::{Counts, HourCount, KeyCount, Stats, stats};
pub use subject::{Subject, SubjectKind, SubjectName};
pub use tail::{News, Tail};
pub use time::Point;
pub use touched::{Effect, Touch, Touched, TouchedProjection, touched};
pub use trace::{Trace, TracedRequest, trace};
