//! Hosts with a network between them, on a Postgres and a Redis that fail over.
//!
//! | host | runs |
//! |---|---|
//! | `gateway` | HAProxy, a sentinel |
//! | `command-1`, `command-2` | a command API |
//! | `query-1`, `query-2` | a query API and the projector of its search index |
//! | `projector-1`, `projector-2` | a projector of the read model: one is active, the other on standby |
//! | `db-1`, `db-2` | Postgres with the log and the read model: the primary and a synchronous standby |
//! | `redis-1`, `redis-2` | Redis: the master and its replica, each with a sentinel |
//!
//! The primary has the floating address. This is the address in the URLs of the log and of the read model.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chat_ports::read_model::ReadModel;
use chat_postgres::{PostgresReadModel, PostgresUrl};
use chat_testing::gateway::{self, GatewayAddresses};
use chat_testing::hosts::{HostNetwork, Link};
use chat_testing::postgres::Postgres;
use chat_testing::redis::RedisSentinel;
use chat_testing::supervised_server::SupervisedServer;
use rand::RngExt;
use rand::rngs::StdRng;
use tempfile::TempDir;
use tokio::time::sleep;

use crate::deployment::{Deployment, compare_with_rebuild};
use crate::harness::client::Client;
use crate::harness::deadline::eventually;
use crate::harness::deployment::folder;
use crate::harness::process::{Process, ProcessOptions};

/// All hosts.
const HOSTS: [&str; 11] = [
    "gateway",
    "command-1",
    "command-2",
    "query-1",
    "query-2",
    "projector-1",
    "projector-2",
    "db-1",
    "db-2",
    "redis-1",
    "redis-2",
];

const DATABASE_HOSTS: [&str; 2] = ["db-1", "db-2"];
const REDIS_HOSTS: [&str; 2] = ["redis-1", "redis-2"];

/// The hosts of the chat API's own processes.
const PROCESS_HOSTS: [&str; 6] =
    ["command-1", "command-2", "query-1", "query-2", "projector-1", "projector-2"];

/// The ports on each host.
const API_PORT: u16 = 8_000;
const SEARCH_PROJECTOR_PORT: u16 = 8_001;
const GATEWAY_METRICS_PORT: u16 = 8_404;

/// The time limit of a request: well below the histogram bucket of 10 s that [`count_overdue_commands`] reads.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// A fault of the network, of a host or of an engine. The last duration is the length of the fault.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// Two hosts can't reach each other.
    Partition(&'static str, &'static str, Duration),
    /// All packets from the first host to the second are lost. The other direction works.
    OneWayPartition(&'static str, &'static str, Duration),
    /// A host is cut off from all others.
    Isolation(&'static str, Duration),
    /// The packets from and to a host are delayed, each by the first duration.
    SlowHost(&'static str, Duration, Duration),
    /// A host vanishes without closing its connections, and comes back.
    VanishedHost(&'static str, Duration),
    /// The processes of a host are killed (SIGKILL) and started again.
    Kill(&'static str),
    /// The processes of a host are asked to end (SIGTERM) and started again.
    Stop(&'static str),
    /// The host of Postgres's primary vanishes, and the standby takes over. The old primary comes back as a standby.
    PostgresFailover,
    /// The host of Redis's master vanishes, and the sentinels make the replica the master. The old master comes back as
    /// a replica.
    RedisFailover,
}

/// A process that comes back at the same address.
struct Member {
    host: &'static str,
    role: &'static str,
    url: String,
    options: ProcessOptions,
    process: Option<Process>,
}

impl Member {
    fn start(&mut self) {
        self.process = Some(self.options.spawn());
    }

    fn take(&mut self) -> Process {
        self.process.take().expect("a process")
    }
}

/// The hosts and their processes.
pub struct Hosts {
    members: Vec<Member>,
    primary: Postgres,
    standby: Postgres,
    redis: RedisSentinel,
    #[expect(dead_code, reason = "runs until it is dropped")]
    gateway: SupervisedServer,
    gateway_url: String,
    log_url: String,
    read_model_url: String,
    search_folders: Vec<PathBuf>,
    // Dropped after everything that runs on it.
    network: HostNetwork,
    folder: TempDir,
}

impl Hosts {
    /// Starts the engines and the processes.
    pub async fn start() -> Self {
        let network = HostNetwork::start(&HOSTS).expect("hosts");
        let folder = folder();
        let [first, second] = DATABASE_HOSTS.map(|name| network.host(name));
        let primary = Postgres::start_on(first);
        network.move_floating_address(first).expect("the address of the primary");
        let floating = network.floating_address().to_string();
        let database = || primary.create_database().replace(&primary.address().to_string(), &floating);
        let (log_url, read_model_url) = (database(), database());
        let standby = primary.start_standby_on(second);
        let redis_hosts = REDIS_HOSTS.map(|name| network.host(name));
        let sentinels = [network.host("gateway"), redis_hosts[0], redis_hosts[1]];
        let redis = RedisSentinel::start_on(redis_hosts, &sentinels).expect("Redis");

        let url = |host: &str, port: u16| format!("http://{}:{port}", network.host(host).address());
        let mut hosts = Self {
            members: Vec::new(),
            gateway: start_gateway(&network, folder.path()),
            gateway_url: url("gateway", API_PORT),
            primary,
            standby,
            redis,
            log_url,
            read_model_url,
            search_folders: Vec::new(),
            network,
            folder,
        };
        for host in ["command-1", "command-2"] {
            hosts.add("command-api", host, API_PORT, &[]);
        }
        for host in ["query-1", "query-2"] {
            hosts.add("query-api", host, API_PORT, &[]);
            hosts.add("projector", host, SEARCH_PROJECTOR_PORT, &["--only", "search"]);
            hosts.search_folders.push(hosts.folder.path().join(host).join("search-index"));
        }
        for host in ["projector-1", "projector-2"] {
            hosts.add("projector", host, API_PORT, &["--only", "read-model"]);
        }
        hosts.wait_until_ready().await;
        hosts
    }

    /// Starts a process on a host. The processes of a host share its data folder.
    fn add(&mut self, role: &'static str, host: &'static str, port: u16, flags: &[&str]) {
        let on_network = self.network.host(host);
        let address = format!("{}:{port}", on_network.address());
        let token = ("ADMIN_TOKEN", PathBuf::from("campaign-token"));
        let mut options = ProcessOptions::new(role, &self.folder.path().join(host))
            .with_host(on_network)
            .with("--listen-addr", &address)
            .with("--log", "warn")
            .with("--request-timeout", &REQUEST_TIMEOUT.as_secs().to_string())
            .with("--event-store-url", &self.log_url)
            .with("--database-url", &self.read_model_url)
            .with("--redis-url", &self.redis.url())
            // Without a token, processes refuse to listen beyond loopback.
            .with_variables([token]);
        for flag in flags.chunks(2) {
            options = options.with(flag[0], flag[1]);
        }
        let url = format!("http://{address}");
        let mut member = Member { host, role, url, options, process: None };
        member.start();
        self.members.push(member);
    }

    fn members_on(&mut self, host: &str) -> impl Iterator<Item = &mut Member> {
        self.members.iter_mut().filter(move |member| member.host == host)
    }

    fn urls(&self, role: &str) -> impl Iterator<Item = &str> {
        self.members.iter().filter(move |member| member.role == role).map(|member| member.url.as_str())
    }

    /// The host that a Postgres server runs on.
    fn host_of(&self, engine: &Postgres) -> &'static str {
        let address = engine.address();
        DATABASE_HOSTS.into_iter().find(|name| self.network.host(name).address() == address).expect("a host")
    }

    fn fail_over_postgres(&mut self) {
        let (old, new) = (self.host_of(&self.primary), self.host_of(&self.standby));
        self.network.set_all(old, Link::Dead);
        // Like a cluster manager: makes sure that the old primary has ended before another one takes over.
        self.primary.kill();
        self.standby.promote();
        self.network.move_floating_address(self.network.host(new)).expect("the address of the primary");
        std::mem::swap(&mut self.primary, &mut self.standby);
        self.network.set_all(old, Link::Open);
        // Returns once the old primary follows the new one.
        self.standby.follow(&self.primary);
    }

    fn fail_over_redis(&mut self) {
        let old = self.redis.master().expect("the master");
        self.network.set_all(REDIS_HOSTS[old], Link::Dead);
        self.redis.wait_for_another_master(old).expect("a failover");
        self.redis.kill(old).expect("the end of the old master");
        self.network.set_all(REDIS_HOSTS[old], Link::Open);
        self.redis.restart_as_replica(old).expect("the old master");
        self.redis.wait_until_replicated().expect("a replica");
    }
}

impl Deployment for Hosts {
    type Fault = Fault;

    fn faults(&self, random: &mut StdRng) -> Vec<Fault> {
        let mut pair = || {
            let one = random.random_range(0..HOSTS.len());
            let other = (one + random.random_range(1..HOSTS.len())) % HOSTS.len();
            (HOSTS[one], HOSTS[other], fault_length(random))
        };
        let pairs = [pair(), pair(), pair(), pair(), pair(), pair()];
        let mut host = || HOSTS[random.random_range(0..HOSTS.len())];
        let hosts = [host(), host(), host(), host()];
        let mut process_host = || PROCESS_HOSTS[random.random_range(0..PROCESS_HOSTS.len())];
        let process_hosts = [process_host(), process_host(), process_host(), process_host()];
        let delay = Duration::from_millis(random.random_range(5..200));
        let partition = |(one, other, time)| Fault::Partition(one, other, time);
        let one_way = |(from, to, time)| Fault::OneWayPartition(from, to, time);
        vec![
            partition(pairs[0]),
            partition(pairs[1]),
            Fault::Partition("command-1", "db-1", fault_length(random)),
            Fault::Partition("db-1", "db-2", fault_length(random)),
            one_way(pairs[2]),
            one_way(pairs[3]),
            Fault::OneWayPartition("command-2", "db-2", fault_length(random)),
            Fault::OneWayPartition("gateway", "command-1", fault_length(random)),
            Fault::Isolation(hosts[0], fault_length(random)),
            Fault::Isolation(hosts[1], fault_length(random)),
            Fault::SlowHost(hosts[2], delay, fault_length(random)),
            Fault::SlowHost(hosts[3], delay / 4, fault_length(random)),
            Fault::VanishedHost(process_hosts[0], fault_length(random)),
            Fault::VanishedHost("command-1", fault_length(random)),
            Fault::Kill(process_hosts[1]),
            Fault::Kill("command-2"),
            Fault::Stop(process_hosts[2]),
            Fault::PostgresFailover,
            Fault::RedisFailover,
        ]
    }

    async fn inject(&mut self, fault: Fault) {
        match fault {
            Fault::Partition(one, other, time) => {
                self.network.set_both(one, other, Link::Dead);
                sleep(time).await;
                self.network.set_both(one, other, Link::Open);
            }
            Fault::OneWayPartition(from, to, time) => {
                self.network.set(from, to, Link::Dead);
                sleep(time).await;
                self.network.set(from, to, Link::Open);
            }
            Fault::Isolation(host, time) => {
                self.network.set_all(host, Link::Dead);
                sleep(time).await;
                self.network.set_all(host, Link::Open);
            }
            Fault::SlowHost(host, delay, time) => {
                self.network.set_all(host, Link::Slow(delay));
                sleep(time).await;
                self.network.set_all(host, Link::Open);
            }
            Fault::VanishedHost(host, time) => {
                self.network.set_all(host, Link::Dead);
                // Killed only now that the host is cut off: no packet that closes a connection gets through.
                self.members_on(host).for_each(|member| member.take().kill());
                sleep(time).await;
                self.network.set_all(host, Link::Open);
                self.members_on(host).for_each(Member::start);
            }
            Fault::Kill(host) => self.members_on(host).for_each(|member| {
                member.take().kill();
                member.start();
            }),
            Fault::Stop(host) => {
                for member in self.members_on(host) {
                    let mut process = member.take();
                    // A process that an earlier fault has just restarted may not handle the signal yet.
                    process.wait_for_address().await;
                    process.shut_down().await;
                    member.start();
                }
            }
            Fault::PostgresFailover => self.fail_over_postgres(),
            Fault::RedisFailover => self.fail_over_redis(),
        }
    }

    /// Restarts the processes that ended by themselves, as a service manager would. Checks that no command took much
    /// longer than its time limit, whichever hosts its process could not reach.
    async fn check_while_running(&mut self) {
        for member in &mut self.members {
            if member.process.as_mut().expect("a process").has_ended() {
                eprintln!("        {} on {} ended", member.role, member.host);
                member.start();
            }
            if member.role == "command-api" {
                // A process that is starting has no metrics yet.
                let Ok(metrics) = Client::new(&member.url).get("/metrics").try_send().await else { continue };
                let overdue = count_overdue_commands(&String::from_utf8_lossy(&metrics.body));
                assert_eq!(
                    overdue, 0,
                    "commands took more than 10 s with a time limit of {REQUEST_TIMEOUT:?}"
                );
            }
        }
    }

    async fn wait_until_ready(&mut self) {
        for member in &mut self.members {
            let process = member.process.as_mut().expect("a process");
            process.wait_for_address().await;
            process.wait_until_ready().await;
        }
        let gateway = Client::new(&self.gateway_url);
        eventually("a ready gateway", async || {
            let reply = gateway.get("/readyz").try_send().await.ok()?;
            (reply.status == 200).then_some(())
        })
        .await;
    }

    fn writing_clients(&self) -> Vec<Client> {
        vec![self.client()]
    }

    fn client(&self) -> Client {
        Client::new(&self.gateway_url)
    }

    fn query_urls(&self) -> Vec<String> {
        self.urls("query-api").map(str::to_owned).collect()
    }

    fn log_flags(&self) -> Vec<String> {
        vec!["--event-store-url".to_owned(), self.log_url.clone()]
    }

    async fn compare_with_rebuild(&mut self, head: u64) {
        let mut folded = head;
        for member in self.members.iter().filter(|member| member.role == "projector") {
            // Only projectors of search indexes are asked here. The two of the read model are not, because one is on
            // standby and has no position: the position of the read model itself is read below.
            if member.host.starts_with("query") {
                let process = member.process.as_ref().expect("a process");
                process.wait_until_folded(head).await;
                folded = process.wait_until_caught_up().await;
            }
        }
        let read_model = PostgresReadModel::new(PostgresUrl::parse(&self.read_model_url).expect("a URL"));
        eventually("the read model has folded the whole log", async || {
            read_model.position().await.is_ok_and(|position| position.get() >= folded).then_some(())
        })
        .await;
        for member in &mut self.members {
            member.take().shut_down().await;
        }
        compare_with_rebuild(&read_model, &self.search_folders, &self.log_flags()).await;
        self.members.iter_mut().for_each(Member::start);
        self.wait_until_ready().await;
    }
}

/// Starts the gateway on its host.
fn start_gateway(network: &HostNetwork, folder: &Path) -> SupervisedServer {
    let address = |host: &str, port: u16| SocketAddr::from((network.host(host).address(), port));
    let api = |host: &str| address(host, API_PORT);
    let addresses = GatewayAddresses {
        clients: api("gateway"),
        metrics: address("gateway", GATEWAY_METRICS_PORT),
        command_apis: [api("command-1"), api("command-2")],
        query_apis: [api("query-1"), api("query-2")],
    };
    let host = network.host("gateway");
    gateway::start(&addresses, Some(host), &folder.join("gateway.log")).expect("HAProxy starts")
}

/// The length of a fault. Some last longer than [`REQUEST_TIMEOUT`].
fn fault_length(random: &mut StdRng) -> Duration {
    let longest = if random.random_ratio(1, 10) { 12_000 } else { 3_000 };
    Duration::from_millis(random.random_range(200..longest))
}

/// The number of commands that took a process more than ten seconds, from its metrics.
fn count_overdue_commands(metrics: &str) -> u64 {
    let sum = |name: &str, part: &str| -> u64 {
        let lines = metrics.lines().filter(|line| line.starts_with(name) && line.contains(part));
        let commands = lines.filter(|line| !line.contains(r#"method="GET""#));
        commands.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    };
    let name = "chat_http_request_duration_seconds";
    sum(&format!("{name}_count"), "") - sum(&format!("{name}_bucket"), r#"le="10""#)
}
