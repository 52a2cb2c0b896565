//! Fair shares: permits and turns, divided between apps.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chat_domain::AppToken;
use chat_ports::read_model::Missing;
use tokio::sync::oneshot;

/// The tenant that a permit is counted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Tenant {
    App(AppToken),
    /// All apps that the read model does not have. They are one tenant, because a client can make up any number of
    /// them.
    UnknownApps,
    Operators,
}

impl Tenant {
    /// The tenant of a query about an app, by the result of the query.
    pub(crate) fn from_query<T>(app: AppToken, found: &Result<T, Missing>) -> Self {
        if matches!(found, Err(Missing::App)) { Self::UnknownApps } else { Self::App(app) }
    }
}

/// A bounded number of permits, acquired without waiting. A tenant may acquire a permit while it holds fewer than are
/// free. So, up to rounding, one tenant holds at most half of the permits, and n tenants hold at most 1 - 1/2^n of
/// them.
pub(crate) struct FairPermits(Arc<Mutex<PermitsState>>);

struct PermitsState {
    free: usize,
    taken: HashMap<Tenant, usize>,
}

/// A permit that is held until it is dropped.
pub(crate) struct Permit {
    permits: Arc<Mutex<PermitsState>>,
    tenant: Tenant,
}

impl FairPermits {
    pub(crate) fn new(permits: usize) -> Self {
        Self(Arc::new(Mutex::new(PermitsState { free: permits, taken: HashMap::new() })))
    }

    pub(crate) fn try_acquire(&self, tenant: Tenant) -> Option<Permit> {
        let mut state = lock(&self.0);
        let taken = state.taken.get(&tenant).copied().unwrap_or(0);
        if taken >= state.free {
            return None;
        }
        state.free -= 1;
        state.taken.insert(tenant, taken + 1);
        Some(Permit { permits: Arc::clone(&self.0), tenant })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = lock(&self.permits);
        state.free += 1;
        if let Some(taken) = state.taken.get_mut(&self.tenant) {
            *taken -= 1;
            if *taken == 0 {
                state.taken.remove(&self.tenant);
            }
        }
    }
}

/// Turns for requests, a bounded number at a time. Waiting apps get turns one after another, independent of the number
/// of requests that each has waiting.
pub(crate) struct FairTurns(Arc<Mutex<TurnsState>>);

struct TurnsState {
    /// The turns that no request has. While there is one, no request waits.
    free: usize,
    /// The waiting requests of each app that has any.
    waiting: HashMap<AppToken, VecDeque<oneshot::Sender<Turn>>>,
    /// The apps that have requests waiting, in the order in which they get turns.
    order: VecDeque<AppToken>,
}

/// A turn of one request. When it is dropped, the next app gets it.
pub(crate) struct Turn(Arc<Mutex<TurnsState>>);

/// The app has reached its limit of waiting requests.
#[derive(Debug)]
pub(crate) struct QueueFull;

impl FairTurns {
    pub(crate) fn new(turns: usize) -> Self {
        Self(Arc::new(Mutex::new(TurnsState {
            free: turns,
            waiting: HashMap::new(),
            order: VecDeque::new(),
        })))
    }

    /// Waits for a turn of the app. Fails at once if `max_waiting` requests of the app wait already. Cancel safe.
    pub(crate) async fn wait(&self, app: AppToken, max_waiting: usize) -> Result<Turn, QueueFull> {
        let receiver = {
            let mut state = lock(&self.0);
            if state.free > 0 {
                state.free -= 1;
                return Ok(Turn(Arc::clone(&self.0)));
            }
            if max_waiting == 0 {
                return Err(QueueFull);
            }
            let state = &mut *state;
            let queue = state.waiting.entry(app).or_insert_with(|| {
                state.order.push_back(app);
                VecDeque::new()
            });
            if queue.len() >= max_waiting {
                // The entries of cancelled requests are still in the queue.
                queue.retain(|request| !request.is_closed());
                if queue.len() >= max_waiting {
                    return Err(QueueFull);
                }
            }
            let (sender, receiver) = oneshot::channel();
            queue.push_back(sender);
            receiver
        };
        // This never fails: the sender of a request that waits is dropped only after it has sent a turn.
        receiver.await.map_err(|_| QueueFull)
    }
}

impl TurnsState {
    /// Removes and returns the next request of the next app.
    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        while let Some(app) = self.order.pop_front() {
            let Some(queue) = self.waiting.get_mut(&app) else { continue };
            let mut next = None;
            while let Some(request) = queue.pop_front() {
                if !request.is_closed() {
                    next = Some(request);
                    break;
                }
            }
            if queue.is_empty() {
                self.waiting.remove(&app);
            } else {
                self.order.push_back(app);
            }
            if next.is_some() {
                return next;
            }
        }
        None
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let next = {
            let mut state = lock(&self.0);
            let next = state.next();
            if next.is_none() {
                state.free += 1;
            }
            next
        };
        if let Some(next) = next {
            // If the request was cancelled meanwhile, the turn is dropped here and goes to the next request.
            let _ = next.send(Turn(Arc::clone(&self.0)));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use futures::future::BoxFuture;

    use super::*;

    fn app(letter: &str) -> AppToken {
        AppToken::parse(&letter.repeat(AppToken::LENGTH)).unwrap()
    }

    #[test]
    fn one_app_can_not_take_all_permits() {
        let permits = FairPermits::new(512);
        let take_all = |tenant| std::iter::from_fn(|| permits.try_acquire(tenant)).collect::<Vec<_>>();
        let first = take_all(Tenant::App(app("a")));
        assert_eq!(first.len(), 256);
        let second = take_all(Tenant::App(app("b")));
        assert_eq!(second.len(), 128);
        assert!(permits.try_acquire(Tenant::App(app("c"))).is_some());
        drop(first);
        assert_eq!(take_all(Tenant::Operators).len(), 192);
    }

    #[test]
    fn a_permit_is_free_again_when_it_is_dropped() {
        let permits = FairPermits::new(2);
        for _ in 0..3 {
            let permit = permits.try_acquire(Tenant::Operators);
            assert!(permit.is_some());
            assert!(permits.try_acquire(Tenant::Operators).is_none());
        }
        let state = lock(&permits.0);
        assert_eq!((state.free, state.taken.len()), (2, 0));
    }

    #[test]
    fn made_up_apps_share_one_tenant() {
        let missing: Result<(), _> = Err(Missing::App);
        assert_eq!(Tenant::from_query(app("a"), &missing), Tenant::from_query(app("b"), &missing));
        assert_eq!(Tenant::from_query(app("a"), &Err::<(), _>(Missing::Chat)), Tenant::App(app("a")));
    }

    type Waiting<'a> = (&'static str, BoxFuture<'a, Result<Turn, QueueFull>>);

    /// Requests for turns, each polled once.
    fn wait_all<'a>(turns: &'a FairTurns, apps: &[&'static str]) -> Vec<Waiting<'a>> {
        let wait = |name: &&'static str| {
            let mut wait = turns.wait(app(name), 100).boxed();
            assert!((&mut wait).now_or_never().is_none(), "waits");
            (*name, wait)
        };
        apps.iter().map(wait).collect()
    }

    /// Drops each turn for the next request, and returns the apps in the order in which they got turns.
    fn run(mut turn: Turn, mut waiting: Vec<Waiting<'_>>) -> String {
        let mut order = String::new();
        while !waiting.is_empty() {
            drop(turn);
            let granted = waiting
                .iter_mut()
                .enumerate()
                .find_map(|(index, (_, wait))| wait.now_or_never().map(|granted| (index, granted.unwrap())));
            let (index, next) = granted.expect("a turn");
            order.push_str(waiting.remove(index).0);
            turn = next;
        }
        order
    }

    #[tokio::test]
    async fn apps_get_turns_one_after_another() {
        let turns = FairTurns::new(1);
        let first = turns.wait(app("a"), 100).await.unwrap();
        assert!(turns.wait(app("d"), 0).await.is_err());
        assert!(lock(&turns.0).waiting.is_empty(), "an app that may not wait has no queue");
        let waiting = wait_all(&turns, &["a", "a", "a", "a", "b", "b", "c"]);
        assert_eq!(run(first, waiting), "abcabaa");
        assert_eq!(lock(&turns.0).free, 1);
        assert!(lock(&turns.0).waiting.is_empty());
    }

    #[tokio::test]
    async fn a_cancelled_request_gets_no_turn() {
        let turns = FairTurns::new(1);
        let first = turns.wait(app("a"), 100).await.unwrap();
        let mut waiting = wait_all(&turns, &["a", "b", "a", "b"]);
        drop(waiting.remove(1));
        assert_eq!(run(first, waiting), "aba");
        assert_eq!(lock(&turns.0).free, 1);
    }

    #[tokio::test]
    async fn a_turn_that_a_cancelled_request_was_given_goes_to_the_next() {
        let turns = FairTurns::new(1);
        let first = turns.wait(app("a"), 100).await.unwrap();
        let mut waiting = wait_all(&turns, &["a", "b"]);
        drop(first);
        // The turn was given to the first request, which is cancelled before it takes the turn.
        drop(waiting.remove(0));
        assert!(waiting.remove(0).1.now_or_never().is_some());
        assert_eq!(lock(&turns.0).free, 1);
    }

    #[tokio::test]
    async fn the_queue_of_an_app_is_bounded() {
        let turns = FairTurns::new(1);
        let _first = turns.wait(app("a"), 2).await.unwrap();
        let waiting = wait_all(&turns, &["a", "a"]);
        assert!(turns.wait(app("a"), 2).await.is_err());
        assert!(turns.wait(app("b"), 2).now_or_never().is_none(), "another app has room");
        drop(waiting);
        assert!(turns.wait(app("a"), 2).now_or_never().is_none(), "cancelled requests do not count");
    }
}
