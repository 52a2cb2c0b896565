//! The contract suite of the counters port. An adapter runs it with `counters_contract!(open)`, where `open()` returns
//! a function. Each call of this function opens another handle on the same counters, as another process does.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::counters::{CounterKey, Counters, ReservationRequest};
use chat_domain::{AppToken, ChatNumber};
use futures::future::join_all;
use uuid::Uuid;

pub type Handle = Arc<dyn Counters>;

/// Runs the contract suite on one adapter.
#[macro_export]
macro_rules! counters_contract {
    ($open:path: $($case:ident)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                $crate::contract_tests::counters::$case($open()).await;
            }
        )+
    };
    ($open:path) => {
        $crate::counters_contract! { $open:
            a_range_starts_after_its_floor
            ranges_follow_each_other_without_a_gap
            a_floor_raises_a_counter_that_is_behind
            a_floor_below_the_counter_changes_nothing
            ranges_are_returned_in_request_order
            two_requests_for_one_counter_get_two_ranges
            each_app_and_chat_has_its_own_counter
            no_requests_return_no_ranges
            rewound_numbers_are_reserved_again
            a_counter_that_has_changed_is_not_rewound
            an_unused_counter_is_not_rewound
            racing_handles_get_disjoint_ranges
            racing_handles_raise_a_counter_once
        }
    };
}

pub fn random_app() -> AppToken {
    let random = [Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4()];
    let mut random = random.iter().flat_map(Uuid::as_bytes).cycle();
    AppToken::generate(|bytes| bytes.fill_with(|| *random.next().unwrap()))
}

pub fn messages_key(app: AppToken, chat: u64) -> CounterKey {
    CounterKey::Messages(app, ChatNumber::try_from(chat).unwrap())
}

/// Reserves a range of `count` numbers and returns the first of them.
pub async fn reserve_range(counters: &dyn Counters, key: CounterKey, count: u64, floor: u64) -> u64 {
    counters.reserve(&[ReservationRequest { key, count, floor }]).await.unwrap()[0]
}

pub async fn a_range_starts_after_its_floor(open: impl Fn() -> Handle) {
    let (counters, app) = (open(), random_app());
    assert_eq!(reserve_range(&*counters, CounterKey::Chats(app), 1, 0).await, 1);
    assert_eq!(reserve_range(&*counters, messages_key(app, 1), 5, 41).await, 42);
    // The count is larger than the floor.
    assert_eq!(reserve_range(&*counters, messages_key(app, 2), 100, 3).await, 4);
}

pub async fn ranges_follow_each_other_without_a_gap(open: impl Fn() -> Handle) {
    let (one, other, key) = (open(), open(), messages_key(random_app(), 1));
    assert_eq!(reserve_range(&*one, key, 3, 0).await, 1);
    assert_eq!(reserve_range(&*other, key, 1, 0).await, 4);
    assert_eq!(reserve_range(&*one, key, 200, 4).await, 5);
    assert_eq!(reserve_range(&*other, key, 1, 100).await, 205);
}

pub async fn a_floor_raises_a_counter_that_is_behind(open: impl Fn() -> Handle) {
    let (counters, key) = (open(), messages_key(random_app(), 1));
    assert_eq!(reserve_range(&*counters, key, 2, 0).await, 1);
    assert_eq!(reserve_range(&*counters, key, 2, 10).await, 11);
    assert_eq!(reserve_range(&*counters, key, 1, 0).await, 13);
}

pub async fn a_floor_below_the_counter_changes_nothing(open: impl Fn() -> Handle) {
    let (counters, key) = (open(), messages_key(random_app(), 1));
    reserve_range(&*counters, key, 10, 0).await;
    assert_eq!(reserve_range(&*counters, key, 1, 10).await, 11);
    assert_eq!(reserve_range(&*counters, key, 1, 9).await, 12);
}

pub async fn ranges_are_returned_in_request_order(open: impl Fn() -> Handle) {
    let counters = open();
    let apps: Vec<AppToken> = (0..25).map(|_| random_app()).collect();
    let mut requests = Vec::new();
    for (index, &app) in apps.iter().enumerate() {
        let index = index as u64;
        requests.push(ReservationRequest {
            key: CounterKey::Chats(app),
            count: 1 + index,
            floor: 100 * index,
        });
        for chat in 1..=20 {
            requests.push(ReservationRequest { key: messages_key(app, chat), count: chat, floor: index });
        }
    }
    let first_numbers = |last_used_number: &dyn Fn(&ReservationRequest) -> u64| -> Vec<u64> {
        requests.iter().map(|request| last_used_number(request) + 1).collect()
    };
    assert_eq!(counters.reserve(&requests).await.unwrap(), first_numbers(&|request| request.floor));
    assert_eq!(
        counters.reserve(&requests).await.unwrap(),
        first_numbers(&|request| request.floor + request.count)
    );
}

pub async fn two_requests_for_one_counter_get_two_ranges(open: impl Fn() -> Handle) {
    let (counters, key) = (open(), messages_key(random_app(), 1));
    for floor in [0, 100] {
        let requests =
            [ReservationRequest { key, count: 5, floor }, ReservationRequest { key, count: 5, floor }];
        let mut firsts = counters.reserve(&requests).await.unwrap();
        firsts.sort_unstable();
        assert_eq!(firsts, [floor + 1, floor + 6]);
    }
}

pub async fn each_app_and_chat_has_its_own_counter(open: impl Fn() -> Handle) {
    let (counters, app, other) = (open(), random_app(), random_app());
    let keys = [
        CounterKey::Chats(app),
        CounterKey::Chats(other),
        messages_key(app, 1),
        messages_key(app, 11),
        messages_key(app, u64::from(u32::MAX)),
        messages_key(other, 1),
    ];
    for round in 1..=3 {
        for key in keys {
            assert_eq!(reserve_range(&*counters, key, 1, 0).await, round, "{key:?}");
        }
    }
}

pub async fn no_requests_return_no_ranges(open: impl Fn() -> Handle) {
    assert!(open().reserve(&[]).await.unwrap().is_empty());
}

pub async fn rewound_numbers_are_reserved_again(open: impl Fn() -> Handle) {
    let (one, other, key) = (open(), open(), messages_key(random_app(), 1));
    reserve_range(&*one, key, 8, 0).await;
    one.rewind(key, 8, 3).await.unwrap();
    assert_eq!(reserve_range(&*other, key, 1, 3).await, 4);
    other.rewind(key, 4, 0).await.unwrap();
    assert_eq!(reserve_range(&*one, key, 1, 0).await, 1);
}

pub async fn a_counter_that_has_changed_is_not_rewound(open: impl Fn() -> Handle) {
    let (one, other, key) = (open(), open(), messages_key(random_app(), 1));
    reserve_range(&*one, key, 8, 0).await;
    reserve_range(&*other, key, 1, 0).await;
    one.rewind(key, 8, 3).await.unwrap();
    assert_eq!(reserve_range(&*one, key, 1, 0).await, 10);
}

pub async fn an_unused_counter_is_not_rewound(open: impl Fn() -> Handle) {
    let (counters, key) = (open(), messages_key(random_app(), 1));
    counters.rewind(key, 8, 3).await.unwrap();
    assert_eq!(reserve_range(&*counters, key, 1, 0).await, 1);
}

/// Reserves ranges of different sizes with several handles at once, checks that they are disjoint, and returns all
/// numbers.
async fn reserve_concurrently(open: &impl Fn() -> Handle, key: CounterKey, floor: u64) -> BTreeSet<u64> {
    const RANGES: u64 = 40;
    let racer = |counters: Handle| {
        tokio::spawn(async move {
            let mut numbers = Vec::new();
            for range in 0..RANGES {
                let count = 1 + range % 3;
                let first = reserve_range(&*counters, key, count, floor).await;
                numbers.extend(first..first + count);
            }
            numbers
        })
    };
    let racers: Vec<_> = (0..6).map(|_| racer(open())).collect();
    let numbers: Vec<u64> = join_all(racers).await.into_iter().flat_map(Result::unwrap).collect();
    let distinct: BTreeSet<u64> = numbers.iter().copied().collect();
    assert_eq!(distinct.len(), numbers.len(), "a number was reserved twice");
    distinct
}

pub async fn racing_handles_get_disjoint_ranges(open: impl Fn() -> Handle) {
    let numbers = reserve_concurrently(&open, messages_key(random_app(), 1), 0).await;
    assert_eq!(numbers, (1..=numbers.len() as u64).collect());
}

pub async fn racing_handles_raise_a_counter_once(open: impl Fn() -> Handle) {
    const FLOOR: u64 = 1_000;
    let numbers = reserve_concurrently(&open, messages_key(random_app(), 1), FLOOR).await;
    // If the counter is raised to the floor twice, `reserve_concurrently` finds a number that was reserved twice.
    assert!(
        numbers.first().is_some_and(|first| *first > FLOOR),
        "a number at or below the floor was reserved"
    );
}
