//! Names of a filter that do not occur in the log.

use chat_domain::{AppToken, Metadata, StreamId};
use chat_ports::event_store::{EventStore, EventStoreError, RecordedEvent, creation_lookup};

use super::filter::{EventFilter, actor_kind_name};
use super::near_names::NearNames;
use super::scan::{Order, Scan};
use crate::envelope::Diagnostic;

/// Returns a warning for each name in a filter that does not occur in the log: stream, app, chat, actor, address and
/// correlation id. Suggests similar streams, actors and addresses of the log. Looks for the chat only if all other
/// names occur.
///
/// Meant for a filter that matched nothing: reads the log backwards until every name has been found, or else to the
/// start of the log.
pub async fn unmatched_names(
    log: &dyn EventStore,
    filter: &EventFilter,
) -> Result<Vec<Diagnostic>, EventStoreError> {
    let mut sought = SoughtNames::from_filter(filter);
    let mut scan = Scan::new(EventFilter::default(), Order::NewestFirst);
    while sought.has_any()
        && let Some(batch) = scan.next_batch(log).await?
    {
        batch.events.iter().for_each(|event| sought.remove_names_of(event));
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

/// The names of a filter that have not been found in the log yet. [`NearNames`] collects names of the log that resemble
/// them.
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

    fn has_any(&self) -> bool {
        self.stream.is_some() || self.app.is_some() || self.has_any_in_metadata()
    }

    fn has_any_in_metadata(&self) -> bool {
        self.actor.is_some() || self.address.is_some() || self.correlation_id.is_some()
    }

    /// Removes the names that the event has.
    fn remove_names_of(&mut self, event: &RecordedEvent) {
        remove_if_found(&mut self.stream, [&*event.stream]);
        if self.app.is_some()
            && let Ok(stream) = StreamId::parse(&event.stream)
            && self.app == Some(*stream.app())
        {
            self.app = None;
        }
        if !self.has_any_in_metadata() {
            return;
        }
        let Ok(metadata) = serde_json::from_slice::<Metadata>(&event.metadata) else { return };
        let kind = actor_kind_name(metadata.actor.kind);
        remove_if_found(&mut self.actor, [kind].into_iter().chain(metadata.actor.name.as_deref()));
        remove_if_found(&mut self.address, metadata.actor.address.as_deref());
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

/// Removes the sought name if it is among `names`. Otherwise keeps those of `names` that are similar.
fn remove_if_found<'a>(sought: &mut Option<(String, NearNames)>, names: impl IntoIterator<Item = &'a str>) {
    let Some((text, near)) = sought else { return };
    for name in names {
        if name == text {
            *sought = None;
            return;
        }
        near.offer(name);
    }
}
