//! A deployment under test: the operations that the campaign needs, and the order of its faults.

use std::fmt::Debug;
use std::path::PathBuf;

use chat_ports::read_model::ReadModel;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use crate::digests;
use crate::harness::client::Client;
use crate::harness::deployment::folder;
use crate::harness::process::ProcessOptions;

/// Processes and engines that can be made to fail.
pub trait Deployment {
    /// A fault that the campaign can inject into this deployment.
    type Fault: Debug;

    /// The next faults of a [`FaultSequence`]. Their lengths and most of their targets are random.
    fn faults(&self, random: &mut StdRng) -> Vec<Self::Fault>;

    /// Injects a fault, and returns after its end. Only a jump of a clock does not end. The deployment may still be
    /// recovering afterwards.
    async fn inject(&mut self, fault: Self::Fault);

    /// Checks the invariants that hold even while the deployment recovers from a fault.
    async fn check_while_running(&mut self);

    /// Waits until every process is ready.
    async fn wait_until_ready(&mut self);

    /// Clients that together reach every process that takes commands.
    fn writing_clients(&self) -> Vec<Client>;

    /// A client for commands and queries.
    fn client(&self) -> Client;

    /// The URLs of the processes that answer queries.
    fn query_urls(&self) -> Vec<String>;

    /// The flags that name the log.
    fn log_flags(&self) -> Vec<String>;

    /// Stops the processes once the projections have folded the log, at least up to `head`. Compares each projection
    /// with a rebuild from the log alone, and starts the processes again.
    async fn compare_with_rebuild(&mut self, head: u64);
}

/// An endless sequence of faults: those of [`Deployment::faults`] in random order, again and again.
pub struct FaultSequence<D: Deployment> {
    random: StdRng,
    /// The faults to inject before [`Deployment::faults`] is called again.
    remaining: Vec<D::Fault>,
}

impl<D: Deployment> FaultSequence<D> {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Self {
        Self { random: StdRng::seed_from_u64(seed), remaining: Vec::new() }
    }

    /// The next fault.
    pub fn next(&mut self, deployment: &D) -> D::Fault {
        if self.remaining.is_empty() {
            self.remaining = deployment.faults(&mut self.random);
            self.remaining.shuffle(&mut self.random);
        }
        self.remaining.pop().expect("a fault")
    }
}

/// The length of a fault that lasts for a while.
pub fn fault_length(random: &mut StdRng) -> std::time::Duration {
    std::time::Duration::from_millis(random.random_range(200..1_500))
}

/// Checks that the read model and the search indexes equal a rebuild from the log. No process may write to them
/// meanwhile.
pub async fn compare_with_rebuild(
    read_model: &dyn ReadModel,
    search_folders: &[PathBuf],
    log_flags: &[String],
) {
    for search_folder in search_folders {
        let live = digests::compute(read_model, search_folder).await;
        let rebuild_folder = folder();
        let projector = ProcessOptions::new("projector", rebuild_folder.path());
        let projector = log_flags.chunks(2).fold(projector, |options, flag| options.with(&flag[0], &flag[1]));
        let rebuilt = digests::from_projector(&projector, rebuild_folder.path(), &live).await;
        assert_eq!(live.content, rebuilt.content, "the projections differ from a rebuild");
    }
}
