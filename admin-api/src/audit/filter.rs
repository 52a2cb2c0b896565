//! Which events are meant, as a query string says it.

use chat_operations::audit::{EventFilter, EventFilterParams};
use chat_ports::clock;
use chat_web::Problem;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::query_params::malformed_parameter;

/// Which events: those that everything given fits.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct FilterParams {
    /// Of this stream.
    #[param(example = "chat-operations")]
    stream: Option<String>,
    /// Of this app and its chats.
    #[param(example = "9vFRRV7QaTDRcVtWjbSMWCQGQnHJAZKBPXyT")]
    app: Option<String>,
    /// Of this chat of the app.
    #[param(value_type = Option<u64>, minimum = 1)]
    chat: Option<String>,
    /// Of one of these types, with commas between them.
    #[serde(rename = "type")]
    #[param(example = "MessageEdited,MessageDeleted")]
    types: Option<String>,
    /// By this kind of actor (app, admin, operator, anonymous, system), or by the operator of this name.
    actor: Option<String>,
    /// From this network address.
    address: Option<String>,
    /// Of this request or trace.
    correlation: Option<String>,
    /// Not older than this.
    #[param(example = "2h")]
    since: Option<String>,
    /// Recorded at this time or later: RFC 3339, or a date.
    #[param(example = "2026-09-21T14:13:20Z")]
    from: Option<String>,
    /// Recorded at this time or earlier.
    to: Option<String>,
    /// After this position.
    #[param(value_type = Option<u64>)]
    after: Option<String>,
    /// Before this position.
    #[param(value_type = Option<u64>)]
    before: Option<String>,
    /// With this text in the payload, whatever its case.
    text: Option<String>,
}

impl FilterParams {
    pub(super) fn into_filter(self) -> Result<EventFilter, Problem> {
        let types = self.types.iter().flat_map(|types| types.split(','));
        let words = EventFilterParams {
            types: types.map(str::to_owned).filter(|name| !name.is_empty()).collect(),
            stream: self.stream,
            app: self.app,
            chat: self.chat,
            actor: self.actor,
            address: self.address,
            correlation: self.correlation,
            since: self.since,
            from: self.from,
            to: self.to,
            after: self.after,
            before: self.before,
            text: self.text,
        };
        EventFilter::parse(words, clock::now()).map_err(|error| malformed_parameter(error.part, error.must))
    }
}
