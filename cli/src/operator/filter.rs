//! Options that select events.

use chat_domain::AppToken;
use chat_operations::audit::{
    AppLookupError, EventFilter, EventFilterParams, find_app, find_stream, unmatched_names,
};
use chat_ports::clock;
use chat_ports::event_store::EventStore;
use clap::Args;

use super::answer::Answer;
use super::context::event_store_failure;
use crate::failure::Failure;

/// Options that select events. An event must fit all of them.
#[derive(Clone, Args)]
#[command(next_help_heading = "Which events")]
pub(super) struct FilterOptions {
    /// Only events of this stream; its app's token may be abbreviated, as tables print it
    #[arg(long, value_name = "STREAM")]
    stream: Option<String>,
    /// Only events of this app and its chats: its token, the beginning of its token, or its name
    #[arg(long, value_name = "APP")]
    app: Option<String>,
    /// Only events of this chat of the app
    #[arg(long, value_name = "NUMBER")]
    chat: Option<String>,
    /// Only events of this type, such as MessageDeleted; for several types, separate them with commas or repeat the
    /// option
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
    /// Only creations of messages of the sender with this id
    #[arg(long, value_name = "ID")]
    sender: Option<String>,
    /// Only events with this text in the payload, in upper or lower case
    #[arg(long, value_name = "TEXT")]
    text: Option<String>,
}

impl FilterOptions {
    /// Checks the options before the log is opened. `to` is the latest time, from the flag `--to` or `--until`.
    pub(super) fn check(&self, to: Option<&str>) -> Result<(), Failure> {
        let mut params = self.unparsed(to);
        if params.app.as_ref().is_some_and(|app| !app.is_empty()) {
            // Only the log tells whether the app exists. For this check, a valid token stands in for it.
            params.app = Some(AppToken::generate(|bytes| bytes.fill(0)).expose().to_owned());
        }
        parse(params).map(drop)
    }

    /// Returns the options unparsed, with the whole token of the app and the whole name of the stream.
    pub(super) async fn resolve(
        &self,
        to: Option<&str>,
        log: &dyn EventStore,
    ) -> Result<EventFilterParams, Failure> {
        let mut params = self.unparsed(to);
        if let Some(app) = &params.app {
            params.app = Some(resolve_app(log, app).await?.expose().to_owned());
        }
        if let Some(stream) = &params.stream {
            params.stream = Some(resolve_stream(log, stream).await?);
        }
        Ok(params)
    }

    /// Returns the options unparsed.
    fn unparsed(&self, to: Option<&str>) -> EventFilterParams {
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
            sender: given.sender,
            text: given.text,
        }
    }
}

/// Parses options.
pub(super) fn parse(params: EventFilterParams) -> Result<EventFilter, Failure> {
    EventFilter::parse(params, clock::now()).map_err(|error| {
        let requirement = if error.parameter == "app" {
            "an app's token, the beginning of one, or an app's name"
        } else {
            error.requirement
        };
        Failure::new(format!("--{} must be {requirement}", error.parameter))
    })
}

/// Finds the app that an argument names.
pub(super) async fn resolve_app(log: &dyn EventStore, text: &str) -> Result<AppToken, Failure> {
    find_app(log, text).await.map_err(lookup_failure)
}

/// Finds the stream that an argument names. A stream that is not in the log is returned as it is written.
pub(super) async fn resolve_stream(log: &dyn EventStore, text: &str) -> Result<String, Failure> {
    find_stream(log, text).await.map_err(lookup_failure)
}

fn lookup_failure(error: AppLookupError) -> Failure {
    match error {
        AppLookupError::EventStore(error) => event_store_failure(error),
        error => Failure::new(error.to_string()),
    }
}

/// Adds warnings to an answer without events if names in the filter do not occur in the log.
pub(super) async fn warn_of_unmatched_names(
    answer: Answer,
    log: &dyn EventStore,
    filter: &EventFilter,
) -> Result<Answer, Failure> {
    let warnings = unmatched_names(log, filter).await.map_err(event_store_failure)?;
    Ok(answer.with_diagnostics(warnings))
}
