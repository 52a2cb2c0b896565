//! The schedule of a load: the order of the messages and the times at which they are due.

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

/// A rate in messages per second.
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
    /// Returns the time since the start at which the request with this index, from 0, is due.
    fn due_at(self, index: u64) -> Duration {
        let nanos = u128::from(index) * 1_000_000_000 / u128::from(self.0.get());
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// The order in which messages are posted.
#[derive(Clone, Copy, Debug)]
pub enum Order {
    /// One message of a chat at a time and in order. Each chat is spread evenly over the run.
    InOrderPerChat,
    /// In a random order. Several messages of one chat may be in flight at the same time.
    Shuffled {
        /// The seed of the random order.
        seed: u64,
    },
}

/// The index of a message in the corpus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageIndex {
    /// The index of the chat.
    pub chat: usize,
    /// The index in the chat.
    pub message: usize,
}

/// Consecutive messages of a chat, of which at most one is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Lane {
    /// The lane with the lowest rank is next.
    rank: u64,
    chat: usize,
    /// The index of the next message in the chat.
    message: usize,
    /// The index of the lane's last message in the chat, plus 1.
    end: usize,
}

/// The messages of a corpus that the connections of a load have yet to post, in their order.
pub struct Schedule {
    start: Instant,
    /// The lanes that have messages left to post and none in flight.
    idle: Mutex<BinaryHeap<Reverse<Lane>>>,
    /// A permit for each idle lane. Closed when the schedule ends.
    idle_permits: Semaphore,
    /// The number of messages for which [`Self::finish`] was not called yet.
    unfinished: AtomicUsize,
    pacer: Option<Pacer>,
}

/// A message to post now. Its lane is blocked until [`Schedule::finish`] is called.
pub struct ScheduledMessage {
    lane: Lane,
    /// The time since the start at which it was due, if a rate is set.
    pub due: Option<Duration>,
}

impl ScheduledMessage {
    /// Returns the index in the corpus.
    pub fn message_index(&self) -> MessageIndex {
        MessageIndex { chat: self.lane.chat, message: self.lane.message }
    }
}

impl Schedule {
    /// Starts a schedule. Due times count from `start`.
    pub fn start(corpus: &Corpus, order: Order, rate: Option<Rate>, start: Instant) -> Self {
        let lanes: BinaryHeap<_> = match order {
            Order::InOrderPerChat => lanes_per_chat(corpus),
            Order::Shuffled { seed } => shuffled_lanes(corpus, StdRng::seed_from_u64(seed)),
        }
        .into_iter()
        .map(Reverse)
        .collect();
        Self {
            start,
            idle_permits: Semaphore::new(lanes.len()),
            idle: Mutex::new(lanes),
            unfinished: AtomicUsize::new(corpus.message_count()),
            pacer: rate.map(|rate| Pacer::start(rate, start, corpus.message_count() as u64)),
        }
    }

    /// Returns the time since the start.
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Waits for the next message that may be posted and is due. Returns `None` when all messages are posted, or
    /// after [`Self::stop`].
    pub async fn next(&self) -> Option<ScheduledMessage> {
        self.idle_permits.acquire().await.ok()?.forget();
        let due = match &self.pacer {
            Some(pacer) => Some(pacer.next().await?),
            None => None,
        };
        let lane = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()?.0;
        Some(ScheduledMessage { lane, due })
    }

    /// Unblocks the lane of a message that was posted.
    pub fn finish(&self, scheduled: &ScheduledMessage, corpus: &Corpus) {
        let mut lane = scheduled.lane;
        lane.message += 1;
        if lane.message < lane.end {
            lane.rank = rank(lane.message, corpus.chats[lane.chat].bodies.len());
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(Reverse(lane));
            self.idle_permits.add_permits(1);
        }
        if self.unfinished.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.stop();
        }
    }

    /// Ends the schedule: [`Self::next`] returns no more messages.
    pub fn stop(&self) {
        self.idle_permits.close();
        if let Some(pacer) = &self.pacer {
            pacer.due_permits.close();
        }
    }
}

/// Returns the rank of a chat's message: the time at which it is posted if the run takes 2^25 units of time and the
/// chat is spread evenly over the run.
///
/// Each message of the chat has an equal share of the run, and is posted in the middle of its share: at
/// (2 · message + 1) / (2 · messages_of_chat) of the run. The 2 in the denominator reduces the factor 2^25 to 2^24.
fn rank(message: usize, messages_of_chat: usize) -> u64 {
    ((2 * message as u64 + 1) << 24) / messages_of_chat as u64
}

fn lanes_per_chat(corpus: &Corpus) -> Vec<Lane> {
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
    let mut ranks: Vec<u64> = (0..corpus.message_count() as u64).collect();
    ranks.shuffle(&mut random);
    let chats = corpus.chats.iter().enumerate();
    let messages =
        chats.flat_map(|(chat, Chat { bodies, .. })| (0..bodies.len()).map(move |message| (chat, message)));
    ranks
        .into_iter()
        .zip(messages)
        .map(|(rank, (chat, message))| Lane { rank, chat, message, end: message + 1 })
        .collect()
}

/// Releases requests at the times at which they are due.
struct Pacer {
    rate: Rate,
    /// A permit for each request that is due and not sent yet.
    due_permits: Arc<Semaphore>,
    /// The number of permits that were taken: the index of the next request.
    taken: AtomicU64,
}

impl Pacer {
    // The pacer has a thread of its own, because the runtime's timer has a resolution of a millisecond.
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

/// Adds a permit whenever a request is due. Returns after the last request, or when the pacer was dropped.
fn release_due_permits(rate: Rate, start: Instant, requests: u64, permits: &Weak<Semaphore>) {
    let mut released = 0;
    while released < requests {
        let now = start.elapsed();
        let mut newly_due = 0;
        while released < requests && rate.due_at(released) <= now {
            (released, newly_due) = (released + 1, newly_due + 1);
        }
        let Some(permits) = permits.upgrade() else { return };
        permits.add_permits(newly_due);
        drop(permits);
        thread::sleep(rate.due_at(released).saturating_sub(start.elapsed()));
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

    async fn run_schedule(
        corpus: &Corpus,
        order: Order,
        rate: Option<Rate>,
    ) -> Vec<(MessageIndex, Option<Duration>)> {
        let schedule = Schedule::start(corpus, order, rate, Instant::now());
        let mut scheduled = Vec::new();
        while let Some(message) = schedule.next().await {
            scheduled.push((message.message_index(), message.due));
            schedule.finish(&message, corpus);
        }
        scheduled
    }

    #[test]
    fn parses_rates_with_and_without_their_unit_and_rejects_other_text() {
        assert_eq!("500/s".parse::<Rate>().map(|rate| rate.0.get()), Ok(500));
        assert_eq!("500".parse::<Rate>().map(|rate| rate.0.get()), Ok(500));
        for invalid in ["", "0", "0/s", "-1", "1.5/s", "5/m", "x"] {
            assert!(invalid.parse::<Rate>().is_err(), "accepts {invalid}");
        }
    }

    #[tokio::test]
    async fn posts_each_chat_in_order_and_spread_over_the_run() {
        let corpus = corpus(&[8, 2]);
        let scheduled = run_schedule(&corpus, Order::InOrderPerChat, None).await;
        let messages_of = |chat| {
            let chat_messages = scheduled.iter().filter(|(index, _)| index.chat == chat);
            chat_messages.map(|(index, _)| index.message).collect::<Vec<_>>()
        };
        assert_eq!(messages_of(0), (0..8).collect::<Vec<_>>());
        assert_eq!(messages_of(1), [0, 1]);
        let turns: Vec<_> = (0..10).filter(|turn| scheduled[*turn].0.chat == 1).collect();
        assert!((2..5).contains(&turns[0]) && (6..9).contains(&turns[1]), "turns of chat 1: {turns:?}");
    }

    #[tokio::test]
    async fn posts_one_message_of_a_chat_at_a_time() {
        let corpus = corpus(&[3, 1]);
        let schedule = Schedule::start(&corpus, Order::InOrderPerChat, None, Instant::now());
        let (first, second) = (schedule.next().await.unwrap(), schedule.next().await.unwrap());
        assert_ne!(first.message_index().chat, second.message_index().chat);
        assert!(schedule.idle_permits.try_acquire().is_err());
        schedule.finish(&first, &corpus);
        schedule.finish(&second, &corpus);
        assert_eq!(schedule.idle_permits.available_permits(), 1);
    }

    #[tokio::test]
    async fn a_shuffle_posts_each_message_once_in_an_order_that_the_seed_determines() {
        let corpus = corpus(&[20, 10]);
        let mut orders = Vec::new();
        for seed in [1, 1, 2] {
            let scheduled = run_schedule(&corpus, Order::Shuffled { seed }, None).await;
            orders.push(scheduled.iter().map(|(index, _)| (index.chat, index.message)).collect::<Vec<_>>());
        }
        assert_eq!(orders[0], orders[1]);
        assert_ne!(orders[0], orders[2]);
        orders[0].sort_unstable();
        let every_message: Vec<_> = (0..20).map(|i| (0, i)).chain((0..10).map(|i| (1, i))).collect();
        assert_eq!(orders[0], every_message);
    }

    #[tokio::test]
    async fn a_rate_spaces_due_times_evenly() {
        let corpus = corpus(&[20]);
        let start = Instant::now();
        let scheduled = run_schedule(&corpus, Order::InOrderPerChat, "1000/s".parse().ok()).await;
        assert!(start.elapsed() >= Duration::from_millis(19));
        let due: Vec<_> = scheduled.iter().filter_map(|(_, due)| due.map(|time| time.as_millis())).collect();
        assert_eq!(due, (0..20).collect::<Vec<_>>());
    }
}
