//! Which message is posted next, and when.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::corpus::{Chat, Corpus};

/// Messages a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(NonZeroU32);

impl FromStr for Rate {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = text.strip_suffix("/s").unwrap_or(text);
        number.parse().map(Self).map_err(|_| "a rate is a whole number of messages a second, such as 500/s")
    }
}

impl Rate {
    /// When the request with this index, from 0, is due.
    fn due_at(self, index: u64) -> Duration {
        let nanos = u128::from(index) * 1_000_000_000 / u128::from(self.0.get());
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// In which order messages are posted.
#[derive(Clone, Copy, Debug)]
pub enum Order {
    /// Each chat's one after another, all chats side by side and spread evenly over the run.
    Conversations,
    /// At random, those of one chat at the same time.
    Shuffled {
        /// What the order depends on.
        seed: u64,
    },
}

/// A message of the corpus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageIndex {
    /// The index of its chat.
    pub chat: usize,
    /// Its index in the chat.
    pub message: usize,
}

/// A stretch of a chat of which one message at a time is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Lane {
    /// What is lowest goes first.
    rank: u64,
    chat: usize,
    message: usize,
    end: usize,
}

/// The turns of a run.
pub struct Schedule {
    start: Instant,
    idle: Mutex<BinaryHeap<Reverse<Lane>>>,
    /// As many permits as there are idle lanes; closed when nothing is left.
    ready: Semaphore,
    unfinished: AtomicUsize,
    pacer: Option<Pacer>,
}

/// A message to post now. It must be handed back ([`Schedule::finish`]) for the next one of its chat to follow.
pub struct ScheduledMessage {
    lane: Lane,
    /// When it was due, where a rate was asked for.
    pub due: Option<Duration>,
}

impl ScheduledMessage {
    /// Which message.
    pub fn message_index(&self) -> MessageIndex {
        MessageIndex { chat: self.lane.chat, message: self.lane.message }
    }
}

impl Schedule {
    /// A schedule that begins now.
    pub fn start(corpus: &Corpus, order: Order, rate: Option<Rate>, start: Instant) -> Self {
        let lanes: BinaryHeap<_> = match order {
            Order::Conversations => conversation_lanes(corpus),
            Order::Shuffled { seed } => shuffled_lanes(corpus, StdRng::seed_from_u64(seed)),
        }
        .into_iter()
        .map(Reverse)
        .collect();
        Self {
            start,
            ready: Semaphore::new(lanes.len()),
            idle: Mutex::new(lanes),
            unfinished: AtomicUsize::new(corpus.messages()),
            pacer: rate.map(|rate| Pacer::start(rate, start, corpus.messages() as u64)),
        }
    }

    /// Time since the start.
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// The next message, once there is one that may be posted and it is due; `None` when all are posted.
    pub async fn next(&self) -> Option<ScheduledMessage> {
        self.ready.acquire().await.ok()?.forget();
        let due = match &self.pacer {
            Some(pace) => Some(pace.next().await?),
            None => None,
        };
        let lane = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()?.0;
        Some(ScheduledMessage { lane, due })
    }

    /// Says that a turn is over.
    pub fn finish(&self, turn: &ScheduledMessage, corpus: &Corpus) {
        let mut lane = turn.lane;
        lane.message += 1;
        if lane.message < lane.end {
            lane.rank = rank(lane.message, corpus.chats[lane.chat].bodies.len());
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(Reverse(lane));
            self.ready.add_permits(1);
        }
        if self.unfinished.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.stop();
        }
    }

    /// Hands out nothing more.
    pub fn stop(&self) {
        self.ready.close();
        if let Some(pace) = &self.pacer {
            pace.due_permits.close();
        }
    }
}

/// Where in the run a chat's message belongs, if each chat is spread evenly over it.
fn rank(message: usize, of: usize) -> u64 {
    ((2 * message as u64 + 1) << 24) / of as u64
}

fn conversation_lanes(corpus: &Corpus) -> Vec<Lane> {
    let chats = corpus.chats.iter().enumerate();
    chats
        .map(|(chat, Chat { bodies, .. })| Lane {
            rank: rank(0, bodies.len()),
            chat,
            message: 0,
            end: bodies.len(),
        })
        .collect()
}

fn shuffled_lanes(corpus: &Corpus, mut random: StdRng) -> Vec<Lane> {
    let mut ranks: Vec<u64> = (0..corpus.messages() as u64).collect();
    ranks.shuffle(&mut random);
    let items = corpus.chats.iter().enumerate();
    let items =
        items.flat_map(|(chat, Chat { bodies, .. })| (0..bodies.len()).map(move |message| (chat, message)));
    ranks
        .into_iter()
        .zip(items)
        .map(|(rank, (chat, message))| Lane { rank, chat, message, end: message + 1 })
        .collect()
}

/// Lets requests go when they are due.
struct Pacer {
    rate: Rate,
    /// A permit for each request that is due and not yet taken.
    due_permits: Arc<Semaphore>,
    taken: AtomicU64,
}

impl Pacer {
    /// A thread of its own keeps time: the runtime's timer only tells whole milliseconds.
    fn start(rate: Rate, start: Instant, requests: u64) -> Self {
        let due_permits = Arc::new(Semaphore::new(0));
        let permits = Arc::downgrade(&due_permits);
        thread::spawn(move || release_due_permits(rate, start, requests, &permits));
        Self { rate, due_permits, taken: AtomicU64::new(0) }
    }

    async fn next(&self) -> Option<Duration> {
        self.due_permits.acquire().await.ok()?.forget();
        Some(self.rate.due_at(self.taken.fetch_add(1, Ordering::Relaxed)))
    }
}

fn release_due_permits(rate: Rate, start: Instant, requests: u64, permits: &Weak<Semaphore>) {
    let mut let_go = 0;
    while let_go < requests {
        let now = start.elapsed();
        let mut due = 0;
        while let_go < requests && rate.due_at(let_go) <= now {
            (let_go, due) = (let_go + 1, due + 1);
        }
        let Some(permits) = permits.upgrade() else { return };
        permits.add_permits(due);
        drop(permits);
        thread::sleep(rate.due_at(let_go).saturating_sub(start.elapsed()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn corpus(lengths: &[usize]) -> Corpus {
        let chats =
            lengths.iter().map(|length| Chat { app: 0, bodies: vec!["x".to_owned(); *length] }).collect();
        Corpus { apps: vec!["a".to_owned()], chats }
    }

    async fn all(corpus: &Corpus, order: Order, rate: Option<Rate>) -> Vec<(MessageIndex, Option<Duration>)> {
        let schedule = Schedule::start(corpus, order, rate, Instant::now());
        let mut turns = Vec::new();
        while let Some(turn) = schedule.next().await {
            turns.push((turn.message_index(), turn.due));
            schedule.finish(&turn, corpus);
        }
        turns
    }

    #[test]
    fn rates_read_with_and_without_their_unit() {
        assert_eq!("500/s".parse::<Rate>().map(|rate| rate.0.get()), Ok(500));
        assert_eq!("500".parse::<Rate>().map(|rate| rate.0.get()), Ok(500));
        for wrong in ["", "0", "0/s", "-1", "1.5/s", "5/m", "x"] {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn each_chat_is_posted_in_order_and_spread_over_the_run() {
        let corpus = corpus(&[8, 2]);
        let turns = all(&corpus, Order::Conversations, None).await;
        let of = |chat| {
            let of = turns.iter().filter(|(item, _)| item.chat == chat);
            of.map(|(item, _)| item.message).collect::<Vec<_>>()
        };
        assert_eq!(of(0), (0..8).collect::<Vec<_>>());
        assert_eq!(of(1), [0, 1]);
        let places: Vec<_> = (0..10).filter(|place| turns[*place].0.chat == 1).collect();
        assert!((2..5).contains(&places[0]) && (6..9).contains(&places[1]), "{places:?}");
    }

    #[tokio::test]
    async fn one_message_of_a_chat_is_under_way_at_a_time() {
        let corpus = corpus(&[3, 1]);
        let schedule = Schedule::start(&corpus, Order::Conversations, None, Instant::now());
        let (first, second) = (schedule.next().await.unwrap(), schedule.next().await.unwrap());
        assert_ne!(first.message_index().chat, second.message_index().chat);
        assert!(schedule.ready.try_acquire().is_err());
        schedule.finish(&first, &corpus);
        schedule.finish(&second, &corpus);
        assert_eq!(schedule.ready.available_permits(), 1);
    }

    #[tokio::test]
    async fn a_shuffle_posts_every_message_once_and_depends_on_the_seed() {
        let corpus = corpus(&[20, 10]);
        let mut orders = Vec::new();
        for seed in [1, 1, 2] {
            let turns = all(&corpus, Order::Shuffled { seed }, None).await;
            orders.push(turns.iter().map(|(item, _)| (item.chat, item.message)).collect::<Vec<_>>());
        }
        assert_eq!(orders[0], orders[1]);
        assert_ne!(orders[0], orders[2]);
        orders[0].sort_unstable();
        let everything: Vec<_> = (0..20).map(|i| (0, i)).chain((0..10).map(|i| (1, i))).collect();
        assert_eq!(orders[0], everything);
    }

    #[tokio::test]
    async fn a_rate_makes_requests_due_one_interval_after_another() {
        let corpus = corpus(&[20]);
        let start = Instant::now();
        let turns = all(&corpus, Order::Conversations, "1000/s".parse().ok()).await;
        assert!(start.elapsed() >= Duration::from_millis(19));
        let due: Vec<_> = turns.iter().filter_map(|(_, due)| due.map(|due| due.as_millis())).collect();
        assert_eq!(due, (0..20).collect::<Vec<_>>());
    }
}
