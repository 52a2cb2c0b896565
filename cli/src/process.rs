//! One process: its engines, its roles, its listener, from start to an orderly end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chat_admin_api::{AdminApi, AdminPorts};
use chat_command_api::service::CommandService;
use chat_command_api::writer::{WriterConfig, WriterHandle};
use chat_domain::operator_action::ProjectionName;
use chat_operations::projections::Projections;
use chat_ports::clock;
use chat_ports::counters::Counters;
use chat_ports::event_store::{EventStore, EventStoreError};
use chat_ports::idempotency::IdempotencyStore;
use chat_projector::generations::Generations;
use chat_query_api::{QueryApi, QueryPorts};
use chat_web::admin_auth::AdminAccess;
use chat_web::metrics::Metrics;
use chat_web::router::{ApiRoutes, ApiSet, HttpOptions, build_router};
use chat_web::server::{DrainOutcome, ServerOptions, serve};
use chat_web::system_routes::SystemServices;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::args::{Only, Options, Role};
use crate::banner;
use crate::engines::{Places, Shared, open_event_store, wait_for};
use crate::failure::Failure;
use crate::generations::{Keepers, Readers, Surroundings};
use crate::logs;
use crate::readiness::Parts;
use crate::signals;

/// How long the writer, and then the projectors, may take to finish what is at hand when the process stops.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs a role until it is asked to stop.
pub(crate) fn run(role: Role, options: &Options) -> Result<(), Failure> {
    let address = options.listen_addr.unwrap_or_else(|| role.default_address());
    check_exposure(options, address)?;
    logs::start(options)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::because("the runtime could not be started", &error))?;
    // On a worker, which goes on to use the memory that starting leaves free; this thread would keep it.
    let options = options.clone();
    let running = runtime.spawn(async move { start(role, &options, address).await });
    match runtime.block_on(running) {
        Ok(outcome) => outcome,
        Err(ended) => std::panic::resume_unwind(ended.into_panic()),
    }
}

/// Without an admin token, whoever reaches the listener is an operator: then nobody from elsewhere may reach it.
fn check_exposure(options: &Options, address: SocketAddr) -> Result<(), Failure> {
    if options.admin_token.is_some() || address.ip().is_loopback() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "refusing to listen on {address} without an admin token: anyone who reaches it could read every app's token. \
         Set one, for example with\n\n    ADMIN_TOKEN=$(openssl rand -hex 32)\n\nin the environment, or listen on \
         127.0.0.1"
    )))
}

async fn start(role: Role, options: &Options, address: SocketAddr) -> Result<(), Failure> {
    let stop = signals::stop()?;
    let places = Places::of(options)?;
    let metrics =
        Metrics::install().map_err(|error| Failure::because("metrics could not be set up", &error))?;
    tokio::spawn(metrics.clone().run_upkeep());
    let listener = bind(address).await?;
    let address =
        listener.local_addr().map_err(|error| Failure::because("the listener has no address", &error))?;
    tokio::pin!(stop);
    let (event_store, log_id) = tokio::select! {
        opened = open_event_store(&places.events) => opened?,
        () = &mut stop => return Ok(()),
    };
    let shared = Shared::of(&places, log_id)?;

    let (shutdown, stopping) = watch::channel(false);
    let generations = start_following(&event_store).await?;
    let mut keepers = Keepers::new(Surroundings {
        event_store: Arc::clone(&event_store),
        places: places.projections(),
        generations: generations.clone(),
        stopping,
        linger: options.keep_previous_for(role),
    });
    if role.projects(Only::ReadModel) {
        keepers.keep(ProjectionName::ReadModel);
    }
    if role.projects(Only::Search) {
        keepers.keep(ProjectionName::SearchIndex);
    }
    let writer = if role.takes_commands() {
        Some(start_writer(&event_store, shared.counters(), shared.reservations()?).await?)
    } else {
        None
    };
    let readers = if role.answers_queries() {
        Some(Readers::open(places.projections(), generations, keepers.watch()).await)
    } else {
        None
    };
    let readiness = Parts {
        event_store: Arc::clone(&event_store),
        writer: writer.as_ref().map(|(commands, _)| commands.writer().clone()),
        redis: shared.redis().filter(|_| role.takes_commands()),
        projectors: keepers.statuses(),
        // Where the projectors run in this process, they tell.
        queried: readers.as_ref().filter(|_| keepers.statuses().is_empty()).map(Readers::in_use),
    };
    let (drain, draining) = watch::channel(false);
    let mut apis = ApiSet::default();
    let writer_task = writer.map(|(commands, task)| {
        let handler = commands.writer().clone();
        let routes = chat_command_api::routes::router(commands);
        let api = ApiRoutes::commands(routes);
        apis.served
            .push(api.with_outer_layer(|routes| chat_command_api::routes::with_consistency_tokens(routes, handler)));
        task
    });
    if let Some(readers) = readers {
        serve_readers(&mut apis, readers, event_store, &places, options, draining);
    } else {
        apis.documents_of_other_roles.push(chat_query_api::openapi_document());
        apis.admin_documents_of_other_roles.push(chat_admin_api::openapi_document());
    }
    if !role.takes_commands() {
        apis.documents_of_other_roles.push(chat_command_api::routes::openapi_document());
    }
    let http = HttpOptions {
        rate_limit: options.rate_limit,
        shared_rate_limits: shared.rate_limits(),
        trusted_proxies: options.trusted_proxies.clone().unwrap_or_default(),
        max_in_flight: options.max_in_flight,
        deadline: Duration::from_secs(options.request_timeout),
        ..HttpOptions::default()
    };
    let app = build_router(apis, SystemServices::new(Arc::new(readiness), metrics), &http);
    banner::show(role, options, &places, address);

    let server =
        ServerOptions { drain_timeout: Duration::from_secs(options.drain_timeout), ..ServerOptions::default() };
    let mut writer_task = writer_task.unwrap_or_else(|| tokio::spawn(std::future::pending()));
    let stop = async {
        stop.await;
        // What goes on for ever ends, so that connections can be let go.
        drain.send_replace(true);
    };
    let outcome = tokio::select! {
        drained = serve(listener, app, server, stop) => {
            // The last handlers went with the listener: the writer ends when what was accepted is in the log.
            if role.takes_commands() && tokio::time::timeout(PATIENCE, writer_task).await.is_err() {
                tracing::warn!("stopped with commands unanswered");
            }
            if let DrainOutcome::ConnectionsAborted(connections) = drained {
                tracing::warn!(connections, "stopped with requests unanswered");
            }
            Ok(())
        }
        ended = &mut writer_task => Err(writer_ended(ended)),
    };
    shutdown.send_replace(true);
    finish(keepers).await;
    tracing::info!("stopped");
    outcome
}

/// Adds what answers queries and operators' questions, and keeps it on the generations that operators promote.
fn serve_readers(
    apis: &mut ApiSet,
    readers: Readers,
    event_store: Arc<dyn EventStore>,
    places: &Places,
    options: &Options,
    draining: watch::Receiver<bool>,
) {
    let in_use = readers.in_use().borrow().clone();
    let ports = QueryPorts {
        read_model: in_use.read_model,
        search: in_use.search,
        event_store: Arc::clone(&event_store),
    };
    let access = options.admin_token.clone().map_or(AdminAccess::Open, AdminAccess::Token);
    let api = QueryApi::new(ports, readers.progress(), access.clone());
    apis.served.push(ApiRoutes::queries(chat_query_api::router(api.clone())));
    let seen = readers.in_use();
    let ports = AdminPorts {
        event_store: Arc::clone(&event_store),
        read_model: Arc::new(move || Arc::clone(&seen.borrow().read_model)),
        projections: Arc::new(Projections { log: event_store, places: places.projections() }),
    };
    apis.served.push(ApiRoutes::admin(chat_admin_api::router(AdminApi::new(ports, access, draining))));
    tokio::spawn(readers.keep(api));
}

async fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => Failure::new(format!(
            "{address} is in use by another process; stop that one, or choose another address with --listen-addr"
        )),
        _ => Failure::because(format!("{address} can't be listened on"), &error),
    })
}

/// Learns which generations of the projections readers see, and goes on learning it.
async fn start_following(event_store: &Arc<dyn EventStore>) -> Result<watch::Receiver<Generations>, Failure> {
    let read = || Generations::load(&**event_store);
    let generations = wait_for("the event log", read, EventStoreError::is_retryable).await;
    let generations =
        generations.map_err(|error| Failure::because("the operators' acts can't be read", &error))?;
    Ok(generations.follow(Arc::clone(event_store)))
}

async fn start_writer(
    event_store: &Arc<dyn EventStore>,
    counters: Arc<dyn Counters>,
    reservations: Arc<dyn IdempotencyStore>,
) -> Result<(CommandService, JoinHandle<()>), Failure> {
    let head = wait_for("the event log", || event_store.head(), EventStoreError::is_retryable).await;
    let head = head.map_err(|error| Failure::because("the event log can't be read", &error))?;
    let (handler, task) = WriterHandle::spawn(WriterConfig {
        event_store: Arc::clone(event_store),
        counters,
        clock: clock::now,
        queue_capacity: WriterConfig::DEFAULT_QUEUE_CAPACITY,
        cache_bytes: WriterConfig::DEFAULT_CACHE_BYTES,
        head,
    });
    let commands = CommandService::new(handler, reservations);
    if let Err(error) = commands.initialize_idempotency_store().await {
        // The first command with a key tries again; those without one go on.
        tracing::warn!(error = &error as &dyn std::error::Error, "idempotency keys can't be kept now");
    }
    Ok((commands, task))
}

async fn finish(keepers: Keepers) {
    if tokio::time::timeout(PATIENCE, keepers.finish()).await.is_err() {
        tracing::warn!("the projectors did not finish in time; they go on from their checkpoints next time");
    }
}

fn writer_ended(ended: Result<(), tokio::task::JoinError>) -> Failure {
    match ended {
        Ok(()) => Failure::new("the writer stopped although commands may still come"),
        Err(error) => Failure::because("the writer stopped", &error),
    }
}
