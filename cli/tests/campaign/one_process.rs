//! One process with embedded engines, and its faults.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chat_testing::fault_injector::{FaultInjector, InjectedFault};
use chat_testing::port;
use rand::RngExt;
use rand::rngs::StdRng;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::deployment::{Deployment, fault_length};
use crate::digests;
use crate::harness::client::Client;
use crate::harness::deployment::folder;
use crate::harness::process::{Process, ProcessOptions};

/// A fault of the process, its disk or its clock.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// The process is killed (SIGKILL) and started again.
    Kill,
    /// The process is killed, started, killed again after this many microseconds, and started again.
    KillWhileStarting(u64),
    /// The process is asked to end (SIGTERM) and started again.
    Stop,
    /// The process is paused (SIGSTOP).
    Pause(Duration),
    /// The disk is full, or syncs or reads fail, for a while.
    Disk(InjectedFault, Duration),
    /// The wall clock jumps to this many minutes after the true time, or before it if the number is negative.
    ClockJump(i32),
    /// The process is killed. Another process is started on a copy of the data. The log's WAL in the copy is damaged at
    /// this fraction of its length: the WAL is cut there if `is_cut`, or else a bit is flipped there.
    DamagedWal { fraction: f64, is_cut: bool },
    /// The process is killed, and starts without its read model.
    LostReadModel,
    /// The process is killed, and starts without its search index.
    LostSearchIndex,
}

/// One `serve` process.
pub struct OneProcess {
    options: ProcessOptions,
    url: String,
    process: Option<Process>,
    injector: FaultInjector,
    // Removed last, when the process has ended.
    folder: TempDir,
}

impl OneProcess {
    /// Starts the process.
    pub async fn start() -> Self {
        let folder = folder();
        let injector = FaultInjector::new().expect("the fault injector");
        let address = format!("127.0.0.1:{}", port::find_free_for_restarts().expect("a free port"));
        let options = ProcessOptions::new("serve", folder.path())
            .with("--listen-addr", &address)
            .with("--log", "warn")
            .with_variables(injector.environment());
        let url = format!("http://{address}");
        let process = Some(options.start().await);
        Self { options, url, process, injector, folder }
    }

    fn kill(&mut self) {
        self.process.take().expect("a process").kill();
    }

    async fn restart(&mut self) {
        self.process = Some(self.options.start().await);
    }

    /// Starts another process on a copy of the data whose WAL is damaged, and prints whether it takes commands. Both
    /// outcomes are correct: the log anchor is written once a second, so a loss of events that are newer than the
    /// anchor can go unnoticed. The data itself stays undamaged.
    async fn start_on_damaged_copy(&self, fraction: f64, is_cut: bool) {
        let copy = folder();
        copy_folder(self.folder.path(), copy.path());
        let wal = copy.path().join("events.db-wal");
        let mut bytes = fs::read(&wal).unwrap_or_default();
        if bytes.is_empty() {
            return;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index in a file"
        )]
        let index = ((bytes.len() - 1) as f64 * fraction) as usize;
        if is_cut {
            bytes.truncate(index);
        } else {
            bytes[index] ^= 0x10;
        }
        fs::write(&wal, &bytes).expect("a damaged WAL");
        let mut process = ProcessOptions::new("serve", copy.path()).with("--log", "warn").spawn();
        process.wait_for_address().await;
        let client = process.client();
        let deadline = Instant::now() + Duration::from_secs(1);
        let mut is_ready = false;
        while !is_ready && Instant::now() < deadline {
            is_ready = client.get("/readyz").try_send().await.is_ok_and(|reply| reply.status == 200);
            sleep(Duration::from_millis(20)).await;
        }
        eprintln!(
            "        a process on the damaged copy {}",
            if is_ready { "is ready" } else { "takes no commands" }
        );
        process.kill();
    }
}

impl Deployment for OneProcess {
    type Fault = Fault;

    fn faults(&self, random: &mut StdRng) -> Vec<Fault> {
        let minutes = random.random_range(-600..600);
        vec![
            Fault::Kill,
            Fault::Kill,
            Fault::KillWhileStarting(random.random_range(0..80_000)),
            Fault::Stop,
            Fault::Pause(fault_length(random)),
            Fault::Disk(InjectedFault::DiskFull, fault_length(random)),
            Fault::Disk(InjectedFault::SyncFails, fault_length(random)),
            Fault::Disk(InjectedFault::ReadFails, fault_length(random)),
            Fault::ClockJump(minutes),
            Fault::DamagedWal { fraction: random.random_range(0.0..1.0), is_cut: false },
            Fault::DamagedWal { fraction: random.random_range(0.0..1.0), is_cut: true },
            if random.random_ratio(1, 2) { Fault::LostReadModel } else { Fault::LostSearchIndex },
        ]
    }

    async fn inject(&mut self, fault: Fault) {
        match fault {
            Fault::Kill => {
                self.kill();
                self.restart().await;
            }
            Fault::KillWhileStarting(microseconds) => {
                self.kill();
                let starting = self.options.spawn();
                sleep(Duration::from_micros(microseconds)).await;
                starting.kill();
                self.restart().await;
            }
            Fault::Stop => {
                self.process.take().expect("a process").shut_down().await;
                self.restart().await;
            }
            Fault::Pause(time) => {
                let process = self.process.as_ref().expect("a process");
                process.pause();
                sleep(time).await;
                process.resume();
            }
            Fault::Disk(fault, time) => {
                self.injector.set(fault, true).expect("a fault");
                sleep(time).await;
                self.injector.set(fault, false).expect("the end of the fault");
                // After a failed sync, the process may end, because it can't know what is durable. A service manager
                // would start it again.
                if self.process.as_mut().expect("a process").has_ended() {
                    eprintln!("        the process ended");
                    self.restart().await;
                }
            }
            Fault::ClockJump(minutes) => {
                let offset = Duration::from_secs(60 * u64::from(minutes.unsigned_abs()));
                self.injector.set_clock_offset(offset, minutes < 0).expect("a clock");
            }
            Fault::DamagedWal { fraction, is_cut } => {
                self.kill();
                self.start_on_damaged_copy(fraction, is_cut).await;
                self.restart().await;
            }
            Fault::LostReadModel => {
                self.kill();
                remove_paths(self.folder.path(), |name| name.starts_with("read-model"));
                self.restart().await;
            }
            Fault::LostSearchIndex => {
                self.kill();
                remove_paths(self.folder.path(), |name| name.starts_with("search-index"));
                self.restart().await;
            }
        }
    }

    async fn check_while_running(&mut self) {}

    async fn wait_until_ready(&mut self) {
        self.process.as_ref().expect("a process").wait_until_ready().await;
    }

    fn writing_clients(&self) -> Vec<Client> {
        vec![self.client()]
    }

    fn client(&self) -> Client {
        Client::new(&self.url)
    }

    fn query_urls(&self) -> Vec<String> {
        vec![self.url.clone()]
    }

    fn log_flags(&self) -> Vec<String> {
        vec!["--data-dir".to_owned(), self.folder.path().display().to_string()]
    }

    async fn compare_with_rebuild(&mut self, head: u64) {
        let process = self.process.take().expect("a process");
        process.wait_until_folded(head).await;
        process.shut_down().await;
        let live = digests::from_folder(self.folder.path()).await;
        let rebuilt = digests::from_rebuild(self.folder.path(), &live).await;
        assert_eq!(live.position, rebuilt.position, "the projections have not folded the whole log");
        assert_eq!(live.content, rebuilt.content, "the projections differ from a rebuild");
        self.restart().await;
    }
}

/// The paths of the accepted files and folders in a folder.
fn paths_in(folder: &Path, accepts: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("a folder entry"));
    entries.filter(|entry| accepts(&entry.file_name().to_string_lossy())).map(|entry| entry.path()).collect()
}

fn copy_folder(source: &Path, target: &Path) {
    for path in paths_in(source, |_| true) {
        let copy = target.join(path.file_name().expect("a name"));
        if path.is_dir() {
            fs::create_dir_all(&copy).expect("a folder");
            copy_folder(&path, &copy);
        } else {
            fs::copy(&path, &copy).expect("a copy");
        }
    }
}

fn remove_paths(folder: &Path, accepts: impl Fn(&str) -> bool) {
    for path in paths_in(folder, accepts) {
        if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) }.expect("a removal");
    }
}
