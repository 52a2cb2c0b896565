//! Event filters in query strings.

use chat_operations::audit::{EventFilter, EventFilterParams};
use chat_ports::clock;
use chat_web::Problem;
use chat_web::cursor::ListId;
use chat_web::extract::refuse_unescaped_plus;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::query_params::malformed_parameter;

/// Selects the events that match all given parameters.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct FilterParams {
    /// Events of this stream: `chat-operations`, `app-TOKEN` or `chat-TOKEN-NUMBER`.
    stream: Option<String>,
    /// Events of this app and its chats.
    app: Option<String>,
    /// Events of this chat of the app.
    #[param(value_type = Option<u64>, minimum = 1)]
    chat: Option<String>,
    /// Events of one of these types, separated by commas: `MessageEdited,MessageDeleted`.
    #[serde(rename = "type")]
    types: Option<String>,
    /// Events caused by this kind of actor (app, admin, operator, anonymous, system), or by the operator of this name.
    actor: Option<String>,
    /// Events caused from this network address.
    address: Option<String>,
    /// Events of this request or trace.
    correlation: Option<String>,
    /// Events not older than this: `30m`, `2h`.
    since: Option<String>,
    /// Events recorded at this time or later: RFC 3339, or a date.
    from: Option<String>,
    /// Events recorded at this time or earlier.
    to: Option<String>,
    /// Events after this position.
    #[param(value_type = Option<u64>)]
    after: Option<String>,
    /// Events before this position.
    #[param(value_type = Option<u64>)]
    before: Option<String>,
    /// Creations of messages of the sender with this id.
    #[param(min_length = 1, max_length = 128)]
    sender: Option<String>,
    /// Events with this text in a string of their payload, ignoring case.
    text: Option<String>,
}

impl FilterParams {
    /// Adds the filter to the id of a list, so that a cursor of the list is accepted only with the same filter.
    pub(super) fn restrict_list_id(&self, list: ListId) -> ListId {
        let Self {
            stream,
            app,
            chat,
            types,
            actor,
            address,
            correlation,
            since,
            from,
            to,
            after,
            before,
            sender,
            text,
        } = self;
        let parameters = [
            ("stream", stream),
            ("app", app),
            ("chat", chat),
            ("type", types),
            ("actor", actor),
            ("address", address),
            ("correlation", correlation),
            ("since", since),
            ("from", from),
            ("to", to),
            ("after", after),
            ("before", before),
            ("sender", sender),
            ("text", text),
        ];
        parameters.into_iter().fold(list, |list, (name, value)| list.with_parameter(name, value.as_deref()))
    }

    pub(super) fn into_filter(self) -> Result<EventFilter, Problem> {
        refuse_unescaped_plus("from", self.from.as_deref())?;
        refuse_unescaped_plus("to", self.to.as_deref())?;
        let types = self.types.iter().flat_map(|types| types.split(','));
        let types: Vec<String> = types.map(str::to_owned).filter(|name| !name.is_empty()).collect();
        if self.types.is_some() && types.is_empty() {
            return Err(malformed_parameter("type", "types of events, separated by commas"));
        }
        let params = EventFilterParams {
            types,
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
            sender: self.sender,
            text: self.text,
        };
        EventFilter::parse(params, clock::now())
            .map_err(|error| malformed_parameter(error.parameter, error.requirement))
    }
}
