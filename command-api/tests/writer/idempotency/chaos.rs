//! Random faults: killed processes, failing stores and lost data. At the end, each command is sent again without
//! faults, and the log must hold exactly one event for each key. `IDEMPOTENCY_SEED` repeats the random choices of a
//! run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chat_domain::AppToken;
use chat_ports::idempotency::IdempotencyTerms;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::runtime::Runtime;
use tokio::sync::Notify;

use super::{Cluster, Engines, Process, created_number};
use crate::faults::{AppendFault, CallFault};

const ROUNDS: u64 = 12;
const KEYS_PER_ROUND: u64 = 8;
/// A lease so short that it often expires during a command.
const TERMS: IdempotencyTerms =
    IdempotencyTerms { lease: Duration::from_millis(30), retention: Duration::from_hours(24) };

/// A process with its own runtime, so that all its tasks can be ended at any await point.
struct KillableProcess {
    runtime: Runtime,
    process: Process,
}

impl KillableProcess {
    fn start(cluster: &Cluster, random: &mut StdRng) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let process = runtime.block_on(cluster.start_process());
        let mut append_rng = StdRng::seed_from_u64(random.random());
        process.log.inject_each(move || random_append_fault(&mut append_rng));
        let mut read_rng = StdRng::seed_from_u64(random.random());
        process
            .log
            .hold_each_read(move || read_rng.random_ratio(1, 8).then(|| spawn_delayed_signal(&mut read_rng)));
        let mut call_rng = StdRng::seed_from_u64(random.random());
        process.idempotency_store.inject_each(move || match call_rng.random_range(0..20) {
            0 => CallFault::Unavailable,
            1 => CallFault::ResponseLost,
            _ => CallFault::None,
        });
        Self { runtime, process }
    }

    /// Ends all tasks of the process at their current await points.
    fn kill(self) {
        self.runtime.shutdown_background();
    }
}

/// Spawns a task that sends a signal after a random delay of up to 100 ms, about three leases.
fn spawn_delayed_signal(random: &mut StdRng) -> Arc<Notify> {
    let (signal, delay) = (Arc::new(Notify::new()), Duration::from_millis(random.random_range(0..100)));
    let sender = Arc::clone(&signal);
    tokio::spawn(async move {
        tokio::time::sleep(delay).await;
        sender.notify_one();
    });
    signal
}

fn random_append_fault(random: &mut StdRng) -> AppendFault {
    match random.random_range(0..12) {
        0 => AppendFault::Refused,
        1 => AppendFault::ResponseLost,
        2 => AppendFault::Late(spawn_delayed_signal(random)),
        3..=5 => AppendFault::HeldUntil(spawn_delayed_signal(random)),
        _ => AppendFault::None,
    }
}

/// For each key, the message numbers in the answers to its commands.
type Answers = Arc<Mutex<BTreeMap<String, BTreeSet<u64>>>>;

fn spawn_message(target: &KillableProcess, app: AppToken, key: String, answers: &Answers) {
    let (process, answers) = (target.process.clone(), Arc::clone(answers));
    target.runtime.spawn(async move {
        if let Ok(outcome) = process.create_message(app, &key).await {
            answers.lock().unwrap().entry(key).or_default().insert(created_number(&outcome));
        }
    });
}

fn run_with_faults(engines: Engines, seed: u64) {
    eprintln!("IDEMPOTENCY_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let cluster = Cluster::with_terms(engines, TERMS);
    let faultless_runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let faultless = faultless_runtime.block_on(cluster.start_process());
    let app = faultless_runtime.block_on(faultless.create_app_with_chat());
    let answers = Answers::default();
    let mut processes: Vec<KillableProcess> =
        (0..3).map(|_| KillableProcess::start(&cluster, &mut random)).collect();
    for round in 0..ROUNDS {
        for _ in 0..40 {
            let target = &processes[random.random_range(0..processes.len())];
            spawn_message(
                target,
                app,
                format!("{round}-{}", random.random_range(0..KEYS_PER_ROUND)),
                &answers,
            );
            match random.random_range(0..40) {
                0..=7 => std::thread::sleep(Duration::from_millis(random.random_range(0..20))),
                8 | 9 => {
                    let killed = random.random_range(0..processes.len());
                    processes.swap_remove(killed).kill();
                    processes.push(KillableProcess::start(&cluster, &mut random));
                }
                10 => cluster.wipe_idempotency_store(),
                _ => {}
            }
        }
    }
    for process in processes {
        process.kill();
    }

    // Sends the command of each key without faults, until it has an outcome.
    let keys = (0..ROUNDS).flat_map(|round| (0..KEYS_PER_ROUND).map(move |key| format!("{round}-{key}")));
    for key in keys {
        let outcome = faultless_runtime.block_on(faultless.create_message_with_retries(app, &key)).unwrap();
        answers.lock().unwrap().entry(key).or_default().insert(created_number(&outcome));
    }
    let bodies = faultless_runtime.block_on(cluster.bodies());
    let answers = answers.lock().unwrap();
    for (key, numbers) in &*answers {
        let numbers_in_log: Vec<u64> =
            (1..).zip(&bodies).filter(|(_, body)| *body == key).map(|(number, _)| number).collect();
        assert_eq!(numbers_in_log.len(), 1, "{key} is in the log under {numbers_in_log:?}");
        assert_eq!(
            numbers.iter().copied().collect::<Vec<_>>(),
            numbers_in_log,
            "the answers to {key} differ from the log"
        );
    }
    assert_eq!(bodies.len() as u64, ROUNDS * KEYS_PER_ROUND);
}

fn seed_from_env() -> u64 {
    match std::env::var("IDEMPOTENCY_SEED") {
        Ok(seed) => seed.parse().expect("IDEMPOTENCY_SEED should be a number"),
        Err(_) => rand::random(),
    }
}

#[test]
fn each_key_has_one_event_despite_faults_on_sqlite() {
    run_with_faults(Engines::Sqlite, seed_from_env());
}

#[test]
fn each_key_has_one_event_despite_faults_on_kurrentdb_and_redis() {
    run_with_faults(Engines::KurrentDbAndRedis, seed_from_env());
}
