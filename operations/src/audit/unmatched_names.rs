//! Names of a filter that do not occur in the log.

use chat_domain::{AppToken, Metadata, StreamId};
use chat_ports::event_store::{EventStore, EventStoreError, RecordedEvent, creation_lookup};

use super::filter::{EventFilter, actor_kind_name};
use super::near_names::NearNames;
use super::scan::{Order, Scan};
use crate::envelope::Diagnostic;

/// Warns of each name in a filter that does not occur in the log: stream, app, chat, actor, address and correlation id.
/// Suggests similar streams, actors and addresses that do. Looks for the chat only if all other names occur. Meant for
/// a filter that matched nothing: reads the log backwards until every name was found, or to its start.
pub async fn unmatched_names(
    log: &dyn EventStore,
    filter: &EventFilter,
) -> Result<Vec<Diagnostic>, EventStoreError> {
    let mut sought = SoughtNames::from_filter(filter);
    let mut scan = Scan::new(EventFilter::default(), Order::NewestFirst);
    while sought.any()
        && let Some(batch) = scan.next_batch(log).await?
    {
        batch.events.iter().for_each(|event| sought.strike_out(event));
    }
    let mut warnings = sought.warnings();
    if warnings.is_empty()
        && let (Some(app), Some(chat)) = (filter.app, filter.chat)
        && creation_lookup::find_chat_created(log, app, chat).await?.is_none()
    {
        warnings.push(Diagnostic::warning(format!("the app has no chat {chat}")));
    }
    Ok(warnings)
}

/// The names of a filter that were not found yet.
struct SoughtNames {
    stream: Option<(String, NearNames)>,
    app: Option<AppToken>,
    actor: Option<(String, NearNames)>,
    address: Option<(String, NearNames)>,
    correlation_id: Option<String>,
}

impl SoughtNames {
    fn from_filter(filter: &EventFilter) -> Self {
        let name = |text: &str| (text.to_owned(), NearNames::new(text));
        Self {
            stream: filter.stream.as_deref().map(name),
            app: filter.app,
            actor: filter.actor.as_deref().map(name),
            address: filter.address.as_deref().map(name),
            correlation_id: filter.correlation_id.clone(),
        }
    }

    fn any(&self) -> bool {
        self.stream.is_some() || self.app.is_some() || self.is_any_in_metadata()
    }

    fn is_any_in_metadata(&self) -> bool {
        self.actor.is_some() || self.address.is_some() || self.correlation_id.is_some()
    }

    /// Strikes out the names that the event has.
    fn strike_out(&mut self, event: &RecordedEvent) {
        strike_out_name(&mut self.stream, [&*event.stream]);
        if self.app.is_some()
            && let Ok(stream) = StreamId::parse(&event.stream)
            && self.app == Some(*stream.app())
        {
            self.app = None;
        }
        if !self.is_any_in_metadata() {
            return;
        }
        let Ok(metadata) = serde_json::from_slice::<Metadata>(&event.metadata) else { return };
        let kind = actor_kind_name(metadata.actor.kind);
        strike_out_name(&mut self.actor, [kind].into_iter().chain(metadata.actor.name.as_deref()));
        strike_out_name(&mut self.address, metadata.actor.address.as_deref());
        self.correlation_id.take_if(|sought| *sought == metadata.correlation_id);
    }

    fn warnings(&self) -> Vec<Diagnostic> {
        let mut warnings = Vec::new();
        let mut warn = |text: String| warnings.push(Diagnostic::warning(text));
        if let Some((name, near)) = &self.stream {
            warn(format!("the log has no stream {name:?}{}", near.suggestion()));
        }
        if let Some(app) = &self.app {
            warn(format!("the log has no event of the app {app:?}"));
        }
        if let Some((name, near)) = &self.actor {
            warn(format!("the log has no event by the actor {name:?}{}", near.suggestion()));
        }
        if let Some((name, near)) = &self.address {
            warn(format!("the log has no event from the address {name:?}{}", near.suggestion()));
        }
        if let Some(id) = &self.correlation_id {
            warn(format!("the log has no event with the correlation id {id:?}"));
        }
        warnings
    }
}

/// Strikes out the sought name if it is among the names, or else keeps those that are near.
fn strike_out_name<'a>(sought: &mut Option<(String, NearNames)>, names: impl IntoIterator<Item = &'a str>) {
    let Some((text, near)) = sought else { return };
    for name in names {
        if name == text {
            *sought = None;
            return;
        }
        near.offer(name);
    }
}
