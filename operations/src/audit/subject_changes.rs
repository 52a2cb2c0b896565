//! The events that changed a subject: the versions of a message, newest first, and the changes before and after a
//! position.

use std::cmp::Ordering;
use std::sync::Arc;

use chat_domain::{MessageNumber, Position, Revision};
use chat_ports::MAX_PAGE_BYTES;
use chat_ports::event_store::{
    EventStore, EventStoreError, EventTypeFilter, ReadStart, RecordedEvent, StreamRead, creation_lookup,
};

use super::seek;
use super::subject::Subject;
use super::subject_state::MESSAGE_CREATED;

/// The number of events per read. It is low because each event may have a body of 64 KiB.
pub(super) const BATCH_EVENTS: usize = 128;

/// The approximate maximal number of a chat's events that one search for changes of its messages reads.
pub(super) const MAX_SCANNED_CHANGES: usize = 20_000;

/// A page of a message's events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MessageVersions {
    /// The events, newest first: the creation, edits and the deletion. Those that can't be decoded are left out.
    pub events: Vec<RecordedEvent>,
    /// The position before which the next page begins; `None` if there is no further page.
    pub next: Option<Position>,
}

/// The changes of a subject next to a position. The creation of the subject is one of its changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NeighbouringChanges {
    /// The last change before the position.
    pub previous: Option<Position>,
    /// The first change after the position.
    pub next: Option<Position>,
}

/// Reads up to `limit` versions of a message, newest first, before a position if one is given. A page ends early at
/// [`MAX_PAGE_BYTES`] of payloads, or after about 20,000 changes of any messages of the chat. `None` if the chat has no
/// such message, or if the creation of the message can't be decoded.
pub async fn message_versions(
    log: &dyn EventStore,
    subject: (chat_domain::AppToken, chat_domain::ChatNumber, MessageNumber),
    before: Option<Position>,
    limit: usize,
) -> Result<Option<MessageVersions>, EventStoreError> {
    let (app, chat, message) = subject;
    let Some(created) = creation_lookup::find_message_created(log, app, chat, message).await? else {
        return Ok(None);
    };
    let stream = Subject::Chat(app, chat).stream();
    let mut versions = MessageVersions::default();
    let mut start = match before.map(last_position_before) {
        None => Some(ReadStart::End),
        Some(last) => seek::last_revision_up_to(log, &stream, last).await?.map(ReadStart::Backwards),
    };
    let (mut scanned, mut bytes) = (0, 0);
    while let Some(from) = start {
        let read = StreamRead::all(Arc::clone(&stream), from, BATCH_EVENTS)
            .filtered(EventTypeFilter::Except(MESSAGE_CREATED));
        let events = log.read_stream(read).await?;
        let Some((last_revision, last_position)) =
            events.last().map(|event| (event.revision, event.position))
        else {
            break;
        };
        scanned += events.len();
        for event in events {
            if event.revision < created.revision {
                start = None;
                break;
            }
            if !is_about(&event, message) {
                continue;
            }
            bytes += event.data.len();
            let is_full = versions.events.len() >= limit || bytes > MAX_PAGE_BYTES;
            if is_full && !versions.events.is_empty() {
                versions.next = versions.events.last().map(|last| last.position);
                return Ok(Some(versions));
            }
            versions.events.push(event);
        }
        if start.is_some() {
            start = last_revision
                .get()
                .checked_sub(1)
                .map(|revision| ReadStart::Backwards(Revision::new(revision)));
            if start.is_some() && scanned >= MAX_SCANNED_CHANGES {
                versions.next = Some(last_position);
                return Ok(Some(versions));
            }
        }
    }
    if before.is_none_or(|before| created.position < before) {
        if versions.events.len() >= limit && !versions.events.is_empty() {
            versions.next = versions.events.last().map(|last| last.position);
        } else {
            versions.events.push(created);
        }
    }
    Ok(Some(versions))
}

/// Finds the changes of a subject next to a position. The creation of a chat is found too, although it is in the app's
/// stream. The search for a change of a message gives up after about 20,000 events of the chat in each direction.
pub async fn neighbouring_changes(
    log: &dyn EventStore,
    subject: Subject,
    position: Position,
) -> Result<NeighbouringChanges, EventStoreError> {
    let stream = subject.stream();
    let previous = match seek::last_revision_up_to(log, &stream, last_position_before(position)).await? {
        Some(revision) => first_match(log, &stream, ReadStart::Backwards(revision), subject).await?,
        None => None,
    };
    let next = match seek::first_revision_after(log, &stream, position).await? {
        Some(revision) => first_match(log, &stream, ReadStart::Forwards(revision), subject).await?,
        None => None,
    };
    let mut neighbours = NeighbouringChanges { previous, next };
    if let Subject::Chat(app, chat) = subject
        && let Some(created) = creation_lookup::find_chat_created(log, app, chat).await?
    {
        let created = created.position;
        match created.cmp(&position) {
            Ordering::Less => neighbours.previous = neighbours.previous.max(Some(created)),
            Ordering::Equal => {}
            Ordering::Greater => neighbours.next = Some(created),
        }
    }
    Ok(neighbours)
}

/// Returns the position of the first event that changed the subject, reading from `start` in its direction.
async fn first_match(
    log: &dyn EventStore,
    stream: &Arc<str>,
    start: ReadStart,
    subject: Subject,
) -> Result<Option<Position>, EventStoreError> {
    let Some(message) = subject.message() else {
        let event = log.read_stream(StreamRead::all(Arc::clone(stream), start, 1)).await?.pop();
        return Ok(event.map(|event| event.position));
    };
    let (mut start, mut scanned) = (start, 0);
    while scanned < MAX_SCANNED_CHANGES {
        let events = log.read_stream(StreamRead::all(Arc::clone(stream), start, BATCH_EVENTS)).await?;
        let Some(last) = events.last().map(|event| event.revision) else { break };
        if let Some(event) = events.iter().find(|event| is_about(event, message)) {
            return Ok(Some(event.position));
        }
        scanned += events.len();
        start = match start {
            ReadStart::Forwards(_) => ReadStart::Forwards(last.next()),
            ReadStart::End | ReadStart::Backwards(_) => match last.get().checked_sub(1) {
                Some(before) => ReadStart::Backwards(Revision::new(before)),
                None => break,
            },
        };
    }
    Ok(None)
}

fn is_about(event: &RecordedEvent, message: MessageNumber) -> bool {
    event.decode().is_ok_and(|event| event.message_number() == Some(message))
}

fn last_position_before(position: Position) -> Position {
    Position::new(position.get().saturating_sub(1))
}
