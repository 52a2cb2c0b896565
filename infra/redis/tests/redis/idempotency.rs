//! Redis: the contract, and what is its own.

use std::sync::Arc;
use std::time::Duration;

use chat_domain::AppToken;
use chat_ports::event_store::LogId;
use chat_ports::idempotency::{Claim, IdempotencyTerms, KeyRequest, LogContent, ReserveOutcome};
use chat_redis::RedisIdempotencyStore;
use chat_redis::{RedisConnection, RedisUrl};
use chat_testing::redis::{Redis, RedisCluster};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use chat_ports::contract_tests::idempotency::{
    LASTING, Place, Store, begun, done, granted, no_longer_in_flight, wish,
};
use chat_ports::idempotency_store_contract;

/// One server.
struct OneServer(Redis);

impl Place for OneServer {
    async fn new() -> Self {
        Self(Redis::start().unwrap())
    }

    fn open(&self, terms: IdempotencyTerms) -> Store {
        open(&self.0.url(), Uuid::nil(), terms)
    }
}

fn open(url: &str, log: Uuid, terms: IdempotencyTerms) -> Store {
    let connection = RedisConnection::open(&url.parse::<RedisUrl>().unwrap()).unwrap();
    Arc::new(RedisIdempotencyStore::with_terms(connection, LogId(log), terms))
}

idempotency_store_contract!(OneServer);

mod in_a_cluster {
    use super::*;

    struct Cluster(RedisCluster);

    impl Place for Cluster {
        async fn new() -> Self {
            Self(RedisCluster::start().unwrap())
        }

        fn open(&self, terms: IdempotencyTerms) -> Store {
            open(&self.0.url(), Uuid::nil(), terms)
        }
    }

    idempotency_store_contract! { Cluster:
        a_completed_key_returns_its_answer
        a_released_key_is_granted_as_first
        only_one_of_many_concurrent_requests_is_granted
        initializing_twice_changes_nothing
    }
}

/// Waits until Redis is found again.
async fn reachable(store: &Store) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while store.renew(wish("none").key, wish("none").owner).await.is_err() {
        assert!(Instant::now() < deadline, "Redis is not found again");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flushed_store_remembers_nothing_and_says_so() {
    let redis = OneServer(Redis::start().unwrap());
    let store = begun(&redis, LASTING).await;
    granted(&store, &wish("a")).await;
    redis.0.flush().unwrap();
    assert_eq!(store.reserve(&wish("a")).await.unwrap(), ReserveOutcome::NotInitialized);
    store.initialize(LogContent::HasEvents).await.unwrap();
    assert!(matches!(store.reserve(&wish("a")).await.unwrap(), ReserveOutcome::InFlight(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_was_restarted_may_have_lost_its_last_writes_and_says_so() {
    let mut redis = OneServer(Redis::start().unwrap());
    let terms = IdempotencyTerms { lease: Duration::from_millis(200), ..LASTING };
    let store = begun(&redis, terms).await;
    assert_eq!(granted(&store, &wish("a")).await.claim, Claim::First);
    store.complete(&done("b", 1)).await.unwrap();
    redis.0.restart().unwrap();
    reachable(&store).await;
    assert_eq!(store.reserve(&wish("c")).await.unwrap(), ReserveOutcome::NotInitialized);
    store.initialize(LogContent::HasEvents).await.unwrap();
    // What it still knows is true; what it does not know may have been.
    assert_eq!(store.reserve(&wish("b")).await.unwrap(), ReserveOutcome::Completed(done("b", 1).answer));
    for name in ["a", "c"] {
        match no_longer_in_flight(&store, &wish(name)).await {
            ReserveOutcome::Granted(grant) => assert_eq!(grant.claim, Claim::Doubtful, "{name}"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_logs_in_one_redis_do_not_meet() {
    let redis = OneServer(Redis::start().unwrap());
    let (one, other) = (begun(&redis, LASTING).await, open(&redis.0.url(), Uuid::max(), LASTING));
    one.complete(&done("a", 1)).await.unwrap();
    other.initialize(LogContent::Empty).await.unwrap();
    assert_eq!(granted(&other, &wish("a")).await.claim, Claim::First);
    assert_eq!(one.reserve(&wish("a")).await.unwrap(), ReserveOutcome::Completed(done("a", 1).answer));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_expires_and_no_name_holds_a_token() {
    let redis = OneServer(Redis::start().unwrap());
    let store = begun(&redis, LASTING).await;
    let app = AppToken::generate(|bytes| bytes.fill(9));
    granted(&store, &KeyRequest { app: Some(app), ..wish("a") }).await;
    store.complete(&done("b", 1)).await.unwrap();
    let names = redis.0.command(&["KEYS", "*"]).unwrap();
    let reservations: Vec<&String> = names.iter().filter(|name| !name.ends_with(":idempotency")).collect();
    assert_eq!(reservations.len(), 2, "{names:?}");
    for name in reservations {
        assert!(!name.contains(app.expose()), "{name}");
        let left: u64 = redis.0.command(&["PTTL", name]).unwrap()[0].parse().unwrap();
        assert!(left > 0 && u128::from(left) <= LASTING.retention.as_millis(), "{name}: {left} ms");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_is_away_calls_fail_soon_and_work_again_when_it_is_back() {
    let redis = OneServer(Redis::start().unwrap());
    let store = begun(&redis, LASTING).await;
    redis.0.pause().unwrap();
    let asked = Instant::now();
    store.reserve(&wish("a")).await.unwrap_err();
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    redis.0.resume().unwrap();
    reachable(&store).await;
    granted(&store, &wish("b")).await;
}
