//! The cases. An adapter joins with one line: `reservations_contract!(Place)`, where a [`Place`] is an empty store;
//! opening it twice gives two handles, as two processes have.

use std::sync::Arc;
use std::time::Duration;

use crate::clock;
use crate::idempotency::{
    Claim, CompletedCommand, CreatedId, IdempotencyKeyId, IdempotencyStore, IdempotencyTerms, KeyLease,
    KeyRequest, LeaseOwner, LogContent, LookupHint, RenewOutcome, ReserveOutcome, StoredAnswer, fingerprint,
};
use chat_domain::metadata::PayloadFingerprint;
use chat_domain::{AppToken, Position};
use futures::future::join_all;
use tokio::time::{Instant, sleep};

pub type Store = Arc<dyn IdempotencyStore>;

/// Where an adapter keeps what it keeps.
pub trait Place {
    async fn new() -> Self;
    /// A handle for the one log that most cases need.
    fn open(&self, terms: IdempotencyTerms) -> Store;
}

/// Runs the contract suite on one adapter.
#[macro_export]
macro_rules! idempotency_store_contract {
    ($place:ty: $($case:ident)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let place = <$place as $crate::contract_tests::idempotency::Place>::new().await;
                $crate::contract_tests::idempotency::$case(&place).await;
            }
        )+
    };
    ($place:ty) => {
        $crate::idempotency_store_contract! { $place:
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
            a_store_initialized_late_waits_one_lease_and_then_grants_doubtful
            initializing_twice_changes_nothing
            another_process_sees_the_same
        }
    };
}

/// Longer than any test: what ends does so because it was made to.
pub const LASTING: IdempotencyTerms =
    IdempotencyTerms { lease: Duration::from_mins(10), retention: Duration::from_mins(100) };

/// Over as soon as one looks again.
const FLEETING: IdempotencyTerms = IdempotencyTerms { lease: Duration::from_millis(20), ..LASTING };

pub fn key(name: &str) -> IdempotencyKeyId {
    IdempotencyKeyId::derive("CreateMessage", "chat", name)
}

pub fn wish(name: &str) -> KeyRequest {
    KeyRequest {
        key: key(name),
        fingerprint: fingerprint(b"payload"),
        owner: LeaseOwner::random(),
        app: None,
    }
}

pub fn done(name: &str, number: u64) -> CompletedCommand {
    let answer = StoredAnswer { position: Position::new(40 + number), created: CreatedId::Number(number) };
    CompletedCommand { key: key(name), fingerprint: fingerprint(b"payload"), answer }
}

pub async fn begun(place: &impl Place, terms: IdempotencyTerms) -> Store {
    let store = place.open(terms);
    store.initialize(LogContent::Empty).await.unwrap();
    store
}

pub async fn granted(store: &Store, wish: &KeyRequest) -> KeyLease {
    match store.reserve(wish).await.unwrap() {
        ReserveOutcome::Granted(grant) => grant,
        other => panic!("{other:?}"),
    }
}

/// Asks until the answer is another than `InFlight`.
pub async fn no_longer_in_flight(store: &Store, wish: &KeyRequest) -> ReserveOutcome {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match store.reserve(wish).await.unwrap() {
            ReserveOutcome::InFlight(_) if Instant::now() < deadline => sleep(Duration::from_millis(2)).await,
            reserved => return reserved,
        }
    }
}

async fn taken_over(store: &Store, wish: &KeyRequest) -> LookupHint {
    match no_longer_in_flight(store, wish).await {
        ReserveOutcome::Granted(KeyLease { claim: Claim::Doubtful, hint: trace }) => trace,
        other => panic!("{other:?}"),
    }
}

/// Makes sure that something lasted so long, give or take the millisecond that times are cut off at.
#[track_caller]
fn assert_lasted(lasted: Duration, so_long: Duration) {
    assert!(lasted + Duration::from_millis(1) >= so_long, "{lasted:?} instead of {so_long:?}");
}

pub async fn a_key_is_granted_once(place: &impl Place) {
    let store = begun(place, LASTING).await;
    let before = clock::now();
    let grant = granted(&store, &wish("a")).await;
    assert_eq!(grant.claim, Claim::First);
    assert!((before..=clock::now()).contains(&grant.hint.since), "{grant:?}");
    assert_eq!(store.reserve(&wish("a")).await.unwrap(), ReserveOutcome::InFlight(grant.hint));
    assert_eq!(granted(&store, &wish("b")).await.claim, Claim::First);
}

pub async fn a_repeated_request_of_the_owner_gets_the_same_lease(place: &impl Place) {
    let store = begun(place, LASTING).await;
    let owner = wish("a");
    let first = granted(&store, &owner).await;
    assert_eq!(granted(&store, &owner).await, first);
    let store = begun(place, FLEETING).await;
    let other = wish("a");
    assert_eq!(store.renew(key("a"), owner.owner).await.unwrap(), RenewOutcome::Held);
    let hint = taken_over(&store, &other).await;
    assert_eq!(granted(&store, &other).await, KeyLease { claim: Claim::Doubtful, hint });
}

pub async fn another_payload_is_a_mismatch(place: &impl Place) {
    let store = begun(place, LASTING).await;
    let other = KeyRequest { fingerprint: fingerprint(b"other"), ..wish("a") };
    granted(&store, &wish("a")).await;
    assert_eq!(store.reserve(&other).await.unwrap(), ReserveOutcome::PayloadMismatch);
    store.complete(&done("a", 1)).await.unwrap();
    assert_eq!(store.reserve(&other).await.unwrap(), ReserveOutcome::PayloadMismatch);
}

pub async fn a_completed_key_returns_its_answer(place: &impl Place) {
    let store = begun(place, LASTING).await;
    granted(&store, &wish("a")).await;
    store.complete(&done("a", u64::from(u32::MAX) + 7)).await.unwrap();
    for _ in 0..2 {
        let answer = done("a", u64::from(u32::MAX) + 7).answer;
        assert_eq!(store.reserve(&wish("a")).await.unwrap(), ReserveOutcome::Completed(answer));
    }
}

pub async fn an_answer_holds_the_token_of_a_new_app(place: &impl Place) {
    let store = begun(place, LASTING).await;
    let app = AppToken::generate(|bytes| bytes.fill(9));
    granted(&store, &KeyRequest { app: Some(app), ..wish("a") }).await;
    let answer = StoredAnswer { position: Position::new(1), created: CreatedId::App(app) };
    store.complete(&CompletedCommand { answer, ..done("a", 1) }).await.unwrap();
    let another = AppToken::generate(|bytes| bytes.fill(8));
    let again = KeyRequest { app: Some(another), ..wish("a") };
    assert_eq!(store.reserve(&again).await.unwrap(), ReserveOutcome::Completed(answer));
}

pub async fn a_released_key_is_granted_as_first(place: &impl Place) {
    let store = begun(place, LASTING).await;
    let first = wish("a");
    granted(&store, &first).await;
    store.release(key("a"), first.owner).await.unwrap();
    let other = KeyRequest { fingerprint: PayloadFingerprint::from_bytes([7; 16]), ..wish("a") };
    assert_eq!(granted(&store, &other).await.claim, Claim::First);
}

pub async fn an_expired_lease_is_taken_over_with_the_token_of_its_first_owner(place: &impl Place) {
    let terms = IdempotencyTerms { lease: Duration::from_millis(300), ..LASTING };
    let store = begun(place, terms).await;
    let drawn = AppToken::generate(|bytes| bytes.fill(9));
    let asked = Instant::now();
    let first = granted(&store, &KeyRequest { app: Some(drawn), ..wish("a") }).await;
    let later = KeyRequest { app: Some(AppToken::generate(|bytes| bytes.fill(8))), ..wish("a") };
    let hint = taken_over(&store, &later).await;
    assert_lasted(asked.elapsed(), terms.lease);
    assert_eq!(hint, first.hint);
    assert_eq!(hint.app, Some(drawn));
}

pub async fn a_renewed_lease_does_not_expire(place: &impl Place) {
    // Long enough for a busy machine to renew in time.
    let terms = IdempotencyTerms { lease: Duration::from_secs(2), ..LASTING };
    let store = begun(place, terms).await;
    let owner = wish("a");
    granted(&store, &owner).await;
    let started = Instant::now();
    while started.elapsed() < terms.lease * 3 / 2 {
        assert_eq!(store.renew(key("a"), owner.owner).await.unwrap(), RenewOutcome::Held);
        let other = store.reserve(&wish("a")).await.unwrap();
        assert!(matches!(other, ReserveOutcome::InFlight(_)), "{other:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

pub async fn an_expired_lease_can_be_renewed_until_it_is_taken_over(place: &impl Place) {
    let store = begun(place, FLEETING).await;
    let owner = wish("a");
    granted(&store, &owner).await;
    let ran_out = Instant::now() + FLEETING.lease * 2;
    tokio::time::sleep_until(ran_out).await;
    assert_eq!(store.renew(key("a"), owner.owner).await.unwrap(), RenewOutcome::Held);
}

pub async fn a_former_owner_can_neither_renew_nor_release(place: &impl Place) {
    let store = begun(place, FLEETING).await;
    let (first, second) = (wish("a"), wish("a"));
    granted(&store, &first).await;
    taken_over(&store, &second).await;
    assert_eq!(store.renew(key("a"), first.owner).await.unwrap(), RenewOutcome::Lost);
    store.release(key("a"), first.owner).await.unwrap();
    assert_eq!(store.renew(key("a"), second.owner).await.unwrap(), RenewOutcome::Held);
}

pub async fn a_key_that_was_taken_over_stays_doubtful_after_a_release(place: &impl Place) {
    let store = begun(place, FLEETING).await;
    let second = wish("a");
    let first = granted(&store, &wish("a")).await;
    taken_over(&store, &second).await;
    store.release(key("a"), second.owner).await.unwrap();
    let third = granted(&store, &wish("a")).await;
    assert_eq!(third, KeyLease { claim: Claim::Doubtful, hint: first.hint });
}

pub async fn a_former_owner_can_still_complete(place: &impl Place) {
    let store = begun(place, FLEETING).await;
    let second = wish("a");
    granted(&store, &wish("a")).await;
    taken_over(&store, &second).await;
    store.complete(&done("a", 3)).await.unwrap();
    assert_eq!(store.renew(key("a"), second.owner).await.unwrap(), RenewOutcome::Lost);
    assert_eq!(store.reserve(&wish("a")).await.unwrap(), ReserveOutcome::Completed(done("a", 3).answer));
}

pub async fn a_late_release_or_renewal_leaves_the_answer(place: &impl Place) {
    let store = begun(place, LASTING).await;
    let owner = wish("a");
    granted(&store, &owner).await;
    store.complete(&done("a", 3)).await.unwrap();
    store.release(key("a"), owner.owner).await.unwrap();
    assert_eq!(store.renew(key("a"), owner.owner).await.unwrap(), RenewOutcome::Lost);
    assert_eq!(store.reserve(&wish("a")).await.unwrap(), ReserveOutcome::Completed(done("a", 3).answer));
}

pub async fn only_one_of_many_concurrent_requests_is_granted(place: &impl Place) {
    let stores = [begun(place, LASTING).await, place.open(LASTING)];
    for round in 0..20 {
        let name = format!("key {round}");
        let wishes: Vec<KeyRequest> = (0..20).map(|_| wish(&name)).collect();
        let asked = wishes.iter().enumerate().map(|(index, wish)| stores[index % 2].reserve(wish));
        let reserved: Vec<ReserveOutcome> = join_all(asked).await.into_iter().map(Result::unwrap).collect();
        let grants =
            reserved.iter().filter(|reserved| matches!(reserved, ReserveOutcome::Granted(_))).count();
        let in_flight =
            reserved.iter().filter(|reserved| matches!(reserved, ReserveOutcome::InFlight(_))).count();
        assert_eq!((grants, in_flight), (1, 19), "{reserved:?}");
    }
}

pub async fn answers_expire_after_the_retention(place: &impl Place) {
    let terms = IdempotencyTerms { retention: Duration::from_secs(1), ..LASTING };
    let store = begun(place, terms).await;
    let completed = Instant::now();
    store.complete(&done("a", 1)).await.unwrap();
    let deadline = completed + Duration::from_secs(20);
    loop {
        let reserved = store.reserve(&wish("a")).await.unwrap();
        if reserved != ReserveOutcome::Completed(done("a", 1).answer) {
            assert_lasted(completed.elapsed(), terms.retention);
            assert!(
                matches!(reserved, ReserveOutcome::Granted(KeyLease { claim: Claim::First, .. })),
                "{reserved:?}"
            );
            break;
        }
        assert!(Instant::now() < deadline, "kept for longer than {:?}", terms.retention);
        sleep(Duration::from_millis(10)).await;
    }
}

pub async fn uncompleted_reservations_expire(place: &impl Place) {
    let terms = IdempotencyTerms { lease: Duration::ZERO, retention: Duration::from_millis(300) };
    let store = begun(place, terms).await;
    granted(&store, &wish("a")).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    // Another payload, since asking with the same one takes the key over and keeps it in mind.
    let other = KeyRequest { fingerprint: fingerprint(b"other"), ..wish("a") };
    loop {
        match store.reserve(&other).await.unwrap() {
            ReserveOutcome::PayloadMismatch => assert!(Instant::now() < deadline, "never forgotten"),
            reserved => break assert!(matches!(reserved, ReserveOutcome::Granted(_)), "{reserved:?}"),
        }
        sleep(Duration::from_millis(10)).await;
    }
}

pub async fn an_uninitialized_store_reserves_nothing(place: &impl Place) {
    let store = place.open(LASTING);
    let owner = wish("a");
    assert_eq!(store.reserve(&owner).await.unwrap(), ReserveOutcome::NotInitialized);
    assert_eq!(store.renew(key("a"), owner.owner).await.unwrap(), RenewOutcome::Lost);
    store.initialize(LogContent::Empty).await.unwrap();
    assert_eq!(granted(&store, &wish("a")).await.claim, Claim::First);
}

pub async fn a_store_initialized_late_waits_one_lease_and_then_grants_doubtful(
    place: &impl Place,
) {
    let terms = IdempotencyTerms { lease: Duration::from_millis(300), ..LASTING };
    let store = place.open(terms);
    let began = Instant::now();
    store.initialize(LogContent::HasEvents).await.unwrap();
    let reserved = no_longer_in_flight(&store, &wish("a")).await;
    assert_lasted(began.elapsed(), terms.lease);
    let ReserveOutcome::Granted(KeyLease { claim: Claim::Doubtful, hint: trace }) = reserved else {
        panic!("{reserved:?}")
    };
    let ago = clock::now().millis() - trace.since.millis();
    assert!(ago >= i64::try_from(terms.retention.as_millis()).unwrap(), "only {ago} ms ago");

    let forgotten = IdempotencyTerms { retention: Duration::from_millis(1), ..terms };
    let store = place.open(forgotten);
    assert_eq!(granted(&store, &wish("b")).await.claim, Claim::First, "what came before is too old to count");
}

pub async fn initializing_twice_changes_nothing(place: &impl Place) {
    let store = begun(place, LASTING).await;
    place.open(LASTING).initialize(LogContent::HasEvents).await.unwrap();
    assert_eq!(granted(&store, &wish("a")).await.claim, Claim::First);
}

pub async fn another_process_sees_the_same(place: &impl Place) {
    let (store, other) = (begun(place, LASTING).await, place.open(LASTING));
    let owner = wish("a");
    let grant = granted(&store, &owner).await;
    assert_eq!(other.reserve(&wish("a")).await.unwrap(), ReserveOutcome::InFlight(grant.hint));
    other.complete(&done("a", 5)).await.unwrap();
    assert_eq!(store.reserve(&wish("a")).await.unwrap(), ReserveOutcome::Completed(done("a", 5).answer));
}
