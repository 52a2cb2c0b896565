//! One serving process: opens the engines, starts the role's services and the listener, and stops them again.

use std::sync::Arc;
use std::time::Duration;

use chat_admin_api::{AdminApi, AdminPorts};
use chat_command_api::service::CommandService;
use chat_command_api::writer::{WriterConfig, WriterHandle};
use chat_console::{Console, ConsolePorts, LiveReaders};
use chat_domain::Position;
use chat_domain::projection::ProjectionName;
use chat_operations::jobs::Jobs;
use chat_operations::log_checker::{self, LogCheckStatus};
use chat_operations::projections::Projections;
use chat_ports::clock;
use chat_ports::event_store::{AppendGate, EventStore, EventStoreError, GatedEventStore, LogId, LogLineage};
use chat_projector::generations::{Generations, ProjectorSupervisor, QuerySwitchOver, SupervisorContext};
use chat_query_api::{LiveFeedOptions, QueryApi, QueryPorts};
use chat_web::admin_auth::AdminAccess;
use chat_web::http_limits::HttpLimits;
use chat_web::metrics::Metrics;
use chat_web::router::{ApiRoutes, ApiSet, HttpOptions};
use chat_web::system_routes::{Readiness, SystemServices};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::banner;
use crate::data_access;
use crate::data_owner::run_role_as_owner;
use crate::engines::{CoordinationServices, StorageLocations, retry_until_available};
use crate::failure::Failure;
use crate::listeners::{Addresses, Listeners};
use crate::log_guard::{AnchorTask, AnchorWriter, LogGate, OpenedLog, wait_for_decision};
use crate::log_queue::LogQueue;
use crate::logging;
use crate::metrics;
use crate::operator_access::OperatorAccess;
use crate::private_files;
use crate::query_side::{ApiQuerySide, projection_progress};
use crate::readiness::ReadinessChecks;
use crate::serve_options::{Role, ServeOptions};
use crate::shutdown::{
    SHUTDOWN_SLACK, close_log, finish_commands, grace_period, serve_until_gateways_notice, stop_admin_server,
    stop_projectors, stop_servers, stop_serving, writer_failure,
};
use crate::signals::ShutdownSignal;
use crate::start_checks::{check_app_creation, check_cors, read_signing_key, wanted_addresses};
use crate::start_progress::StartProgress;

/// Runs a role until a signal stops it.
pub(crate) fn run(role: Role, options: &ServeOptions) -> Result<(), Failure> {
    let addresses = wanted_addresses(role, options)?;
    check_cors(options)?;
    check_app_creation(options)?;
    let locations = StorageLocations::from_options(&options.engines, options.redis_url.as_deref())?;
    run_role_as_owner(&locations)?;
    logging::init(options)?;
    let operators = OperatorAccess::load(options)?;
    read_signing_key(options)?;
    let drain_timeout = Duration::from_secs(options.drain_timeout);
    let stop = ShutdownSignal::listen(grace_period(options.shutdown_delay_for(role), drain_timeout))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .on_thread_start(chat_web::server::prepare_thread)
        .build()
        .map_err(|error| Failure::because("the runtime could not be started", &error))?;
    // The role runs on a worker thread, so that the allocator can reuse there what start-up frees. Memory that this
    // thread freed would stay unused.
    let options = options.clone();
    let running = runtime.spawn(async move {
        run_until_stopped(role, &options, operators, &locations, addresses, &stop).await
    });
    let ended = runtime.block_on(running);
    // Blocking work, such as a read of a disk that does not answer, can't be cancelled.
    runtime.shutdown_timeout(SHUTDOWN_SLACK);
    match ended {
        Ok(outcome) => outcome,
        Err(join_error) => std::panic::resume_unwind(join_error.into_panic()),
    }
}

/// How a role ended.
enum Ended {
    /// A signal stopped it.
    Stopped,
    /// An operator has solved the problem because of which the log was not usable. The role starts again.
    DecisionRecorded,
}

async fn run_until_stopped(
    role: Role,
    options: &ServeOptions,
    operators: OperatorAccess,
    locations: &StorageLocations,
    mut addresses: Addresses,
    stop: &ShutdownSignal,
) -> Result<(), Failure> {
    let metrics = metrics::install(role, locations)?;
    tokio::spawn(metrics.clone().run_upkeep());
    LogQueue::register_metrics();
    let access = operators.follow_file();
    loop {
        let listeners = Listeners::bind(options, addresses).await?;
        // If port 0 was requested, the next start keeps the port that the system chose.
        addresses = listeners.addresses();
        match Box::pin(run_role(role, (options, &access), locations, listeners, metrics.clone(), stop))
            .await?
        {
            Ended::Stopped => return Ok(()),
            Ended::DecisionRecorded => tracing::info!("the event log can be used; starting again"),
        }
    }
}

async fn run_role(
    role: Role,
    (options, access): (&ServeOptions, &AdminAccess),
    locations: &StorageLocations,
    listeners: Listeners,
    metrics: Metrics,
    stop: &ShutdownSignal,
) -> Result<Ended, Failure> {
    let stop = stop.received();
    tokio::pin!(stop);
    let addresses = listeners.addresses();
    let progress = StartProgress::default();
    progress.begin(&locations.event_store.describe());
    let http = http_options(options);
    let services_during_start = SystemServices::new(Arc::new(progress.clone()), metrics.clone());
    // Becomes `true` before the process stops, so that gateways send it no more requests.
    let (leave, leaving) = watch::channel(false);
    let servers = listeners.serve(&services_during_start, &http, leaving.clone())?;
    tracing::info!(role = role.name(), address = %addresses.public, "starting; health, metrics and documentation are served");
    let opened = tokio::select! {
        opened = open_log(role, locations, &progress) => opened?,
        () = &mut stop => {
            stop_servers(servers).await;
            return Ok(Ended::Stopped);
        }
    };
    let OpenedLog { event_store, lineage, generations, problem } = opened;
    let log_id = lineage.current();
    let coordination = CoordinationServices::for_log(locations, log_id)?;
    let is_usable = problem.is_none();
    let gate = LogGate::new(problem);
    let (event_store, log_check) = start_log_check(event_store, options, role.takes_commands() && is_usable);

    let (shutdown, is_shutting_down) = watch::channel(false);
    let mut supervisor =
        new_supervisor(role, options, &event_store, locations, generations.clone(), is_shutting_down);
    if is_usable {
        start_projectors(role, &mut supervisor);
        tokio::spawn(gate.clone().watch(Arc::clone(&event_store)));
    }
    let writer = start_writer(role, (&event_store, log_id), &gate, options, &coordination, &progress).await?;
    let anchor = start_anchor(writer.as_ref().filter(|_| is_usable), log_id, locations, &gate);
    let switch_over = open_switch_over(role, locations, generations, &supervisor, &event_store).await;
    // Set to `None` at the shutdown: the writer ends once every `CommandService` is dropped.
    let commands_for_readiness = watch::Sender::new(writer.as_ref().map(|(commands, _)| commands.clone()));
    let projectors = supervisor.statuses_of_generations_in_use();
    let readiness: Arc<dyn Readiness> = Arc::new(ReadinessChecks {
        leaving,
        locations: locations.clone(),
        gate: gate.clone(),
        event_store: Arc::clone(&event_store),
        log_check,
        commands: commands_for_readiness.subscribe(),
        #[cfg(feature = "redis")]
        redis: coordination.redis().filter(|_| role.takes_commands()),
        // If this process runs projectors, readiness reports their statuses instead.
        served_projections: switch_over
            .as_ref()
            .filter(|_| projectors.is_empty())
            .map(QuerySwitchOver::active),
        projectors,
    });
    let (drain, draining) = watch::channel(false);
    let mut apis = ApiSet::default();
    let app_creation = options.app_creation_access(access);
    let writer_task = writer.map(|writer| add_command_api(&mut apis, writer, gate.clone(), app_creation));
    let job_runner = switch_over.map(|switch_over| {
        let context = ApiContext {
            event_store: gate.guard(Arc::clone(&event_store)),
            lineage,
            readiness: Arc::clone(&readiness),
            metrics: metrics.clone(),
            locations,
            options,
            access,
            draining,
        };
        add_query_and_admin_apis(&mut apis, switch_over, context)
    });
    let job_runner = job_runner.transpose()?;
    add_documents_of_other_roles(&mut apis, role);
    let http = HttpOptions { shared_rate_limits: coordination.rate_limits(), ..http };
    servers.start(apis, SystemServices::new(readiness, metrics), &http);
    banner::print(role, options, locations, addresses);
    let (public_server, admin_server) = servers.split();
    let mut writer_task = writer_task.unwrap_or_else(|| tokio::spawn(std::future::pending()));
    let stopped = async {
        stop.await;
        serve_until_gateways_notice(&leave, options.shutdown_delay_for(role)).await;
    };
    let outcome = tokio::select! {
        () = stopped => Ok(Ended::Stopped),
        () = wait_for_decision(locations, &gate), if !is_usable => Ok(Ended::DecisionRecorded),
        result = &mut writer_task => Err(writer_failure(result)),
    };
    // Ends the jobs and the endless responses (live feeds), so that their connections can close.
    drain.send_replace(true);
    stop_serving(public_server, job_runner).await;
    commands_for_readiness.send_replace(None);
    let outcome = match outcome {
        // The server has dropped its `CommandService`s, so the writer ends once all accepted commands are answered.
        Ok(ended) if role.takes_commands() => finish_commands(writer_task).await.map(|()| ended),
        outcome => outcome,
    };
    shutdown.send_replace(true);
    stop_projectors(supervisor).await;
    if let Some(anchor) = anchor {
        anchor.finish().await;
        close_log(&*event_store).await;
    }
    // Last, so that health and metrics show the shutdown.
    stop_admin_server(admin_server).await;
    outcome
}

/// Prepares the folders of the data, and opens the log.
async fn open_log(
    role: Role,
    locations: &StorageLocations,
    progress: &StartProgress,
) -> Result<OpenedLog, Failure> {
    prepare_data(role, locations).await?;
    OpenedLog::open(locations, progress).await
}

/// Starts to write the log anchor, if there is a writer of commands.
fn start_anchor(
    writer: Option<&(CommandService, JoinHandle<()>)>,
    log: LogId,
    locations: &StorageLocations,
    gate: &LogGate,
) -> Option<AnchorTask> {
    let (commands, _) = writer?;
    let (path, position_reader) = (locations.log_anchor.clone(), commands.writer().position_reader());
    Some(AnchorWriter { path, log, position_reader, gate: gate.clone() }.spawn())
}

/// Creates the folders of the data, checks the permissions, and makes existing data private.
async fn prepare_data(role: Role, locations: &StorageLocations) -> Result<(), Failure> {
    let locations = locations.clone();
    let prepare = move || {
        data_access::check(role, &locations)?;
        private_files::restrict_existing(&locations);
        Ok(())
    };
    let prepared = tokio::task::spawn_blocking(prepare).await;
    prepared.unwrap_or_else(|ended| Err(Failure::because("the data folder can't be prepared", &ended)))
}

/// Adds the OpenAPI documents of the routes that processes of other roles serve.
fn add_documents_of_other_roles(apis: &mut ApiSet, role: Role) {
    if !role.answers_queries() {
        apis.of_other_roles.push(chat_query_api::openapi_document());
        apis.of_other_roles.push(chat_admin_api::openapi_document());
    }
    if !role.takes_commands() {
        apis.of_other_roles.push(chat_command_api::routes::openapi_document());
    }
}

/// Adds the command API, and returns the task of its writer.
fn add_command_api(
    apis: &mut ApiSet,
    (commands, task): (CommandService, JoinHandle<()>),
    gate: LogGate,
    app_creation: AdminAccess,
) -> JoinHandle<()> {
    apis.served.push(command_routes(commands, gate, app_creation));
    task
}

/// The routes of the commands, which are refused while the gate is closed.
fn command_routes(commands: CommandService, gate: LogGate, app_creation: AdminAccess) -> ApiRoutes {
    let routes = chat_command_api::routes::router(commands.clone(), app_creation);
    ApiRoutes::commands(routes).with_outer_layer(move |routes| {
        chat_command_api::routes::with_refusal_and_tokens(routes, commands, move || gate.refusal())
    })
}

/// Creates the supervisor of a role's projectors, which does not run any yet.
fn new_supervisor(
    role: Role,
    options: &ServeOptions,
    event_store: &Arc<dyn EventStore>,
    locations: &StorageLocations,
    generations: watch::Receiver<Generations>,
    shutdown: watch::Receiver<bool>,
) -> ProjectorSupervisor {
    ProjectorSupervisor::new(SupervisorContext {
        event_store: Arc::clone(event_store),
        locations: locations.projection_locations(),
        generations,
        shutdown,
        linger: options.keep_previous_for(role),
    })
}

/// Starts the projectors of a role.
fn start_projectors(role: Role, supervisor: &mut ProjectorSupervisor) {
    for projection in ProjectionName::ALL.into_iter().filter(|projection| role.runs_projector_of(*projection))
    {
        supervisor.supervise(projection);
    }
}

/// Starts to check the log for damage, if `is_checked`. Returns the log to append to, and the status of the checks.
/// Once a check finds that events are lost, the returned log refuses appends.
fn start_log_check(
    event_store: Arc<dyn EventStore>,
    options: &ServeOptions,
    is_checked: bool,
) -> (Arc<dyn EventStore>, Option<watch::Receiver<LogCheckStatus>>) {
    if !is_checked {
        return (event_store, None);
    }
    let gate = AppendGate::default();
    let event_store: Arc<dyn EventStore> = Arc::new(GatedEventStore::new(event_store, gate.clone()));
    let (status, current) = watch::channel(LogCheckStatus::default());
    let interval = Duration::from_secs(options.log_check_interval);
    tokio::spawn(log_checker::run(Arc::clone(&event_store), interval, gate, status));
    (event_store, Some(current))
}

/// Opens the readers that queries are answered from. Returns `None` for a role that answers no queries.
async fn open_switch_over(
    role: Role,
    locations: &StorageLocations,
    generations: watch::Receiver<Generations>,
    supervisor: &ProjectorSupervisor,
    event_store: &Arc<dyn EventStore>,
) -> Option<QuerySwitchOver> {
    if !role.answers_queries() {
        return None;
    }
    let statuses = supervisor.projector_statuses();
    let (locations, event_store) = (locations.projection_locations(), Arc::clone(event_store));
    Some(QuerySwitchOver::open(locations, generations, statuses, event_store).await)
}

fn http_options(options: &ServeOptions) -> HttpOptions {
    HttpOptions {
        limits: HttpLimits::new(options.max_in_flight, options.http_memory.saturating_mul(1024 * 1024)),
        rate_limit: options.rate_limit,
        trusted_proxies: options.trusted_proxies.clone().unwrap_or_default(),
        deadline: Duration::from_secs(options.request_timeout),
        host_policy: options.host_policy(),
        cors: options.cors_origins.clone(),
        access_log: options.access_log.into(),
        ..HttpOptions::default()
    }
}

/// The parts of a process that its query API, admin API and console use.
struct ApiContext<'a> {
    event_store: Arc<dyn EventStore>,
    lineage: LogLineage,
    readiness: Arc<dyn Readiness>,
    metrics: Metrics,
    locations: &'a StorageLocations,
    options: &'a ServeOptions,
    access: &'a AdminAccess,
    /// Becomes `true` when jobs and live feeds must end.
    draining: watch::Receiver<bool>,
}

/// Adds the query API, the admin API and the console. Starts the task that moves their queries to promoted generations,
/// and the task that runs the jobs of operators. Returns the second.
fn add_query_and_admin_apis(
    apis: &mut ApiSet,
    switch_over: QuerySwitchOver,
    context: ApiContext<'_>,
) -> Result<JoinHandle<()>, Failure> {
    let ApiContext { event_store, lineage, readiness, metrics, locations, options, access, draining } =
        context;
    let readers = switch_over.active().borrow().clone();
    let progress = projection_progress(&readers);
    let ports = QueryPorts {
        read_model: readers.read_model,
        search: readers.search,
        event_store: Arc::clone(&event_store),
        lineage,
    };
    let live_feed =
        LiveFeedOptions { max_followers: options.max_followers, ..LiveFeedOptions::new(draining.clone()) };
    let api = QueryApi::new(ports, progress, access.clone(), live_feed);
    apis.served.push(ApiRoutes::queries(chat_query_api::router(api.clone())));
    let active = switch_over.active();
    let projections =
        Projections { log: Arc::clone(&event_store), locations: locations.projection_locations() };
    let projections = Arc::new(projections);
    let jobs = Jobs::new(Arc::clone(&projections), read_signing_key(options)?);
    let job_runner = tokio::spawn(jobs.clone().run(draining.clone()));
    let ports = AdminPorts {
        event_store: Arc::clone(&event_store),
        read_model: Arc::new(move || Arc::clone(&active.borrow().read_model)),
        projections: Arc::clone(&projections),
        jobs: jobs.clone(),
    };
    let admin_api = AdminApi::new(ports, access.clone(), draining.clone());
    apis.served.push(ApiRoutes::admin(chat_admin_api::router(admin_api)));
    let active = switch_over.active();
    let live_readers = Box::new(move || {
        let readers = active.borrow();
        LiveReaders { read_model: Arc::clone(&readers.read_model), search: readers.search.clone() }
    });
    let ports = ConsolePorts { event_store, readers: live_readers, projections, jobs, readiness, metrics };
    let console = Console::new(ports, access.clone(), draining);
    let console = console.map_err(|error| Failure::because("the console could not be prepared", &error))?;
    apis.console = Some(chat_console::router(console));
    tokio::spawn(switch_over.run(ApiQuerySide(api)));
    Ok(job_runner)
}

/// Starts the writer of the commands, if the role takes any. Reads and stores nothing if the gate is closed.
async fn start_writer(
    role: Role,
    (event_store, log): (&Arc<dyn EventStore>, LogId),
    gate: &LogGate,
    options: &ServeOptions,
    coordination: &CoordinationServices,
    progress: &StartProgress,
) -> Result<Option<(CommandService, JoinHandle<()>)>, Failure> {
    if !role.takes_commands() {
        return Ok(None);
    }
    let is_usable = gate.problem().is_none();
    let head = if is_usable {
        let read = || event_store.head();
        let head =
            retry_until_available("the event store", progress, read, EventStoreError::is_retryable).await;
        head.map_err(|error| Failure::because("the event log can't be read", &error))?
    } else {
        Position::START
    };
    let (writer, task) = WriterHandle::spawn(WriterConfig {
        event_store: Arc::clone(event_store),
        counters: coordination.counters(),
        clock: clock::now,
        queue_capacity: options.max_in_flight,
        cache_bytes: WriterConfig::DEFAULT_CACHE_BYTES,
        head,
    });
    let commands = CommandService::new(writer, coordination.idempotency_store()?, log);
    if is_usable && let Err(error) = commands.initialize_idempotency_store().await {
        // The first command with a key tries again; commands without a key don't need the store.
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "the store of idempotency keys is unavailable"
        );
    }
    Ok(Some((commands, task)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use chat_web::router::{ADMIN_PREFIX, API_PREFIX};
    use serde_json::Value;

    #[test]
    fn paths_begin_with_the_prefix_of_their_audience() {
        for (document, prefix) in [
            (chat_command_api::routes::openapi_document(), API_PREFIX),
            (chat_query_api::openapi_document(), API_PREFIX),
            (chat_admin_api::openapi_document(), ADMIN_PREFIX),
        ] {
            let paths: Vec<String> = document.paths.paths.into_keys().collect();
            assert!(!paths.is_empty(), "the API under {prefix} has no paths");
            for path in paths {
                // Gateways and the listeners tell apart who may send a request by these prefixes.
                assert!(path.starts_with(&format!("{prefix}/")), "{path} does not begin with {prefix}");
            }
        }
    }

    #[test]
    fn schemas_of_the_same_name_are_the_same_in_all_apis() {
        let documents = [
            chat_command_api::routes::openapi_document(),
            chat_query_api::openapi_document(),
            chat_admin_api::openapi_document(),
        ];
        let mut schemas: BTreeMap<String, Value> = BTreeMap::new();
        for document in documents {
            let Ok(mut document) = serde_json::to_value(&document) else { panic!("a document") };
            let Value::Object(found) = document["components"]["schemas"].take() else { continue };
            for (name, schema) in found {
                // The merged OpenAPI document keeps one schema of a name. The schema of a feed's page once
                // replaced that of a page of audit events, because both had the same name.
                let other = schemas.insert(name.clone(), schema.clone());
                assert!(
                    other.is_none_or(|other| other == schema),
                    "two different schemas have the name {name}"
                );
            }
        }
        assert!(schemas.len() > 20, "{schemas:?}");
    }
}
