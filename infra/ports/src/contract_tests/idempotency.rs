//! The contract suite of the idempotency port. An adapter runs it with `idempotency_store_contract!(Fixture)`, where
//! the fixture implements [`TestStore`].

use std::sync::Arc;
use std::time::Duration;

use crate::clock;
use crate::idempotency::{
    Claim, CompletedCommand, CreatedId, ExistingEventHint, IdempotencyKeyId, IdempotencyStore,
    IdempotencyStoreError, IdempotencyTerms, KeyLease, KeyRequest, LeaseOwner, LogContent, RenewOutcome,
    ReserveOutcome, StoredAnswer, fingerprint,
};
use async_trait::async_trait;
use chat_domain::metadata::PayloadFingerprint;
use chat_domain::{AppToken, Position};
use futures::future::join_all;
use tokio::time::{Instant, sleep};

pub type Store = Arc<dyn IdempotencyStore>;

/// Empty storage for a test. Opening it twice gives two handles on the same store, like two processes.
pub trait TestStore {
    async fn new() -> Self;
    /// Opens a handle on the store. All handles are for the same log.
    fn open(&self, terms: IdempotencyTerms) -> Store;
}

/// Storage whose handles repeat calls that time out, for up to 20 seconds: on a busy machine, a store may not answer
/// within its time limit. A call that fails sooner than the shortest time limit of any store did not time out,
/// and is not repeated.
pub struct RetryingTestStore<T>(T);

impl<T: TestStore> TestStore for RetryingTestStore<T> {
    async fn new() -> Self {
        Self(T::new().await)
    }

    fn open(&self, terms: IdempotencyTerms) -> Store {
        retry_calls(self.0.open(terms))
    }
}

/// Returns the same store. Its calls are repeated as described at [`RetryingTestStore`].
pub fn retry_calls(store: Store) -> Store {
    Arc::new(RetryingStore(store))
}

struct RetryingStore(Store);

async fn retry<T, F>(call: impl Fn() -> F) -> Result<T, IdempotencyStoreError>
where
    F: Future<Output = Result<T, IdempotencyStoreError>>,
{
    /// A call that fails sooner did not time out: the time limits of all stores are longer.
    const MIN_TIMEOUT: Duration = Duration::from_millis(300);
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let started = Instant::now();
        match call().await {
            Err(_) if started.elapsed() >= MIN_TIMEOUT && Instant::now() < deadline => {
                sleep(Duration::from_millis(10)).await;
            }
            outcome => return outcome,
        }
    }
}

#[async_trait]
impl IdempotencyStore for RetryingStore {
    fn terms(&self) -> IdempotencyTerms {
        self.0.terms()
    }

    async fn initialize(&self, log: LogContent) -> Result<(), IdempotencyStoreError> {
        retry(|| self.0.initialize(log)).await
    }

    async fn reserve(&self, request: &KeyRequest) -> Result<ReserveOutcome, IdempotencyStoreError> {
        retry(|| self.0.reserve(request)).await
    }

    async fn renew(
        &self,
        key: IdempotencyKeyId,
        owner: LeaseOwner,
    ) -> Result<RenewOutcome, IdempotencyStoreError> {
        retry(|| self.0.renew(key, owner)).await
    }

    async fn complete(&self, command: &CompletedCommand) -> Result<(), IdempotencyStoreError> {
        retry(|| self.0.complete(command)).await
    }

    async fn release(&self, key: IdempotencyKeyId, owner: LeaseOwner) -> Result<(), IdempotencyStoreError> {
        retry(|| self.0.release(key, owner)).await
    }
}

/// Runs the contract suite on one adapter.
#[macro_export]
macro_rules! idempotency_store_contract {
    ($test_store:ty: $($case:ident)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                use $crate::contract_tests::idempotency::{RetryingTestStore, TestStore};
                let test_store = RetryingTestStore::<$test_store>::new().await;
                $crate::contract_tests::idempotency::$case(&test_store).await;
            }
        )+
    };
    ($test_store:ty) => {
        $crate::idempotency_store_contract! { $test_store:
            a_key_is_granted_once
            a_repeated_request_of_the_owner_gets_the_same_lease
            another_payload_is_a_mismatch
            a_completed_key_returns_its_answer
            an_answer_holds_the_token_of_a_new_app
            a_released_key_is_granted_as_first
            an_expired_lease_is_taken_over_with_the_token_of_its_first_owner
            a_renewed_lease_does_not_expire
            an_expired_lease_can_be_renewed_until_it_is_taken_over
            a_former_owner_can_neither_renew_nor_release
            a_key_that_was_taken_over_stays_doubtful_after_a_release
            a_former_owner_can_still_complete
            a_late_release_or_renewal_leaves_the_answer
            only_one_of_many_concurrent_requests_is_granted
            answers_expire_after_the_retention
            uncompleted_reservations_expire
            an_uninitialized_store_reserves_nothing
            a_store_initialized_on_a_log_with_events_waits_one_lease_and_then_grants_doubtful
            initializing_twice_changes_nothing
            another_process_sees_the_same_reservations
        }
    };
}

/// Durations longer than any test, so that nothing expires by itself.
pub const LONG_TERMS: IdempotencyTerms =
    IdempotencyTerms { lease: Duration::from_mins(10), retention: Duration::from_mins(100) };

/// A lease that expires almost at once.
const SHORT_TERMS: IdempotencyTerms = IdempotencyTerms { lease: Duration::from_millis(20), ..LONG_TERMS };

pub fn key_id(name: &str) -> IdempotencyKeyId {
    IdempotencyKeyId::derive("CreateMessage", "chat", name)
}

/// Returns a request for a key. Each request has an owner of its own.
pub fn request(name: &str) -> KeyRequest {
    KeyRequest {
        key: key_id(name),
        fingerprint: fingerprint(b"payload"),
        owner: LeaseOwner::random(),
        app: None,
    }
}

pub fn completed_command(name: &str, number: u64) -> CompletedCommand {
    let answer = StoredAnswer { position: Position::new(40 + number), created: CreatedId::Number(number) };
    CompletedCommand { key: key_id(name), fingerprint: fingerprint(b"payload"), answer }
}

pub async fn open_initialized(test_store: &impl TestStore, terms: IdempotencyTerms) -> Store {
    let store = test_store.open(terms);
    store.initialize(LogContent::Empty).await.unwrap();
    store
}

pub async fn reserve_granted(store: &Store, request: &KeyRequest) -> KeyLease {
    match store.reserve(request).await.unwrap() {
        ReserveOutcome::Granted(lease) => lease,
        other => panic!("the key was not granted: {other:?}"),
    }
}

/// Retries until the outcome is not `InFlight`.
pub async fn reserve_when_free(store: &Store, request: &KeyRequest) -> ReserveOutcome {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match store.reserve(request).await.unwrap() {
            ReserveOutcome::InFlight(_) if Instant::now() < deadline => sleep(Duration::from_millis(2)).await,
            reserved => return reserved,
        }
    }
}

async fn take_over(store: &Store, request: &KeyRequest) -> ExistingEventHint {
    match reserve_when_free(store, request).await {
        ReserveOutcome::Granted(KeyLease { claim: Claim::Doubtful, hint }) => hint,
        other => panic!("the key was not taken over: {other:?}"),
    }
}

/// Asserts a minimal duration. Tolerates a difference of one millisecond, because stores truncate times to
/// milliseconds.
#[track_caller]
fn assert_lasted(duration: Duration, minimum: Duration) {
    assert!(duration + Duration::from_millis(1) >= minimum, "{duration:?} is shorter than {minimum:?}");
}

/// Asserts that two hints belong to the same reservation. Their times may differ: a store may compute the time of a
/// hint as the time of day minus an age that another clock measures. A pause between the readings of the two clocks
/// may make the computed time earlier.
#[track_caller]
fn assert_same_hint(hint: ExistingEventHint, expected: ExistingEventHint) {
    const MAX_PAUSE_MILLIS: i64 = 10_000;
    assert_eq!(hint.app, expected.app);
    let difference = hint.since.millis() - expected.since.millis();
    assert!(
        (-MAX_PAUSE_MILLIS..=100).contains(&difference),
        "the times differ too much: {hint:?} {expected:?}"
    );
}

/// Asserts that a key is in flight, with a hint that finds the event of the lease.
#[track_caller]
fn assert_in_flight(outcome: &ReserveOutcome, lease: &KeyLease) {
    let ReserveOutcome::InFlight(hint) = outcome else { panic!("{outcome:?}") };
    assert_eq!(hint.app, lease.hint.app);
    assert!(hint.since <= lease.hint.since, "the event would be missed: {hint:?} {lease:?}");
}

pub async fn a_key_is_granted_once(test_store: &impl TestStore) {
    let store = open_initialized(test_store, LONG_TERMS).await;
    let before = clock::now();
    let lease = reserve_granted(&store, &request("a")).await;
    assert_eq!(lease.claim, Claim::First);
    assert!((before..=clock::now()).contains(&lease.hint.since), "{lease:?}");
    let repeated = store.reserve(&request("a")).await.unwrap();
    let ReserveOutcome::InFlight(hint) = repeated else { panic!("{repeated:?}") };
    assert_eq!(hint.app, lease.hint.app);
    assert!(
        hint.since <= lease.hint.since,
        "an event of the first request would be missed: {hint:?} {lease:?}"
    );
    assert_eq!(reserve_granted(&store, &request("b")).await.claim, Claim::First);
}

pub async fn a_repeated_request_of_the_owner_gets_the_same_lease(test_store: &impl TestStore) {
    let store = open_initialized(test_store, LONG_TERMS).await;
    let own_request = request("a");
    let first = reserve_granted(&store, &own_request).await;
    let repeated = reserve_granted(&store, &own_request).await;
    assert_eq!(repeated.claim, first.claim);
    assert_same_hint(repeated.hint, first.hint);
    // The renewal with short terms ends the lease soon, so that another owner can take the key over.
    let store = open_initialized(test_store, SHORT_TERMS).await;
    let other = request("a");
    assert_eq!(store.renew(key_id("a"), own_request.owner).await.unwrap(), RenewOutcome::Held);
    let hint = take_over(&store, &other).await;
    let repeated = reserve_granted(&store, &other).await;
    assert_eq!(repeated.claim, Claim::Doubtful);
    assert_same_hint(repeated.hint, hint);
}

pub async fn another_payload_is_a_mismatch(test_store: &impl TestStore) {
    let store = open_initialized(test_store, LONG_TERMS).await;
    let other = KeyRequest { fingerprint: fingerprint(b"other"), ..request("a") };
    reserve_granted(&store, &request("a")).await;
    assert_eq!(store.reserve(&other).await.unwrap(), ReserveOutcome::PayloadMismatch);
    store.complete(&completed_command("a", 1)).await.unwrap();
    assert_eq!(store.reserve(&other).await.unwrap(), ReserveOutcome::PayloadMismatch);
}

pub async fn a_completed_key_returns_its_answer(test_store: &impl TestStore) {
    let store = open_initialized(test_store, LONG_TERMS).await;
    reserve_granted(&store, &request("a")).await;
    store.complete(&completed_command("a", u64::from(u32::MAX) + 7)).await.unwrap();
    for _ in 0..2 {
        let answer = completed_command("a", u64::from(u32::MAX) + 7).answer;
        assert_eq!(store.reserve(&request("a")).await.unwrap(), ReserveOutcome::Completed(answer));
    }
}

pub async fn an_answer_holds_the_token_of_a_new_app(test_store: &impl TestStore) {
    let store = open_initialized(test_store, LONG_TERMS).await;
    let app = AppToken::generate(|bytes| bytes.fill(9));
    reserve_granted(&store, &KeyRequest { app: Some(app), ..request("a") }).await;
    let answer = StoredAnswer { position: Position::new(1), created: CreatedId::App(app) };
    store.complete(&CompletedCommand { answer, ..completed_command("a", 1) }).await.unwrap();
    let another = AppToken::generate(|bytes| bytes.fill(8));
    let repeated = KeyRequest { app: Some(another), ..request("a") };
    assert_eq!(store.reserve(&repeated).await.unwrap(), ReserveOutcome::Completed(answer));
}

pub async fn a_released_key_is_granted_as_first(test_store: &impl TestStore) {
    let store = open_initialized(test_store, LONG_TERMS).await;
    let first = request("a");
    reserve_granted(&store, &first).await;
    store.release(key_id("a"), first.owner).await.unwrap();
    let other = KeyRequest { fingerprint: PayloadFingerprint::from_bytes([7; 16]), ..request("a") };
    assert_eq!(reserve_granted(&store, &other).await.claim, Claim::First);
}

pub async fn an_expired_lease_is_taken_over_with_the_token_of_its_first_owner(test_store: &impl TestStore) {
    let terms = IdempotencyTerms { lease: Duration::from_millis(300), ..LONG_TERMS };
    let store = open_initialized(test_store, terms).await;
    let generated = AppToken::generate(|bytes| bytes.fill(9));
    let started = Instant::now();
    let first = reserve_granted(&store, &KeyRequest { app: Some(generated), ..request("a") }).await;
    let later = KeyRequest { app: Some(AppToken::generate(|bytes| bytes.fill(8))), ..request("a") };
    let hint = take_over(&store, &later).await;
    assert_lasted(started.elapsed(), terms.lease);
    assert_same_hint(hint, first.hint);
    assert_eq!(hint.app, Some(generated));
}

pub async fn a_renewed_lease_does_not_expire(test_store: &impl TestStore) {
    let terms = IdempotencyTerms { lease: Duration::from_secs(2), ..LONG_TERMS };
    let store = open_initialized(test_store, terms).await;
    for attempt in 0..5 {
        let name = format!("key {attempt}");
        let own_request = request(&name);
        reserve_granted(&store, &own_request).await;
        let reserved_at = Instant::now();
        let mut may_have_expired = false;
        while !may_have_expired && reserved_at.elapsed() < terms.lease * 3 / 2 {
            let renewed_at = Instant::now();
            assert_eq!(store.renew(own_request.key, own_request.owner).await.unwrap(), RenewOutcome::Held);
            let other = store.reserve(&request(&name)).await.unwrap();
            // A busy machine may take longer than half the lease. Then the other request may take the key over.
            may_have_expired = renewed_at.elapsed() > terms.lease / 2;
            assert!(may_have_expired || matches!(other, ReserveOutcome::InFlight(_)), "{other:?}");
            sleep(Duration::from_millis(20)).await;
        }
        if !may_have_expired {
            return;
        }
    }
    panic!("the machine is too busy to renew a lease in time");
}

pub async fn an_expired_lease_can_be_renewed_until_it_is_taken_over(test_store: &impl TestStore) {
    let store = open_initialized(test_store, SHORT_TERMS).await;
    let own_request = request("a");
    reserve_granted(&store, &own_request).await;
    let after_expiry = Instant::now() + SHORT_TERMS.lease * 2;
    tokio::time::sleep_until(after_expiry).await;
    assert_eq!(store.renew(key_id("a"), own_request.owner).await.unwrap(), RenewOutcome::Held);
}

pub async fn a_former_owner_can_neither_renew_nor_release(test_store: &impl TestStore) {
    let store = open_initialized(test_store, SHORT_TERMS).await;
    let (first, second) = (request("a"), request("a"));
    reserve_granted(&store, &first).await;
    take_over(&store, &second).await;
    assert_eq!(store.renew(key_id("a"), first.owner).await.unwrap(), RenewOutcome::Lost);
    store.release(key_id("a"), first.owner).await.unwrap();
    assert_eq!(store.renew(key_id("a"), second.owner).await.unwrap(), RenewOutcome::Held);
}

pub async fn a_key_that_was_taken_over_stays_doubtful_after_a_release(test_store: &impl TestStore) {
    let store = open_initialized(test_store, SHORT_TERMS).await;
    let second = request("a");
    let first = reserve_granted(&store, &request("a")).await;
    take_over(&store, &second).await;
    store.release(key_id("a"), second.owner).await.unwrap();
    let third = reserve_granted(&store, &request("a")).await;
    assert_eq!(third.claim, Claim::Doubtful);
    assert_same_hint(third.hint, first.hint);
}

pub async fn a_former_owner_can_still_complete(test_store: &impl TestStore) {
    let store = open_initialized(test_store, SHORT_TERMS).await;
    let second = request("a");
    reserve_granted(&store, &request("a")).await;
    take_over(&store, &second).await;
    store.complete(&completed_command("a", 3)).await.unwrap();
    assert_eq!(store.renew(key_id("a"), second.owner).await.unwrap(), RenewOutcome::Lost);
    assert_eq!(
        store.reserve(&request("a")).await.unwrap(),
        ReserveOutcome::Completed(completed_command("a", 3).answer)
    );
}

pub async fn a_late_release_or_renewal_leaves_the_answer(test_store: &impl TestStore) {
    let store = open_initialized(test_store, LONG_TERMS).await;
    let own_request = request("a");
    reserve_granted(&store, &own_request).await;
    store.complete(&completed_command("a", 3)).await.unwrap();
    store.release(key_id("a"), own_request.owner).await.unwrap();
    assert_eq!(store.renew(key_id("a"), own_request.owner).await.unwrap(), RenewOutcome::Lost);
    assert_eq!(
        store.reserve(&request("a")).await.unwrap(),
        ReserveOutcome::Completed(completed_command("a", 3).answer)
    );
}

pub async fn only_one_of_many_concurrent_requests_is_granted(test_store: &impl TestStore) {
    let stores = [open_initialized(test_store, LONG_TERMS).await, test_store.open(LONG_TERMS)];
    for round in 0..20 {
        let name = format!("key {round}");
        let requests: Vec<KeyRequest> = (0..20).map(|_| request(&name)).collect();
        let calls = requests.iter().enumerate().map(|(index, request)| stores[index % 2].reserve(request));
        let reserved: Vec<ReserveOutcome> = join_all(calls).await.into_iter().map(Result::unwrap).collect();
        let grants =
            reserved.iter().filter(|reserved| matches!(reserved, ReserveOutcome::Granted(_))).count();
        let in_flight =
            reserved.iter().filter(|reserved| matches!(reserved, ReserveOutcome::InFlight(_))).count();
        assert_eq!((grants, in_flight), (1, 19), "{reserved:?}");
    }
}

pub async fn answers_expire_after_the_retention(test_store: &impl TestStore) {
    let terms = IdempotencyTerms { retention: Duration::from_secs(1), ..LONG_TERMS };
    let store = open_initialized(test_store, terms).await;
    let started = Instant::now();
    store.complete(&completed_command("a", 1)).await.unwrap();
    let deadline = started + Duration::from_secs(20);
    loop {
        let reserved = store.reserve(&request("a")).await.unwrap();
        if reserved != ReserveOutcome::Completed(completed_command("a", 1).answer) {
            assert_lasted(started.elapsed(), terms.retention);
            assert!(
                matches!(reserved, ReserveOutcome::Granted(KeyLease { claim: Claim::First, .. })),
                "{reserved:?}"
            );
            break;
        }
        assert!(Instant::now() < deadline, "the answer was kept for longer than {:?}", terms.retention);
        sleep(Duration::from_millis(10)).await;
    }
}

pub async fn uncompleted_reservations_expire(test_store: &impl TestStore) {
    let terms = IdempotencyTerms { lease: Duration::ZERO, retention: Duration::from_millis(300) };
    let store = open_initialized(test_store, terms).await;
    reserve_granted(&store, &request("a")).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    // This request has another payload. A request with the same payload would take over the key and postpone its
    // expiry.
    let other = KeyRequest { fingerprint: fingerprint(b"other"), ..request("a") };
    loop {
        match store.reserve(&other).await.unwrap() {
            ReserveOutcome::PayloadMismatch => {
                assert!(Instant::now() < deadline, "the reservation was not removed");
            }
            reserved => break assert!(matches!(reserved, ReserveOutcome::Granted(_)), "{reserved:?}"),
        }
        sleep(Duration::from_millis(10)).await;
    }
}

pub async fn an_uninitialized_store_reserves_nothing(test_store: &impl TestStore) {
    let store = test_store.open(LONG_TERMS);
    let own_request = request("a");
    assert_eq!(store.reserve(&own_request).await.unwrap(), ReserveOutcome::NotInitialized);
    assert_eq!(store.renew(key_id("a"), own_request.owner).await.unwrap(), RenewOutcome::Lost);
    store.initialize(LogContent::Empty).await.unwrap();
    assert_eq!(reserve_granted(&store, &request("a")).await.claim, Claim::First);
}

pub async fn a_store_initialized_on_a_log_with_events_waits_one_lease_and_then_grants_doubtful(
    test_store: &impl TestStore,
) {
    let terms = IdempotencyTerms { lease: Duration::from_millis(300), ..LONG_TERMS };
    let store = test_store.open(terms);
    let started = Instant::now();
    store.initialize(LogContent::HasEvents).await.unwrap();
    let reserved = reserve_when_free(&store, &request("a")).await;
    assert_lasted(started.elapsed(), terms.lease);
    let ReserveOutcome::Granted(KeyLease { claim: Claim::Doubtful, hint }) = reserved else {
        panic!("{reserved:?}")
    };
    let age_millis = clock::now().millis() - hint.since.millis();
    assert!(
        age_millis >= i64::try_from(terms.retention.as_millis()).unwrap(),
        "an earlier owner may have executed the command before `since`, which is only {age_millis} ms ago"
    );

    let short_retention = IdempotencyTerms { retention: Duration::from_millis(1), ..terms };
    let store = test_store.open(short_retention);
    assert_eq!(
        reserve_granted(&store, &request("b")).await.claim,
        Claim::First,
        "the claim is doubtful, but reservations from before the initialization have expired"
    );
}

pub async fn initializing_twice_changes_nothing(test_store: &impl TestStore) {
    let store = open_initialized(test_store, LONG_TERMS).await;
    test_store.open(LONG_TERMS).initialize(LogContent::HasEvents).await.unwrap();
    assert_eq!(reserve_granted(&store, &request("a")).await.claim, Claim::First);
}

pub async fn another_process_sees_the_same_reservations(test_store: &impl TestStore) {
    let (store, other) = (open_initialized(test_store, LONG_TERMS).await, test_store.open(LONG_TERMS));
    let own_request = request("a");
    let lease = reserve_granted(&store, &own_request).await;
    assert_in_flight(&other.reserve(&request("a")).await.unwrap(), &lease);
    other.complete(&completed_command("a", 5)).await.unwrap();
    assert_eq!(
        store.reserve(&request("a")).await.unwrap(),
        ReserveOutcome::Completed(completed_command("a", 5).answer)
    );
}
