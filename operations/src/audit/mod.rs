//! Audit queries: events and the state they result in, read from the log without changing anything.
//!
//! [`Scan`] reads the log through an [`EventFilter`], batch by batch; [`list`](list()), [`Tail`], [`trace`](trace()),
//! [`stats`](stats()) and [`export`](export()) are built on it. [`show`](show()) describes one event.
//! [`subject_state`](subject_state()) folds the events of an app, a chat or a message; [`explain`](explain()),
//! [`state_at`] and [`difference`] are built on this state. [`past_messages()`] reads the messages of a chat as they
//! were at a position. [`message_versions`] and [`neighbouring_changes`] find the events that changed a subject.
//! [`event_effects`](event_effects()) finds what an event changed.
//!
//! Each of these bounds the number of events that it holds in memory.

mod app_lookup;
pub mod event;
mod event_effects;
mod event_rate;
mod explain;
mod export;
pub mod filter;
mod frequent_keys;
mod history;
pub(crate) mod json_line;
mod list;
mod log_point;
mod near_names;
mod past_messages;
mod read_model_row;
mod scan;
mod seek;
mod show;
mod stats;
mod subject;
mod subject_changes;
mod subject_state;
mod tail;
pub mod time;
mod trace;
mod unmatched_names;

pub use crate::row_fields::FieldValue;
pub use app_lookup::{AppLookupError, find_app, find_stream};
pub use event::{AuditedEvent, EventReference};
pub use event_effects::{
    AffectedProjection, Effect, EntityEffect, EventDiscard, EventEffects, event_effects,
};
pub use event_rate::event_rate;
pub use explain::{ExplainError, ExplainedDeadLetter, ExplainedField, Explanation, explain};
pub use export::{ExportError, ExportFormat, export};
pub use filter::{EventFilter, EventFilterParams, InvalidFilter};
pub use history::{Change, Difference, PastState, difference, state_at};
pub use list::{EventPage, ListRequest, list, unknown_type_diagnostics};
pub use log_point::{LogPoint, ResolvedPoint};
pub use past_messages::{PastMessage, PastMessages, past_messages};
pub use scan::{Order, Scan, ScanBatch};
pub use show::{EventSelector, ShownEvent, find_event, show};
pub use stats::{Counts, HourCount, KeyCount, Stats, stats};
pub use subject::{Subject, SubjectKind, SubjectName};
pub use subject_changes::{MessageVersions, NeighbouringChanges, message_versions, neighbouring_changes};
pub use subject_state::{Existence, Field, SubjectState, subject_state};
pub use tail::{Tail, TailBatch};
pub use trace::{Trace, TracedRequest, trace};
pub use unmatched_names::unmatched_names;
