//! Separate processes on Redis and Postgres, and their faults.

use std::path::PathBuf;
use std::time::Duration;

use chat_ports::read_model::ReadModel;
use chat_postgres::{PostgresReadModel, PostgresUrl};
use chat_testing::cutting_proxy::{CuttingProxy, Network};
use chat_testing::fault_injector::{FaultInjector, InjectedFault};
use chat_testing::kurrentdb::RealKurrentDb;
use chat_testing::port;
use chat_testing::postgres::Postgres;
use chat_testing::redis::Redis;
use rand::RngExt;
use rand::rngs::StdRng;
use tempfile::TempDir;
use tokio::time::sleep;

use crate::deployment::{Deployment, compare_with_rebuild, fault_length};
use crate::harness::client::Client;
use crate::harness::deadline::eventually;
use crate::harness::deployment::folder;
use crate::harness::process::{Process, ProcessOptions};

/// The log that the processes share.
pub enum Log {
    /// A SQLite file.
    SqliteFile,
    /// The fake KurrentDB at this URL.
    KurrentDb(String),
    /// A real KurrentDB.
    RealKurrentDb(RealKurrentDb),
}

/// The role of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    CommandApi,
    ReadModelProjector,
    SearchProjector,
    QueryApi,
}

/// A server that processes connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Redis,
    Postgres,
}

/// A fault of an engine or a process. The number after a role chooses one of the role's processes: it is taken modulo
/// their count. A duration is the length of the fault.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// Redis loses all its keys.
    FlushRedis,
    /// Redis is killed and starts empty.
    RestartRedisEmpty,
    /// Redis is killed and starts with the data that it had this long before.
    RestartRedisFromCopy(Duration),
    /// An engine is paused (SIGSTOP).
    PauseEngine(Engine, Duration),
    /// Postgres is restarted.
    RestartPostgres,
    /// Postgres is killed (SIGKILL) and started again.
    KillPostgres,
    /// A process is killed (SIGKILL) and started again.
    Kill(Role, usize),
    /// A process is asked to end (SIGTERM) and started again.
    Stop(Role, usize),
    /// A process is paused (SIGSTOP).
    Pause(Role, usize, Duration),
    /// A process can't reach an engine.
    Cut(Role, usize, Engine, Network, Duration),
    /// No process can reach an engine.
    CutAll(Engine, Network, Duration),
    /// The disk of a process is full, or syncs or reads fail, for a while.
    Disk(Role, usize, InjectedFault, Duration),
    /// The wall clock of a process jumps to this many minutes after the true time, or before it if the number is
    /// negative.
    ClockJump(Role, usize, i32),
    /// A node of the real KurrentDB is stopped and started again.
    StopNode(usize, Duration),
}

/// A process that comes back at the same address.
struct Member {
    role: Role,
    options: ProcessOptions,
    url: String,
    process: Option<Process>,
    redis: CuttingProxy,
    postgres: CuttingProxy,
    injector: FaultInjector,
    /// Whether a fault such as a pause or a full disk may have made its commands wait since the last check.
    was_held_up: bool,
    /// Whether a failing disk may have ended the process since the process was last ready.
    may_have_ended: bool,
    /// How many waits of its commands had taken over 2.5 s at the last check.
    long_waits: u64,
}

impl Member {
    async fn start(role: Role, options: ProcessOptions, engines: &Engines) -> Self {
        let redis = CuttingProxy::start(engines.redis.port()).await.expect("a proxy");
        let postgres = CuttingProxy::start(engines.postgres.port()).await.expect("a proxy");
        let injector = FaultInjector::new().expect("the fault injector");
        let address = format!("127.0.0.1:{}", port::find_free_for_restarts().expect("a free port"));
        let database =
            engines.database.replace(&engines.postgres.port().to_string(), &postgres.port().to_string());
        let options = options
            .with("--listen-addr", &address)
            .with("--log", "warn")
            .with("--database-url", &database)
            .with("--redis-url", &format!("redis://127.0.0.1:{}", redis.port()))
            .with_variables(injector.environment());
        let (url, process) = (format!("http://{address}"), Some(options.spawn()));
        Self {
            role,
            options,
            url,
            process,
            redis,
            postgres,
            injector,
            was_held_up: false,
            may_have_ended: false,
            long_waits: 0,
        }
    }

    fn process(&self) -> &Process {
        self.process.as_ref().expect("a process")
    }

    fn restart(&mut self) {
        self.process = Some(self.options.spawn());
    }

    /// Starts the process again if it has ended, as a service manager would. Asserts that a failing disk may have ended
    /// it: a process ends by itself only if it can't know what is durable, or if its disk fails while it starts.
    fn restart_if_ended(&mut self) {
        if self.process.as_mut().expect("a process").has_ended() {
            eprintln!("        a process of {:?} ended", self.role);
            assert!(self.may_have_ended, "a process of {:?} ended without a failing disk", self.role);
            self.restart();
        }
    }

    fn proxy(&self, engine: Engine) -> &CuttingProxy {
        match engine {
            Engine::Redis => &self.redis,
            Engine::Postgres => &self.postgres,
        }
    }

    async fn wait_until_ready(&mut self) {
        self.restart_if_ended();
        let process = self.process.as_mut().expect("a process");
        process.wait_for_address().await;
        process.wait_until_ready().await;
        self.may_have_ended = false;
    }
}

/// The servers that the processes connect to.
struct Engines {
    redis: Redis,
    postgres: Postgres,
    database: String,
}

/// Three command APIs, two projectors of the read model (one is active, the other on standby), two query APIs, and a
/// projector of the search index for each query API.
pub struct Cluster {
    members: Vec<Member>,
    engines: Engines,
    search_folders: [PathBuf; 2],
    /// The flags that name the log.
    log: Vec<(&'static str, String)>,
    /// The real KurrentDB, if the log is there and its nodes can be stopped.
    nodes: Option<RealKurrentDb>,
    /// The number of checks in which at least one command API reported its waits.
    wait_checks: u32,
    /// The number of these checks in which at least one command API had new long waits.
    long_wait_checks: u32,
    // Removed last, when every process has ended.
    _folder: TempDir,
}

impl Cluster {
    /// Starts the engines and the processes.
    pub async fn start(log: Log) -> Self {
        let folder = folder();
        let (redis, postgres) = (Redis::start().expect("Redis"), Postgres::start());
        let database = postgres.create_database();
        let engines = Engines { redis, postgres, database };
        let nodes = match &log {
            Log::RealKurrentDb(server) if server.has_command() => Some(server.clone()),
            _ => None,
        };
        if let Some(server) = &nodes {
            server.start_with_empty_log();
        }
        let log = match log {
            Log::SqliteFile => {
                let file = folder.path().join("events.db");
                vec![("--event-store-url", format!("sqlite://{}", file.display()))]
            }
            Log::KurrentDb(url) => vec![("--event-store-url", url)],
            Log::RealKurrentDb(server) => vec![("--event-store-url", server.url().to_owned())],
        };
        let search_folders = [folder.path().join("search-1"), folder.path().join("search-2")];
        let options = |role| with_log(ProcessOptions::new(role, folder.path()), &log);
        let mut members = Vec::new();
        for _ in 0..3 {
            members.push(Member::start(Role::CommandApi, options("command-api"), &engines).await);
        }
        for _ in 0..2 {
            let projector = options("projector").with("--only", "read-model");
            members.push(Member::start(Role::ReadModelProjector, projector, &engines).await);
        }
        for search in &search_folders {
            let search = search.to_str().expect("a path of UTF-8");
            let projector = options("projector").with("--only", "search").with("--search-index-dir", search);
            members.push(Member::start(Role::SearchProjector, projector, &engines).await);
            let query_api = options("query-api").with("--search-index-dir", search);
            members.push(Member::start(Role::QueryApi, query_api, &engines).await);
        }
        let mut cluster = Self {
            members,
            engines,
            search_folders,
            log,
            nodes,
            wait_checks: 0,
            long_wait_checks: 0,
            _folder: folder,
        };
        cluster.wait_until_ready().await;
        cluster
    }

    fn urls(&self, role: Role) -> impl Iterator<Item = &str> {
        self.members.iter().filter(move |member| member.role == role).map(|member| member.url.as_str())
    }

    fn member(&mut self, role: Role, number: usize) -> &mut Member {
        let mut of_role: Vec<&mut Member> =
            self.members.iter_mut().filter(|member| member.role == role).collect();
        let index = number % of_role.len();
        of_role.swap_remove(index)
    }
}

impl Deployment for Cluster {
    type Fault = Fault;

    fn faults(&self, random: &mut StdRng) -> Vec<Fault> {
        let number = random.random_range(0..100);
        let minutes = random.random_range(-600..600);
        let roles = [Role::CommandApi, Role::ReadModelProjector, Role::SearchProjector, Role::QueryApi];
        let role = roles[random.random_range(0..roles.len())];
        let mut network = || if random.random_ratio(1, 2) { Network::Refusing } else { Network::Silent };
        let networks = [network(), network(), network(), network()];
        let mut faults = vec![
            Fault::FlushRedis,
            Fault::RestartRedisEmpty,
            Fault::RestartRedisFromCopy(fault_length(random)),
            Fault::PauseEngine(Engine::Redis, fault_length(random)),
            Fault::PauseEngine(Engine::Postgres, fault_length(random)),
            Fault::RestartPostgres,
            Fault::KillPostgres,
            Fault::Kill(Role::CommandApi, number),
            Fault::Kill(Role::CommandApi, number + 1),
            Fault::Stop(Role::CommandApi, number + 2),
            Fault::Pause(Role::CommandApi, number + 1, fault_length(random)),
            Fault::Kill(Role::ReadModelProjector, number),
            Fault::Kill(Role::SearchProjector, number),
            Fault::Pause(Role::ReadModelProjector, number + 1, fault_length(random)),
            Fault::Kill(Role::QueryApi, number),
            Fault::Cut(Role::CommandApi, number, Engine::Redis, networks[0], fault_length(random)),
            Fault::Cut(Role::ReadModelProjector, number, Engine::Postgres, networks[1], fault_length(random)),
            Fault::CutAll(Engine::Redis, networks[2], fault_length(random)),
            Fault::CutAll(Engine::Postgres, networks[3], fault_length(random)),
            Fault::Disk(role, number, InjectedFault::DiskFull, fault_length(random)),
            Fault::Disk(Role::CommandApi, number, InjectedFault::SyncFails, fault_length(random)),
            Fault::Disk(role, number + 1, InjectedFault::ReadFails, fault_length(random)),
            Fault::ClockJump(role, number, minutes),
        ];
        if self.nodes.is_some() {
            let mut stop = || Fault::StopNode(random.random_range(0..100), fault_length(random));
            faults.extend([stop(), stop(), stop()]);
        }
        faults
    }

    async fn inject(&mut self, fault: Fault) {
        let engines = &mut self.engines;
        match fault {
            Fault::FlushRedis => engines.redis.flush().expect("a flush"),
            Fault::RestartRedisEmpty => engines.redis.restart_empty().expect("a restart"),
            Fault::RestartRedisFromCopy(time) => {
                engines.redis.copy_data().expect("a copy");
                sleep(time).await;
                engines.redis.restart_from_copy().expect("a restart");
            }
            Fault::PauseEngine(Engine::Redis, time) => {
                engines.redis.pause().expect("a pause");
                sleep(time).await;
                engines.redis.resume().expect("the end of the pause");
            }
            Fault::PauseEngine(Engine::Postgres, time) => {
                engines.postgres.pause();
                sleep(time).await;
                engines.postgres.resume();
            }
            Fault::RestartPostgres => engines.postgres.restart(),
            Fault::KillPostgres => {
                engines.postgres.kill();
                engines.postgres.restart();
            }
            Fault::Kill(role, number) => {
                let member = self.member(role, number);
                member.process.take().expect("a process").kill();
                member.restart();
            }
            Fault::Stop(role, number) => {
                let member = self.member(role, number);
                let mut process = member.process.take().expect("a process");
                // A process that an earlier fault has just restarted may not handle the signal yet.
                process.wait_for_address().await;
                process.shut_down().await;
                member.restart();
            }
            Fault::Pause(role, number, time) => {
                let member = self.member(role, number);
                member.process().pause();
                sleep(time).await;
                member.process().resume();
                member.was_held_up = true;
            }
            Fault::Cut(role, number, engine, network, time) => {
                let member = self.member(role, number);
                member.proxy(engine).set(network);
                sleep(time).await;
                member.proxy(engine).set(Network::Open);
                member.was_held_up = true;
            }
            Fault::CutAll(engine, network, time) => {
                for member in &self.members {
                    member.proxy(engine).set(network);
                }
                sleep(time).await;
                for member in &mut self.members {
                    member.proxy(engine).set(Network::Open);
                    member.was_held_up = true;
                }
            }
            Fault::Disk(role, number, fault, time) => {
                let member = self.member(role, number);
                member.may_have_ended = true;
                member.injector.set(fault, true).expect("a fault");
                sleep(time).await;
                member.injector.set(fault, false).expect("the end of the fault");
                // Other processes wait for numbers that this process has reserved and can't store events for.
                self.members.iter_mut().for_each(|other| other.was_held_up = true);
            }
            Fault::ClockJump(role, number, minutes) => {
                let offset = Duration::from_secs(60 * u64::from(minutes.unsigned_abs()));
                self.member(role, number).injector.set_clock_offset(offset, minutes < 0).expect("a clock");
            }
            Fault::StopNode(number, time) => {
                let server = self.nodes.as_ref().expect("a real KurrentDB");
                server.stop_node(number);
                sleep(time).await;
                server.start_node(number);
                self.members.iter_mut().for_each(|other| other.was_held_up = true);
            }
        }
    }

    /// Starts processes again that a failing disk has ended. Checks that commands rarely wait long for a number that a
    /// process reserved before it died. A wait has a timeout of 0.4 s; only a process that the machine keeps waiting
    /// exceeds 2.5 s. Processes that a fault has held up since the last check are left out: they waited for its end.
    async fn check_while_running(&mut self) {
        self.members.iter_mut().for_each(Member::restart_if_ended);
        let (mut have_reported, mut have_waited_long) = (false, false);
        for member in self.members.iter_mut().filter(|member| member.role == Role::CommandApi) {
            let Ok(metrics) = Client::new(&member.url).get("/metrics").try_send().await else { continue };
            let text = String::from_utf8_lossy(&metrics.body).into_owned();
            let metric = |name_and_labels: &str| -> Option<u64> {
                let value = text.lines().find_map(|line| line.strip_prefix(name_and_labels))?;
                Some(value.trim().parse().expect("a number"))
            };
            // A process that is starting has not waited for anything.
            let Some(waits) = metric("chat_command_predecessor_wait_seconds_count ") else { continue };
            have_reported = true;
            let short_waits = metric("chat_command_predecessor_wait_seconds_bucket{le=\"2.5\"} ");
            let long_waits = waits - short_waits.expect("a bucket of 2.5 s");
            // If the process was restarted, its count began at 0 again.
            let before = if long_waits < member.long_waits { 0 } else { member.long_waits };
            if !std::mem::take(&mut member.was_held_up) {
                have_waited_long |= long_waits > before;
            }
            member.long_waits = long_waits;
        }
        self.wait_checks += u32::from(have_reported);
        self.long_wait_checks += u32::from(have_waited_long);
        assert!(
            self.long_wait_checks <= 2 + self.wait_checks / 10,
            "commands waited over 2.5 s for a number of a dead process in {} of {} checks",
            self.long_wait_checks,
            self.wait_checks
        );
    }

    async fn wait_until_ready(&mut self) {
        for member in &mut self.members {
            member.wait_until_ready().await;
        }
    }

    fn writing_clients(&self) -> Vec<Client> {
        self.urls(Role::CommandApi).map(|url| Client::routed([url], self.urls(Role::QueryApi))).collect()
    }

    fn client(&self) -> Client {
        Client::routed(self.urls(Role::CommandApi), self.urls(Role::QueryApi))
    }

    fn query_urls(&self) -> Vec<String> {
        self.urls(Role::QueryApi).map(str::to_owned).collect()
    }

    fn log_flags(&self) -> Vec<String> {
        self.log.iter().flat_map(|(flag, value)| [(*flag).to_owned(), value.clone()]).collect()
    }

    async fn compare_with_rebuild(&mut self, head: u64) {
        let mut folded = head;
        for member in self.members.iter().filter(|member| member.role == Role::SearchProjector) {
            // On KurrentDB, a projector that has not received the last events yet reports no lag. So it must reach
            // `head` first.
            member.process().wait_until_folded(head).await;
            folded = member.process().wait_until_caught_up().await;
        }
        let read_model = PostgresReadModel::new(PostgresUrl::parse(&self.engines.database).expect("a URL"));
        eventually("the read model has folded the whole log", async || {
            read_model.position().await.is_ok_and(|position| position.get() >= folded).then_some(())
        })
        .await;
        for member in &mut self.members {
            member.process.take().expect("a process").shut_down().await;
        }
        compare_with_rebuild(&read_model, &self.search_folders, &self.log_flags()).await;
        self.members.iter_mut().for_each(Member::restart);
        self.wait_until_ready().await;
    }
}

fn with_log(options: ProcessOptions, log: &[(&'static str, String)]) -> ProcessOptions {
    log.iter().fold(options, |options, (flag, value)| options.with(flag, value))
}
