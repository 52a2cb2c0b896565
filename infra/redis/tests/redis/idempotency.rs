//! The contract suite of the idempotency store on Redis, and further tests of this adapter.

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
    LONG_TERMS, Store, TestStore, completed_command, open_initialized, request, reserve_granted,
    reserve_when_free,
};
use chat_ports::idempotency_store_contract;

/// A store on a single server.
struct OneServer(Redis);

impl TestStore for OneServer {
    async fn new() -> Self {
        Self(Redis::start().unwrap())
    }

    fn open(&self, terms: IdempotencyTerms) -> Store {
        open(&self.0.url(), Uuid::nil(), terms)
    }
}

/// Opens a store with a long time limit: while Redis runs, it replies within this time, also on a busy machine.
fn open(url: &str, log: Uuid, terms: IdempotencyTerms) -> Store {
    let url: RedisUrl = url.parse().unwrap();
    let connection = RedisConnection::open_with_timeout(&url, Duration::from_secs(20)).unwrap();
    Arc::new(RedisIdempotencyStore::with_terms(connection, LogId(log), terms))
}

idempotency_store_contract!(OneServer);

mod in_a_cluster {
    use super::*;

    struct Cluster(RedisCluster);

    impl TestStore for Cluster {
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

/// Waits until Redis is reachable again.
async fn wait_until_reachable(store: &Store) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while store.renew(request("none").key, request("none").owner).await.is_err() {
        assert!(Instant::now() < deadline, "Redis is not reachable again");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flushed_store_is_not_initialized() {
    let redis = OneServer(Redis::start().unwrap());
    let store = open_initialized(&redis, LONG_TERMS).await;
    reserve_granted(&store, &request("a")).await;
    redis.0.flush().unwrap();
    assert_eq!(store.reserve(&request("a")).await.unwrap(), ReserveOutcome::NotInitialized);
    store.initialize(LogContent::HasEvents).await.unwrap();
    assert!(matches!(store.reserve(&request("a")).await.unwrap(), ReserveOutcome::InFlight(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_store_is_not_initialized_and_then_grants_doubtful_claims() {
    let mut redis = OneServer(Redis::start().unwrap());
    let terms = IdempotencyTerms { lease: Duration::from_millis(200), ..LONG_TERMS };
    let store = open_initialized(&redis, terms).await;
    assert_eq!(reserve_granted(&store, &request("a")).await.claim, Claim::First);
    store.complete(&completed_command("b", 1)).await.unwrap();
    redis.0.restart().unwrap();
    wait_until_reachable(&store).await;
    assert_eq!(store.reserve(&request("c")).await.unwrap(), ReserveOutcome::NotInitialized);
    store.initialize(LogContent::HasEvents).await.unwrap();
    // Stored answers stay valid. A key without an answer may have been used.
    assert_eq!(
        store.reserve(&request("b")).await.unwrap(),
        ReserveOutcome::Completed(completed_command("b", 1).answer)
    );
    for name in ["a", "c"] {
        match reserve_when_free(&store, &request(name)).await {
            ReserveOutcome::Granted(lease) => assert_eq!(lease.claim, Claim::Doubtful, "{name}"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_logs_in_one_redis_are_separate() {
    let redis = OneServer(Redis::start().unwrap());
    let (one, other) =
        (open_initialized(&redis, LONG_TERMS).await, open(&redis.0.url(), Uuid::max(), LONG_TERMS));
    one.complete(&completed_command("a", 1)).await.unwrap();
    other.initialize(LogContent::Empty).await.unwrap();
    assert_eq!(reserve_granted(&other, &request("a")).await.claim, Claim::First);
    assert_eq!(
        one.reserve(&request("a")).await.unwrap(),
        ReserveOutcome::Completed(completed_command("a", 1).answer)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reservations_and_answers_expire_and_their_keys_contain_no_token() {
    let redis = OneServer(Redis::start().unwrap());
    let store = open_initialized(&redis, LONG_TERMS).await;
    let app = AppToken::generate(|bytes| bytes.fill(9));
    reserve_granted(&store, &KeyRequest { app: Some(app), ..request("a") }).await;
    store.complete(&completed_command("b", 1)).await.unwrap();
    let names = redis.0.command(&["KEYS", "*"]).unwrap();
    // The other names are the memory keys of the buckets, which show that the store is initialized. They hold neither
    // reservations nor answers.
    let entries: Vec<&String> = names.iter().filter(|name| !name.ends_with(":idempotency")).collect();
    assert_eq!(entries.len(), 2, "{names:?}");
    for name in entries {
        assert!(!name.contains(app.expose()), "{name}");
        let left: u64 = redis.0.command(&["PTTL", name]).unwrap()[0].parse().unwrap();
        assert!(left > 0 && u128::from(left) <= LONG_TERMS.retention.as_millis(), "{name}: {left} ms");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_fail_fast_while_redis_is_paused_and_work_after_it_resumes() {
    let redis = OneServer(Redis::start().unwrap());
    let patient_store = open_initialized(&redis, LONG_TERMS).await;
    let connection = RedisConnection::open(&redis.0.url().parse::<RedisUrl>().unwrap()).unwrap();
    let store: Store =
        Arc::new(RedisIdempotencyStore::with_terms(connection, LogId(Uuid::nil()), LONG_TERMS));
    wait_until_reachable(&store).await;
    redis.0.pause().unwrap();
    let started = Instant::now();
    store.reserve(&request("a")).await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    redis.0.resume().unwrap();
    wait_until_reachable(&store).await;
    reserve_granted(&patient_store, &request("b")).await;
}
