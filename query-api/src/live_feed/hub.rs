//! The newest events of the log in memory, shared by all followers of a process.
//!
//! The hub holds the newest events in a ring that is bounded in bytes. Each scope that has followers has a list of its
//! events in the ring. A follower keeps no events of its own, only the position up to which it has read: however slow
//! it is, it costs no more memory than a fast one. If the ring drops an event that a follower has not read, the
//! follower reads it from the log, or ends if its client is slow.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chat_domain::{Position, StreamId};
use chat_ports::event_store::RecordedEvent;
use metrics::gauge;
use tokio::sync::watch;

use super::event::{FeedEvent, Scope};

/// The newest events of the log.
pub(crate) struct Hub {
    max_bytes: usize,
    /// All events up to this position are in the ring, or were dropped from it.
    up_to: AtomicU64,
    state: Mutex<HubState>,
}

struct HubState {
    /// All events of feeds after [`HubState::complete_after`] up to [`Hub::up_to`].
    ring: VecDeque<Arc<FeedEvent>>,
    bytes: usize,
    complete_after: Position,
    scopes: HashMap<Scope, FollowedScope>,
}

/// A scope that has followers.
struct FollowedScope {
    events: Arc<ScopeEvents>,
    followers: usize,
}

/// The events of a scope that are in the ring.
struct ScopeEvents {
    list: Mutex<EventList>,
    /// Notifies the followers of new events.
    changed: watch::Sender<()>,
}

struct EventList {
    events: VecDeque<Arc<FeedEvent>>,
    /// The list holds all events of the scope after this position.
    complete_after: Position,
}

/// Reads the events of one scope for a follower. The hub keeps the list of a scope while the scope has readers.
pub(crate) struct ScopeReader {
    hub: Arc<Hub>,
    scope: Scope,
    events: Arc<ScopeEvents>,
    changed: watch::Receiver<()>,
}

/// Events of a scope after a position.
pub(crate) enum NewEvents {
    /// The next events; empty if there are no later ones.
    Read(Vec<Arc<FeedEvent>>),
    /// The hub does not have all events after the position. Those up to `up_to` are in the log.
    Dropped { up_to: Position },
}

impl Hub {
    /// Creates a hub that will hold the events after a position, in at most `max_bytes`.
    pub(crate) fn new(after: Position, max_bytes: usize) -> Arc<Self> {
        let state =
            HubState { ring: VecDeque::new(), bytes: 0, complete_after: after, scopes: HashMap::new() };
        Arc::new(Self { max_bytes, up_to: AtomicU64::new(after.get()), state: Mutex::new(state) })
    }

    /// All events up to this position were published.
    pub(crate) fn up_to(&self) -> Position {
        Position::new(self.up_to.load(Ordering::Acquire))
    }

    /// Adds the next events of the log: all events after [`Self::up_to`] up to the new `up_to`. Notifies the followers
    /// of the events' scopes.
    pub(crate) fn publish(&self, events: Vec<RecordedEvent>, up_to: Position) {
        let mut changed_scopes = HashSet::new();
        let mut state = self.state();
        for event in events.into_iter().filter_map(FeedEvent::from_recorded) {
            state.add(Arc::new(event), &mut changed_scopes);
        }
        while state.bytes > self.max_bytes && state.drop_oldest() {}
        gauge!("chat_feed_buffer_bytes").set(as_metric(state.bytes));
        self.up_to.store(up_to.get(), Ordering::Release);
        let changed_lists: Vec<_> = changed_scopes
            .iter()
            .filter_map(|scope| Some(Arc::clone(&state.scopes.get(scope)?.events)))
            .collect();
        drop(state);
        for scope_events in changed_lists {
            scope_events.changed.send_replace(());
        }
    }

    /// Creates a reader of a scope.
    pub(crate) fn follow(self: &Arc<Self>, scope: Scope) -> ScopeReader {
        let mut state = self.state();
        let HubState { scopes, ring, complete_after, .. } = &mut *state;
        let followed = scopes.entry(scope).or_insert_with(|| {
            let events = ring.iter().filter(|event| event.is_in(scope)).cloned().collect();
            let list = Mutex::new(EventList { events, complete_after: *complete_after });
            let events = Arc::new(ScopeEvents { list, changed: watch::Sender::new(()) });
            FollowedScope { events, followers: 0 }
        });
        followed.followers += 1;
        let events = Arc::clone(&followed.events);
        let changed = events.changed.subscribe();
        ScopeReader { hub: Arc::clone(self), scope, events, changed }
    }

    fn state(&self) -> MutexGuard<'_, HubState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HubState {
    /// Adds an event, and adds to `changed_scopes` the scopes with followers that it belongs to.
    fn add(&mut self, event: Arc<FeedEvent>, changed_scopes: &mut HashSet<Scope>) {
        for scope in scopes_of(&event) {
            if let Some(followed) = self.scopes.get(&scope) {
                followed.events.list().events.push_back(Arc::clone(&event));
                changed_scopes.insert(scope);
            }
        }
        self.bytes += event.size();
        self.ring.push_back(event);
    }

    /// Drops the oldest event. Returns `false` if there is none.
    fn drop_oldest(&mut self) -> bool {
        let Some(oldest) = self.ring.pop_front() else { return false };
        self.bytes -= oldest.size();
        self.complete_after = oldest.position();
        for scope in scopes_of(&oldest) {
            let Some(followed) = self.scopes.get(&scope) else { continue };
            let mut list = followed.events.list();
            if list.events.pop_front_if(|event| event.position() == oldest.position()).is_some() {
                list.complete_after = oldest.position();
            }
        }
        true
    }
}

/// The scopes that an event belongs to.
fn scopes_of(event: &FeedEvent) -> impl Iterator<Item = Scope> + use<> {
    let chat = match event.stream {
        StreamId::App(_) => None,
        StreamId::Chat(app, chat) => Some(Scope::Chat(app, chat)),
    };
    std::iter::once(Scope::App(*event.stream.app())).chain(chat)
}

impl ScopeEvents {
    fn list(&self) -> MutexGuard<'_, EventList> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ScopeReader {
    /// Returns the next events after a position: at most `max_events`, and about `max_bytes`.
    pub(crate) fn read_after(&self, position: Position, max_events: usize, max_bytes: usize) -> NewEvents {
        let list = self.events.list();
        if position < list.complete_after {
            return NewEvents::Dropped { up_to: list.complete_after };
        }
        let start = list.events.partition_point(|event| event.position() <= position);
        let mut bytes = 0;
        let fitting = list.events.range(start..).take(max_events).take_while(|event| {
            let fits = bytes < max_bytes;
            bytes += event.size();
            fits
        });
        NewEvents::Read(fitting.cloned().collect())
    }

    /// Makes [`ScopeReader::changed`] wait for events that are published after this call.
    pub(crate) fn mark_known(&mut self) {
        self.changed.mark_unchanged();
    }

    /// Waits for new events. Cancel safe.
    pub(crate) async fn changed(&mut self) {
        // The sender lives as long as the reader.
        let _ = self.changed.changed().await;
    }

    pub(crate) fn hub(&self) -> &Hub {
        &self.hub
    }
}

impl Drop for ScopeReader {
    fn drop(&mut self) {
        let mut state = self.hub.state();
        if let Some(followed) = state.scopes.get_mut(&self.scope) {
            followed.followers -= 1;
            if followed.followers == 0 {
                state.scopes.remove(&self.scope);
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "memory sizes are far below 2^52")]
fn as_metric(bytes: usize) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use chat_domain::event::SchemaVersion;
    use chat_domain::metadata::EventId;
    use chat_domain::{AppToken, ChatNumber, Revision, Timestamp};
    use uuid::Uuid;

    use super::*;

    fn app(letter: &str) -> AppToken {
        AppToken::parse(&letter.repeat(36)).unwrap()
    }

    fn chat(letter: &str, number: u64) -> Scope {
        Scope::Chat(app(letter), ChatNumber::try_from(number).unwrap())
    }

    /// The event at a position, with a payload of `bytes`.
    fn event(position: u64, scope: Scope, bytes: usize) -> RecordedEvent {
        let stream = match scope {
            Scope::App(app) => StreamId::App(app),
            Scope::Chat(app, chat) => StreamId::Chat(app, chat),
        };
        RecordedEvent {
            position: Position::new(position),
            stream: stream.to_string().into(),
            revision: Revision::FIRST,
            id: EventId::new(Uuid::from_u128(1)),
            event_type: "MessageCreated".to_owned(),
            schema_version: SchemaVersion(1),
            recorded_at: Timestamp::from_millis(0),
            data: vec![b' '; bytes],
            metadata: Vec::new(),
        }
    }

    fn publish(hub: &Hub, position: u64, scope: Scope, bytes: usize) {
        hub.publish(vec![event(position, scope, bytes)], Position::new(position));
    }

    /// The positions of the events after a position, or the end of the dropped events.
    fn read(reader: &ScopeReader, after: u64) -> Result<Vec<u64>, u64> {
        match reader.read_after(Position::new(after), 100, usize::MAX) {
            NewEvents::Read(events) => Ok(events.iter().map(|event| event.position().get()).collect()),
            NewEvents::Dropped { up_to } => Err(up_to.get()),
        }
    }

    #[test]
    fn a_scope_has_its_own_events_from_before_and_after_its_first_follower() {
        let hub = Hub::new(Position::new(10), usize::MAX);
        publish(&hub, 11, chat("a", 1), 1);
        publish(&hub, 12, chat("a", 2), 1);
        publish(&hub, 13, chat("b", 1), 1);
        let of_app = hub.follow(Scope::App(app("a")));
        let of_chat = hub.follow(chat("a", 1));
        publish(&hub, 14, chat("a", 1), 1);
        publish(&hub, 15, Scope::App(app("a")), 1);
        assert_eq!(read(&of_app, 10), Ok(vec![11, 12, 14, 15]));
        assert_eq!(read(&of_app, 12), Ok(vec![14, 15]));
        assert_eq!(read(&of_chat, 10), Ok(vec![11, 14]));
        assert_eq!(read(&of_chat, 9), Err(10), "the hub does not know what was before");
        assert_eq!(read(&of_chat, 99), Ok(vec![]));
        assert_eq!(hub.up_to(), Position::new(15));
    }

    #[test]
    fn a_drop_affects_the_scope_of_the_dropped_events_and_scopes_followed_later() {
        let hub = Hub::new(Position::START, 10_000);
        let quiet = hub.follow(chat("a", 1));
        let busy = hub.follow(chat("a", 2));
        publish(&hub, 1, chat("a", 2), 1);
        for position in 2..20 {
            publish(&hub, position, chat("a", 2), 1_000);
        }
        let dropped = read(&busy, 0).unwrap_err();
        assert!((1..19).contains(&dropped), "{dropped}");
        assert_eq!(read(&busy, dropped).unwrap(), (dropped + 1..20).collect::<Vec<_>>());
        assert_eq!(read(&quiet, 0), Ok(vec![]), "nothing of this scope was dropped");
        assert_eq!(read(&hub.follow(chat("a", 3)), 0), Err(dropped));
        assert!(hub.state().bytes <= 10_000);
    }

    #[test]
    fn a_scope_without_followers_is_removed() {
        let hub = Hub::new(Position::START, usize::MAX);
        let (first, second) = (hub.follow(chat("a", 1)), hub.follow(chat("a", 1)));
        drop(first);
        assert_eq!(hub.state().scopes.len(), 1);
        drop(second);
        assert_eq!(hub.state().scopes.len(), 0);
    }

    #[tokio::test]
    async fn new_events_wake_the_followers_of_their_scope_only() {
        let hub = Hub::new(Position::START, usize::MAX);
        let (mut of_chat, mut of_other) = (hub.follow(chat("a", 1)), hub.follow(chat("a", 2)));
        publish(&hub, 1, chat("a", 1), 1);
        of_chat.changed().await;
        assert!(futures::poll!(std::pin::pin!(of_other.changed())).is_pending());
        publish(&hub, 2, chat("a", 1), 1);
        of_chat.mark_known();
        assert!(futures::poll!(std::pin::pin!(of_chat.changed())).is_pending());
    }

    #[test]
    fn a_read_is_bounded_in_events_and_bytes() {
        let hub = Hub::new(Position::START, usize::MAX);
        for position in 1..=10 {
            publish(&hub, position, chat("a", 1), 10_000);
        }
        let reader = hub.follow(chat("a", 1));
        let count = |max_events, max_bytes| match reader.read_after(Position::START, max_events, max_bytes) {
            NewEvents::Read(events) => events.len(),
            NewEvents::Dropped { .. } => panic!("nothing was dropped"),
        };
        assert_eq!(count(3, usize::MAX), 3);
        assert_eq!(count(10, 50_000), 3);
        assert_eq!(count(10, 1), 1, "at least one event is read");
    }
}
