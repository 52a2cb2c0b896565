//! Faults that the chaos tests inject.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

/// The role of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    CommandApi,
    ReadModelProjector,
    SearchProjector,
    QueryApi,
}

/// A fault. The number in a process fault selects one of the processes with the role, modulo their count.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// Redis loses all its data (FLUSHALL).
    FlushRedis,
    /// Redis is killed and restarted without data.
    RestartRedisEmpty,
    /// Redis is paused.
    PauseRedis(Duration),
    /// Postgres is restarted.
    RestartPostgres,
    /// A process is killed (SIGKILL) and started again.
    Kill(Role, usize),
    /// A process is stopped (SIGTERM) and started again.
    Stop(Role, usize),
    /// A process is paused (SIGSTOP) and resumed.
    Pause(Role, usize, Duration),
}

/// An endless sequence of faults: equally many of each kind, in random order.
pub struct Faults {
    random: StdRng,
    round: Vec<Fault>,
}

impl Faults {
    /// Creates the sequence of a seed.
    pub fn new(seed: u64) -> Self {
        Self { random: StdRng::seed_from_u64(seed), round: Vec::new() }
    }

    fn random_pause(&mut self) -> Duration {
        Duration::from_millis(self.random.random_range(200..2_000))
    }
}

impl Iterator for Faults {
    type Item = Fault;

    fn next(&mut self) -> Option<Fault> {
        if self.round.is_empty() {
            let index = self.random.random_range(0..100);
            self.round = vec![
                Fault::FlushRedis,
                Fault::RestartRedisEmpty,
                Fault::PauseRedis(self.random_pause()),
                Fault::RestartPostgres,
                Fault::Kill(Role::CommandApi, index),
                Fault::Kill(Role::CommandApi, index + 1),
                Fault::Stop(Role::CommandApi, index + 2),
                Fault::Pause(Role::CommandApi, index + 1, self.random_pause()),
                Fault::Kill(Role::ReadModelProjector, index),
                Fault::Kill(Role::SearchProjector, index),
                Fault::Pause(Role::ReadModelProjector, index + 1, self.random_pause()),
                Fault::Kill(Role::QueryApi, index),
            ];
            self.round.shuffle(&mut self.random);
        }
        self.round.pop()
    }
}
