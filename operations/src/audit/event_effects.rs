//! The effects of an event: the rows and documents that it changed, and the fields that still have its values.

use chat_domain::operator_action::DeadLetterDiscarded;
use chat_domain::projection::ProjectionName;
use chat_domain::{
    Event, MessageNumber, OperatorAction, Position, Revision, StreamId, Version, app, chat, operator_action,
};
use chat_ports::event_store::{EventStore, EventStoreError, RecordedEvent};
use chat_projector::dead_letters::DeadLetterReason;
use serde::Serialize;
use utoipa::ToSchema;

use super::event::AuditedEvent;
use super::subject::{Subject, SubjectName};
use super::subject_state::{AFTER_ALL_EVENTS, read_discards, subject_state};
use crate::envelope::{Diagnostic, Report};

/// An event with its effects.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct EventEffects {
    /// The event.
    pub event: AuditedEvent,
    /// The rows and documents that it changed; empty for operator actions and dead letters.
    #[serde(rename = "touches")]
    pub effects: Vec<EntityEffect>,
    /// Why projections turn it into a dead letter, if it can't be decoded or does not belong in its stream.
    #[serde(rename = "parked_because", skip_serializing_if = "Option::is_none")]
    pub dead_letter_reason: Option<String>,
    /// The operator actions that discarded it. Programs find them in the diagnostics.
    #[serde(skip)]
    #[schema(ignore)]
    pub discards: Vec<EventDiscard>,
}

/// An operator action that discarded an event from a projection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventDiscard {
    /// The projection.
    pub projection: ProjectionName,
    /// The position of the operator action.
    pub by: Position,
    /// The operator's reason.
    pub reason: String,
}

/// A row or document that an event changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct EntityEffect {
    /// The projection.
    pub projection: AffectedProjection,
    /// The subject.
    pub subject: SubjectName,
    /// The effect on the row or document.
    pub effect: Effect,
    /// The fields that the event set.
    #[schema(value_type = Vec<String>)]
    pub fields: Vec<&'static str>,
    /// The fields that the event set and that no later event has set.
    #[serde(rename = "still")]
    #[schema(value_type = Vec<String>)]
    pub current_fields: Vec<&'static str>,
}

/// A projection that an event changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AffectedProjection {
    /// The read model: a row changed.
    ReadModel,
    /// The search index: a document changed.
    SearchIndex,
}

/// The effect of an event on a row or document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Created.
    Created,
    /// Changed.
    Changed,
    /// Removed.
    Removed,
}

const APP_FIELDS: &[&str] = &["name", "app_token", "chat_count", "created_at", "updated_at", "version"];
const CHAT_FIELDS: &[&str] = &["chat_number", "message_count", "created_at", "updated_at", "version"];
const MESSAGE_FIELDS: &[&str] = &["message_number", "body", "created_at", "updated_at", "version"];

/// Finds the effects of an event.
pub async fn event_effects(
    log: &dyn EventStore,
    event: &RecordedEvent,
) -> Result<EventEffects, EventStoreError> {
    let mut event_effects = EventEffects {
        event: event.into(),
        effects: Vec::new(),
        dead_letter_reason: None,
        discards: Vec::new(),
    };
    if &*event.stream == operator_action::STREAM {
        return Ok(event_effects);
    }
    event_effects.discards = find_discards(log, event.position).await?;
    let (stream, payload) = match (StreamId::parse(&event.stream), event.decode()) {
        (Ok(stream), Ok(payload)) => (stream, payload),
        (Err(_), _) => {
            event_effects.dead_letter_reason = Some(DeadLetterReason::UNKNOWN_STREAM.as_str().to_owned());
            return Ok(event_effects);
        }
        (_, Err(error)) => {
            event_effects.dead_letter_reason = Some(DeadLetterReason::from(&error).as_str().to_owned());
            return Ok(event_effects);
        }
    };
    let effects = find_effects(stream, &payload);
    if effects.is_empty() {
        event_effects.dead_letter_reason = misplacement(stream, &payload);
        return Ok(event_effects);
    }
    for (projection, subject, effect, fields) in effects {
        let mut fields = fields.to_vec();
        if matches!(subject, Subject::Message(..)) {
            fields.extend(optional_fields_set_by(&payload));
        }
        let current_fields = fields_last_set_by(log, subject, &fields, event.position).await?;
        event_effects.effects.push(EntityEffect {
            projection,
            subject: subject.into(),
            effect,
            fields,
            current_fields,
        });
    }
    Ok(event_effects)
}

/// Reads the operator actions that discarded the event at a position.
async fn find_discards(
    log: &dyn EventStore,
    position: Position,
) -> Result<Vec<EventDiscard>, EventStoreError> {
    let (mut discards, mut from) = (Vec::new(), Revision::FIRST);
    loop {
        let actions = read_discards(log, from).await?;
        let Some(last) = actions.last() else { return Ok(discards) };
        from = last.revision.next();
        for action in &actions {
            let decoded = OperatorAction::decode(&action.event_type, action.schema_version, &action.data);
            // An action that can't be decoded does nothing, as in the projections.
            if let Ok(OperatorAction::DeadLetterDiscarded(discarded)) = decoded
                && discarded.position == position
            {
                let DeadLetterDiscarded { projection, reason, .. } = discarded;
                discards.push(EventDiscard { projection, by: action.position, reason });
            }
        }
    }
}

/// The parts of an [`EntityEffect`]: the projection, the subject, the effect, and the fields that every event of the
/// type sets.
type EffectParts = (AffectedProjection, Subject, Effect, &'static [&'static str]);

/// The optional fields, `sender` and `data`, that an event of a message sets.
fn optional_fields_set_by(event: &Event) -> Vec<&'static str> {
    let (sets_sender, sets_data) = match event {
        Event::MessageCreated(created) => (created.sender.is_some(), created.data.is_some()),
        Event::MessageEdited(edited) => (false, !edited.data.is_keep()),
        _ => (false, false),
    };
    let names = [("sender", sets_sender), ("data", sets_data)];
    names.into_iter().filter_map(|(name, is_set)| is_set.then_some(name)).collect()
}

fn find_effects(stream: StreamId, event: &Event) -> Vec<EffectParts> {
    use AffectedProjection::{ReadModel, SearchIndex};
    use Effect::{Changed, Created, Removed};
    const MESSAGE_COUNT_FIELDS: &[&str] = &["message_count", "updated_at", "version"];
    const EDITED_FIELDS: &[&str] = &["body", "updated_at", "version"];
    const DELETED_FIELDS: &[&str] = &["body", "deleted_at", "version"];
    match (stream, event) {
        (StreamId::App(app), Event::AppCreated(_)) => {
            vec![(ReadModel, Subject::App(app), Created, APP_FIELDS)]
        }
        (StreamId::App(app), Event::AppRenamed(_)) => {
            vec![(ReadModel, Subject::App(app), Changed, &["name", "updated_at", "version"])]
        }
        (StreamId::App(app), Event::ChatCreated(created)) => vec![
            (ReadModel, Subject::App(app), Changed, &["chat_count", "updated_at", "version"]),
            (ReadModel, Subject::Chat(app, created.chat_number), Created, CHAT_FIELDS),
        ],
        (StreamId::Chat(app, chat), event) => {
            let message = |number: MessageNumber| Subject::Message(app, chat, number);
            let chat_subject = Subject::Chat(app, chat);
            match event {
                Event::MessageCreated(created) => vec![
                    (ReadModel, chat_subject, Changed, MESSAGE_COUNT_FIELDS),
                    (ReadModel, message(created.message_number), Created, MESSAGE_FIELDS),
                    (SearchIndex, message(created.message_number), Created, MESSAGE_FIELDS),
                ],
                Event::MessageEdited(edited) => vec![
                    (ReadModel, chat_subject, Changed, &["updated_at", "version"]),
                    (ReadModel, message(edited.message_number), Changed, EDITED_FIELDS),
                    (SearchIndex, message(edited.message_number), Changed, EDITED_FIELDS),
                ],
                Event::MessageDeleted(deleted) => vec![
                    (ReadModel, chat_subject, Changed, MESSAGE_COUNT_FIELDS),
                    (ReadModel, message(deleted.message_number), Removed, DELETED_FIELDS),
                    (SearchIndex, message(deleted.message_number), Removed, DELETED_FIELDS),
                ],
                _ => Vec::new(),
            }
        }
        (StreamId::App(_), _) => Vec::new(),
    }
}

/// Returns why the read model does not apply an event in a stream of the wrong kind: an app's event in a chat's stream,
/// or a message's event in an app's stream.
fn misplacement(stream: StreamId, event: &Event) -> Option<String> {
    let existing_app = app::State::Present { last_chat: None, version: Version::new(1) };
    let error = match stream {
        StreamId::App(_) => app::evolve(existing_app, event).err(),
        StreamId::Chat(..) => chat::evolve(chat::State::default(), event).err(),
    };
    error.map(|error| DeadLetterReason::from(error).as_str().to_owned())
}

/// Returns those of `fields` that the event at `position` set and no later event has set.
async fn fields_last_set_by(
    log: &dyn EventStore,
    subject: Subject,
    fields: &[&'static str],
    position: Position,
) -> Result<Vec<&'static str>, EventStoreError> {
    let current = subject_state(log, subject, AFTER_ALL_EVENTS).await?;
    let is_last_set_here =
        |name: &&&'static str| current.field(name).is_some_and(|field| field.set_by.position == position);
    Ok(fields.iter().filter(is_last_set_here).copied().collect())
}

impl Report for EventEffects {
    fn has_findings(&self) -> bool {
        self.dead_letter_reason.is_some()
    }

    fn diagnostics(&self) -> Vec<Diagnostic> {
        let mut diagnostics = match &self.dead_letter_reason {
            Some(reason) => vec![Diagnostic::warning(format!("the event is a dead letter: {reason}"))],
            None if self.effects.is_empty() => {
                vec![Diagnostic::note(
                    "the event does not concern apps, chats or messages, so it changes no rows or documents",
                )]
            }
            None => Vec::new(),
        };
        for EventDiscard { projection, by, reason } in &self.discards {
            diagnostics.push(Diagnostic::note(format!(
                "it was discarded in {} by the operator action at position {by}: {reason}",
                projection.as_str()
            )));
        }
        diagnostics
    }
}
