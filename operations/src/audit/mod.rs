//! What happened, who did it, when and why: questions to the log, answered without changing anything.
//!
//! [`Scan`] reads the log through an [`EventFilter`], a stretch at a time; [`list`](list()), [`Tail`], [`trace`](trace()),
//! [`stats`](stats()) and [`export`](export()) are made of it. [`show`](show()) is about one event. What the log says of
//! an app, a chat or a message is folded by [`state`](state()), for [`explain`](explain()), [`at`] and [`difference`];
//! [`touched`](touched()) goes the other way, from an event to what it changes.
//!
//! Nothing here holds more of the log than a few hundred events.

pub mod event;
mod event_effects;
mod explain;
mod export;
pub mod filter;
mod frequent_keys;
mod history;
pub(crate) mod json_line;
mod list;
mod read_model_row;
mod scan;
mod seek;
mod show;
mod stats;
mod subject;
mod subject_state;
mod tail;
pub mod time;
mod trace;

pub use event::{AuditedEvent, EventReference};
pub use event_effects::{Effect, Touch, Touched, TouchedProjection, event_effects};
pub use explain::{ExplainError, ExplainedField, Explanation, ParkedEvent, explain};
pub use export::{ExportError, ExportFormat, export};
pub use filter::{EventFilter, EventFilterParams, InvalidFilter};
pub use history::{Change, Difference, StateThen, difference, state_at};
pub use list::{EventPage, ListRequest, list, unknown_type_diagnostics};
pub use scan::{Order, Scan, ScanBatch};
pub use show::{EventSelector, ShownEvent, find_event, show};
pub use stats::{Counts, HourCount, KeyCount, Stats, stats};
pub use subject::{Subject, SubjectKind, SubjectName};
pub use subject_state::{Existence, Field, SubjectState, subject_state};
pub use tail::{Tail, TailBatch};
pub use time::LogPoint;
pub use trace::{Trace, TracedRequest, trace};
