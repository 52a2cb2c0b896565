//! Options that select events.

use chat_operations::audit::{EventFilter, EventFilterParams};
use chat_ports::clock;
use clap::Args;

use crate::failure::Failure;

/// Events that fit all given options.
#[derive(Clone, Args)]
#[command(next_help_heading = "Which events")]
pub(super) struct FilterOptions {
    /// Of this stream
    #[arg(long, value_name = "STREAM")]
    stream: Option<String>,
    /// Of this app and its chats
    #[arg(long, value_name = "TOKEN")]
    app: Option<String>,
    /// Of this chat of the app
    #[arg(long, value_name = "NUMBER")]
    chat: Option<String>,
    /// Of this type, such as MessageDeleted; several (with commas, or given again): of one of them
    #[arg(long = "type", value_name = "TYPE", value_delimiter = ',')]
    types: Vec<String>,
    /// By this kind of actor (app, admin, operator, anonymous, system), or by the operator of this name
    #[arg(long, value_name = "ACTOR")]
    actor: Option<String>,
    /// From this network address
    #[arg(long, value_name = "ADDRESS")]
    address: Option<String>,
    /// Of this request or trace
    #[arg(long, value_name = "ID")]
    correlation: Option<String>,
    /// Not older than this: 90s, 2h, 1d12h
    #[arg(long, value_name = "DURATION")]
    since: Option<String>,
    /// Recorded at this time or later: RFC 3339, or a date
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// After this position
    #[arg(long, value_name = "POSITION")]
    after: Option<String>,
    /// Before this position
    #[arg(long, value_name = "POSITION")]
    before: Option<String>,
    /// With this text in the payload, whatever its case
    #[arg(long, value_name = "TEXT")]
    text: Option<String>,
}

impl FilterOptions {
    /// Parses the options. `to` is the latest time, whose flag differs by command.
    pub(super) fn parse(&self, to: Option<&str>) -> Result<EventFilter, Failure> {
        EventFilter::parse(self.unparsed(to), clock::now())
            .map_err(|error| Failure::new(format!("--{} must be {}", error.part, error.must)))
    }

    /// The options as they were given.
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
