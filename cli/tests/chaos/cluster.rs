//! The processes and servers of a deployment, and the faults that can be injected into them.

use std::path::{Path, PathBuf};

use chat_ports::read_model::ReadModel;
use chat_postgres::{PostgresReadModel, PostgresUrl};
use chat_testing::port;
use chat_testing::postgres::Postgres;
use chat_testing::redis::Redis;
use tempfile::TempDir;
use tokio::time::sleep;

use crate::digests;
use crate::faults::{Fault, Role};
use crate::harness::client::Client;
use crate::harness::deadline::eventually;
use crate::harness::deployment::folder;
use crate::harness::process::{Process, ProcessOptions};

/// The log that the processes share.
pub enum Log {
    /// A SQLite file.
    SqliteFile,
    /// A KurrentDB at this URL.
    KurrentDb(String),
}

/// A process that is restarted at the same address.
struct Member {
    role: Role,
    options: ProcessOptions,
    url: String,
    process: Option<Process>,
    /// Whether the process was paused since its waits were last counted.
    was_paused: bool,
    /// The number of waits of over a second at the last count.
    long_waits: u64,
}

impl Member {
    fn new(role: Role, options: ProcessOptions) -> Self {
        let address = format!("127.0.0.1:{}", port::find_free().expect("a free port"));
        let options = options.with("--listen-addr", &address).with("--log", "warn");
        let url = format!("http://{address}");
        Self { role, process: Some(options.spawn()), options, url, was_paused: false, long_waits: 0 }
    }

    fn process(&self) -> &Process {
        self.process.as_ref().expect("a process")
    }

    async fn wait_until_ready(&mut self) {
        let process = self.process.as_mut().expect("a process");
        process.wait_for_address().await;
        process.wait_until_ready().await;
    }
}

/// All processes and servers.
pub struct Cluster {
    members: Vec<Member>,
    redis: Redis,
    postgres: Postgres,
    database: String,
    search_folders: [PathBuf; 2],
    /// The flags that name the log.
    log: Vec<(&'static str, String)>,
    // Dropped last, after all processes.
    _folder: TempDir,
}

impl Cluster {
    /// Starts three command APIs, two projectors of the read model (one active, one on standby), and two query APIs,
    /// each with a projector of its own search index.
    pub async fn start(log: Log) -> Self {
        let folder = folder();
        let (redis, postgres) = (Redis::start().expect("Redis"), Postgres::start());
        let database = postgres.create_database();
        let log = match log {
            Log::SqliteFile => {
                let file = folder.path().join("events.db");
                vec![("--event-store-url", format!("sqlite://{}", file.display()))]
            }
            Log::KurrentDb(url) => vec![("--event-store-url", url)],
        };
        let search_folders = [folder.path().join("search-1"), folder.path().join("search-2")];
        let with_log = |role, data_dir: &Path| with_log(ProcessOptions::new(role, data_dir), &log);
        let options_of = |role| {
            let options = with_log(role, folder.path());
            options.with("--database-url", &database).with("--redis-url", &redis.url())
        };
        let mut members = Vec::new();
        for _ in 0..3 {
            members.push(Member::new(Role::CommandApi, options_of("command-api")));
        }
        for _ in 0..2 {
            members.push(Member::new(
                Role::ReadModelProjector,
                options_of("projector").with("--only", "read-model"),
            ));
        }
        for search in &search_folders {
            let search = search.to_str().expect("a path of UTF-8");
            let projector =
                options_of("projector").with("--only", "search").with("--search-index-dir", search);
            members.push(Member::new(Role::SearchProjector, projector));
            members.push(Member::new(
                Role::QueryApi,
                options_of("query-api").with("--search-index-dir", search),
            ));
        }
        let mut cluster = Self { members, redis, postgres, database, search_folders, log, _folder: folder };
        cluster.wait_until_ready().await;
        cluster
    }

    /// Waits until every process is ready.
    pub async fn wait_until_ready(&mut self) {
        for member in &mut self.members {
            member.wait_until_ready().await;
        }
    }

    fn urls(&self, role: Role) -> impl Iterator<Item = &str> {
        self.members.iter().filter(move |member| member.role == role).map(|member| member.url.as_str())
    }

    /// Returns one client for each command API.
    pub fn writing_clients(&self) -> Vec<Client> {
        self.urls(Role::CommandApi).map(|url| Client::routed([url], self.urls(Role::QueryApi))).collect()
    }

    /// Returns a client of all processes.
    pub fn client(&self) -> Client {
        Client::routed(self.urls(Role::CommandApi), self.urls(Role::QueryApi))
    }

    /// Injects a fault, and repairs it.
    pub async fn inject(&mut self, fault: Fault) {
        match fault {
            Fault::FlushRedis => self.redis.flush().expect("a flush"),
            Fault::RestartRedisEmpty => self.redis.restart_empty().expect("a restart"),
            Fault::PauseRedis(time) => {
                self.redis.pause().expect("a pause");
                sleep(time).await;
                self.redis.resume().expect("its end");
            }
            Fault::RestartPostgres => self.postgres.restart(),
            Fault::Kill(role, index) => {
                let member = self.member(role, index);
                member.process.take().expect("a process").kill();
                member.process = Some(member.options.spawn());
            }
            Fault::Stop(role, index) => {
                let member = self.member(role, index);
                member.process.take().expect("a process").shut_down().await;
                member.process = Some(member.options.spawn());
            }
            Fault::Pause(role, index, time) => {
                let member = self.member(role, index);
                member.process().pause();
                sleep(time).await;
                member.process().resume();
                member.was_paused = true;
            }
        }
    }

    fn member(&mut self, role: Role, index: usize) -> &mut Member {
        let of_role = self.members.iter_mut().filter(|member| member.role == role);
        let mut of_role: Vec<&mut Member> = of_role.collect();
        let index = index % of_role.len();
        of_role.swap_remove(index)
    }

    /// Returns how many times command APIs waited until another one had appended the preceding number: all waits since
    /// the processes were started, and those of over a second since the last call. The second number excludes processes
    /// that were paused, because the pause is part of their waits.
    pub async fn predecessor_waits(&mut self) -> (u64, u64) {
        let (mut total, mut new_long_waits) = (0, 0);
        for member in self.members.iter_mut().filter(|member| member.role == Role::CommandApi) {
            // A process that is starting has not waited yet.
            let Ok(metrics) = Client::new(&member.url).get("/metrics").try_send().await else { continue };
            let text = String::from_utf8_lossy(&metrics.body).into_owned();
            let value = |name: &str| -> u64 {
                let line = text.lines().find_map(|line| line.strip_prefix(name));
                line.map_or(0, |value| value.trim().parse().expect("a number"))
            };
            let waits = value("command_predecessor_wait_seconds_count ");
            let long_waits = waits - value("command_predecessor_wait_seconds_bucket{le=\"1\"} ");
            // A smaller count than before means that the process was restarted.
            let counted_before = if long_waits < member.long_waits { 0 } else { member.long_waits };
            if !std::mem::take(&mut member.was_paused) {
                new_long_waits += long_waits - counted_before;
            }
            member.long_waits = long_waits;
            total += waits;
        }
        (total, new_long_waits)
    }

    /// Stops all processes, and asserts that each projection has the same content as a rebuild from the log.
    pub async fn compare_with_rebuild(mut self) {
        let head = self.wait_until_caught_up().await;
        for member in self.members.iter().filter(|member| member.role == Role::SearchProjector) {
            member.process().wait_until_folded(head).await;
        }
        let read_model = PostgresReadModel::new(PostgresUrl::parse(&self.database).expect("a URL"));
        eventually("the read model has folded the whole log", async || {
            read_model.position().await.is_ok_and(|position| position.get() >= head).then_some(())
        })
        .await;
        for member in &mut self.members {
            member.process.take().expect("a process").shut_down().await;
        }
        for search_folder in &self.search_folders {
            let live = digests::compute(&read_model, search_folder).await;
            let rebuilt = folder();
            let projector = with_log(ProcessOptions::new("projector", rebuilt.path()), &self.log);
            let rebuilt = digests::from_projector(&projector, rebuilt.path(), &live).await;
            assert_eq!(live.content, rebuilt.content, "the projections differ from a rebuild");
        }
    }

    /// Waits until a projector has folded the whole log, and returns its position.
    async fn wait_until_caught_up(&self) -> u64 {
        let url = self.urls(Role::SearchProjector).next().expect("a projector");
        let client = Client::new(url);
        eventually("the projector has folded the whole log", async || {
            let ready = client.get("/readyz").try_send().await.ok()?.json();
            let part = ready["parts"].as_array()?.iter().find(|part| part["projection"].is_object())?.clone();
            (part["projection"]["state"] == "live").then(|| part["projection"]["position"].as_u64())?
        })
        .await
    }
}

fn with_log(options: ProcessOptions, log: &[(&'static str, String)]) -> ProcessOptions {
    log.iter().fold(options, |options, (flag, value)| options.with(flag, value))
}
