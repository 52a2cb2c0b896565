//! Dead letters: events that can't be applied, and the operator actions on them.
//!
//! An event that can't be applied is recorded as a dead letter, together with all later events of its stream, so that
//! nothing is applied out of order: the stream is blocked. Other streams continue.
//!
//! An operator action on dead letters is an event of the operators' stream ([`chat_domain::operator_action`]). A
//! projection folds the events before the action, then applies the action. A long action is applied in several commits;
//! the last one also moves the projection's checkpoint past the action's event. After a crash between two commits, the
//! action is applied again, and does only what is left of it. So an action takes effect exactly once, and a rebuilt
//! projection gets the same content.
//!
//! - **Retry** reads the events of a stream's dead letters from the log again, in order, and applies them. The retry
//!   stops at the first event that still can't be applied: its dead letter gets the new reason, and the rest of the
//!   stream stays blocked.
//! - **Discard** excludes the first dead letter of a stream: it is marked as discarded, and the same action retries the
//!   rest of the stream. A dead letter behind another one can't be discarded.
//! - **Acknowledge** records that an operator has seen a discarded event.
//!
//! An action on a dead letter that does not exist changes nothing. Such actions occur in a rebuild: a newer version of
//! the program may apply an event that was a dead letter before.

mod action;
mod apply;
pub(crate) mod blocked_streams;
pub(crate) mod queue;
pub(crate) mod reason;
pub(crate) mod retry;

pub use action::{DeadLetterAction, DeadLetterActionKind};
pub use apply::{ActionOutcome, RETRY_CHUNK_EVENTS, advance_projection, apply_action};
pub use blocked_streams::BlockedStreams;
pub use queue::DeadLetterQueue;
pub use reason::DeadLetterReason;
pub use retry::{PendingRetry, RetryBatch, RetryOutcome};
