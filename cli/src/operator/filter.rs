//! Options that select events.

use chat_operations::audit::{EventFilter, EventFilterParams};
use chat_ports::clock;
use clap::Args;

use crate::failure::Failure;

/// Options that select events. An event must fit all of them.
#[derive(Clone, Args)]
#[command(next_help_heading = "Which events")]
pub(super) struct FilterOptions {
    /// Only events of this stream
    #[arg(long, value_name = "STREAM")]
    stream: Option<String>,
    /// Only events of this app and its chats
    #[arg(long, value_name = "TOKEN")]
    app: Option<String>,
    /// Only events of this chat of the app
    #[arg(long, value_name = "NUMBER")]
    chat: Option<String>,
    /// Only events of this type, such as MessageDeleted; of one of several types, separated by commas or given
    /// repeatedly
    #[arg(long = "type", value_name = "TYPE", value_delimiter = ',')]
    types: Vec<String>,
    /// Only events by this kind of actor (app, admin, operator, anonymous, system), or by the operator of this name
    #[arg(long, value_name = "ACTOR")]
    actor: Option<String>,
    /// Only events from this network address
    #[arg(long, value_name = "ADDRESS")]
    address: Option<String>,
    /// Only events of this request or trace
    #[arg(long, value_name = "ID")]
    correlation: Option<String>,
    /// Only events not older than this: 90s, 2h, 1d12h
    #[arg(long, value_name = "DURATION")]
    since: Option<String>,
    /// Only events recorded at this time or later: RFC 3339, or a date
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Only events after this position
    #[arg(long, value_name = "POSITION")]
    after: Option<String>,
    /// Only events before this position
    #[arg(long, value_name = "POSITION")]
    before: Option<String>,
    /// Only events with this text in the payload, in upper or lower case
    #[arg(long, value_name = "TEXT")]
    text: Option<String>,
}

impl FilterOptions {
    /// Parses the options. `to` is the latest time; its flag has a different name in each command.
    pub(super) fn parse(&self, to: Option<&str>) -> Result<EventFilter, Failure> {
        EventFilter::parse(self.unparsed(to), clock::now())
            .map_err(|error| Failure::new(format!("--{} must be {}", error.part, error.must)))
    }

    /// Returns the options unparsed.
    pub(super) fn unparsed(&self, to: Option<&str>) -> EventFilterParams {
        let given = self.clone();
        EventFilterParams {
            stream: given.stream,
            app: given.app,
            chat: given.chat,
            types: given.types,
            actor: given.actor,
            address: given.address,
            correlation: given.correlation,
            since: given.since,
            from: given.from,
            to: to.map(str::to_owned),
            after: given.after,
            before: given.before,
            text: given.text,
        }
    }
}
