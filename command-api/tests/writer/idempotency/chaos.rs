//! Processes that are killed at any moment, stores that fail and forget, and clients that send again until they are
//! answered. `IDEMPOTENCY_SEED` repeats a run's choices.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chat_domain::AppToken;
use chat_ports::idempotency::IdempotencyTerms;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::runtime::Runtime;
use tokio::sync::Notify;

use super::faults::{AppendFault, CallFault};
use super::{Engines, Process, Scene, number};

const ROUNDS: u64 = 12;
const KEYS: u64 = 8;
/// Short enough that leases run out in the middle of things.
const TERMS: IdempotencyTerms =
    IdempotencyTerms { lease: Duration::from_millis(30), retention: Duration::from_hours(24) };

/// A process with threads of its own, so that all its tasks can be ended wherever they are.
struct Killable {
    runtime: Runtime,
    process: Process,
}

impl Killable {
    fn start(scene: &Scene, random: &mut StdRng) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let process = runtime.block_on(scene.process());
        let mut appends = StdRng::seed_from_u64(random.random());
        process.log.each(move || append_fault(&mut appends));
        let mut reads = StdRng::seed_from_u64(random.random());
        process.log.hold_each_read(move || reads.random_ratio(1, 8).then(|| soon(&mut reads)));
        let mut calls = StdRng::seed_from_u64(random.random());
        process.keys.each(move || match calls.random_range(0..20) {
            0 => CallFault::Away,
            1 => CallFault::AnswerLost,
            _ => CallFault::None,
        });
        Self { runtime, process }
    }

    /// Ends it, at whatever await its tasks are.
    fn kill(self) {
        self.runtime.shutdown_background();
    }
}

/// A signal that comes within three leases.
fn soon(random: &mut StdRng) -> Arc<Notify> {
    let (signal, after) = (Arc::new(Notify::new()), Duration::from_millis(random.random_range(0..100)));
    let sent = Arc::clone(&signal);
    tokio::spawn(async move {
        tokio::time::sleep(after).await;
        sent.notify_one();
    });
    signal
}

fn append_fault(random: &mut StdRng) -> AppendFault {
    match random.random_range(0..12) {
        0 => AppendFault::Refused,
        1 => AppendFault::AnswerLost,
        2 => AppendFault::Late(soon(random)),
        3..=5 => AppendFault::HeldUntil(soon(random)),
        _ => AppendFault::None,
    }
}

/// Which numbers were answered under which key.
type Answers = Arc<Mutex<BTreeMap<String, BTreeSet<u64>>>>;

fn send(target: &Killable, app: AppToken, key: String, answers: &Answers) {
    let (process, answers) = (target.process.clone(), Arc::clone(answers));
    target.runtime.spawn(async move {
        if let Ok(carried) = process.create_message(app, &key).await {
            answers.lock().unwrap().entry(key).or_default().insert(number(&carried));
        }
    });
}

fn run(engines: Engines, seed: u64) {
    eprintln!("IDEMPOTENCY_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let scene = Scene::on_terms(engines, TERMS);
    let calm = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let last = calm.block_on(scene.process());
    let app = calm.block_on(last.app_with_chat());
    let answers = Answers::default();
    let mut processes: Vec<Killable> = (0..3).map(|_| Killable::start(&scene, &mut random)).collect();
    for round in 0..ROUNDS {
        for _ in 0..40 {
            let target = &processes[random.random_range(0..processes.len())];
            send(target, app, format!("{round}-{}", random.random_range(0..KEYS)), &answers);
            match random.random_range(0..40) {
                0..=7 => std::thread::sleep(Duration::from_millis(random.random_range(0..20))),
                8 | 9 => {
                    let victim = random.random_range(0..processes.len());
                    processes.swap_remove(victim).kill();
                    processes.push(Killable::start(&scene, &mut random));
                }
                10 => scene.wipe(),
                _ => {}
            }
        }
    }
    for process in processes {
        process.kill();
    }

    // Whatever was never answered is sent until it is.
    let keys = (0..ROUNDS).flat_map(|round| (0..KEYS).map(move |key| format!("{round}-{key}")));
    for key in keys {
        let carried = calm.block_on(last.insist(app, &key)).unwrap();
        answers.lock().unwrap().entry(key).or_default().insert(number(&carried));
    }
    let bodies = calm.block_on(scene.bodies());
    let answers = answers.lock().unwrap();
    for (key, numbers) in &*answers {
        let places: Vec<u64> =
            (1..).zip(&bodies).filter(|(_, body)| *body == key).map(|(number, _)| number).collect();
        assert_eq!(places.len(), 1, "{key} is in the log at {places:?}");
        assert_eq!(numbers.iter().copied().collect::<Vec<_>>(), places, "{key}");
    }
    assert_eq!(bodies.len() as u64, ROUNDS * KEYS);
}

fn seed() -> u64 {
    match std::env::var("IDEMPOTENCY_SEED") {
        Ok(seed) => seed.parse().expect("a seed is a number"),
        Err(_) => rand::random(),
    }
}

#[test]
fn whatever_dies_fails_or_forgets_there_is_one_event_for_each_key() {
    run(Engines::Sqlite, seed());
}

#[test]
fn the_same_on_kurrentdb_and_redis() {
    run(Engines::KurrentDbAndRedis, seed());
}
