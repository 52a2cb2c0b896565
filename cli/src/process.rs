//! One process: its engines, its roles, its listener, from start to an orderly end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chat_admin_api::{AdminApi, AdminPorts};
use chat_command_api::idempotency::Idempotency;
use chat_command_api::writer::{CommandHandler, WriterConfig};
use chat_domain::Position;
use chat_infra::clock;
use chat_infra::counters::Counters;
use chat_infra::event_store::{EventStore, EventStoreError};
use chat_infra::idempotency::Reservations;
use chat_infra::read_model::PostgresUrl;
use chat_projector::read_model::{PostgresReadModelTarget, SqliteReadModelTarget};
use chat_projector::search::SearchIndexTarget;
use chat_projector::{Projector, ProjectorHandle, Status};
use chat_query_api::{Progress, QueryApi, QueryPorts};
use chat_web::admin::AdminAccess;
use chat_web::assembly::{Api, Apis, HttpOptions, assemble};
use chat_web::metrics::Metrics;
use chat_web::server::{Drained, ServerOptions, serve};
use chat_web::system::System;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::args::{Only, Options, Role};
use crate::banner;
use crate::engines::{Places, Rows, Shared, open_event_store, wait_for};
use crate::failure::Failure;
use crate::logs;
use crate::readiness::{Parts, Queried};
use crate::search_folder::SearchFolder;
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
    runtime.block_on(start(role, options, address))
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
    tokio::spawn(metrics.clone().upkeep());
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
    let projectors = start_projectors(role, &places, &event_store, &stopping);
    let writer = if role.takes_commands() {
        Some(start_writer(&event_store, shared.counters(), shared.reservations()?).await?)
    } else {
        None
    };
    let read_model = places.read_model.reader();
    let search_folder = Arc::new(SearchFolder::new(places.search_index.clone()));
    let readiness = Parts {
        event_store: Arc::clone(&event_store),
        writer: writer.as_ref().map(|(commands, _)| commands.handler().clone()),
        redis: shared.redis().filter(|_| role.takes_commands()),
        projectors: projectors.iter().map(|projector| projector.status.clone()).collect(),
        // Where the projectors run in this process, they tell.
        queried: (role.answers_queries() && projectors.is_empty()).then(|| Queried {
            read_model: Arc::clone(&read_model),
            search_folder: Arc::clone(&search_folder),
        }),
    };
    let (drain, draining) = watch::channel(false);
    let mut apis = Apis::default();
    let writer_task = writer.map(|(commands, task)| {
        let handler = commands.handler().clone();
        let routes = chat_command_api::routes::router(commands);
        let api = Api::commands(routes);
        apis.served
            .push(api.around(|routes| chat_command_api::routes::with_consistency_tokens(routes, handler)));
        task
    });
    if role.answers_queries() {
        let admin_ports =
            AdminPorts { event_store: Arc::clone(&event_store), read_model: Arc::clone(&read_model) };
        let admin = AdminApi::new(admin_ports, admin_access(options), draining);
        apis.served.push(Api::admin(chat_admin_api::router(admin)));
        let ports = QueryPorts { read_model, search: search_folder, event_store };
        apis.served.push(Api::queries(chat_query_api::router(query_api(options, ports, &projectors))));
    } else {
        apis.documented.push(chat_query_api::document());
        apis.documented_admin.push(chat_admin_api::document());
    }
    if !role.takes_commands() {
        apis.documented.push(chat_command_api::routes::document());
    }
    let http = HttpOptions {
        rate_limit: options.rate_limit,
        shared_limits: shared.rate_limits(),
        trusted_proxies: options.trusted_proxies.clone().unwrap_or_default(),
        max_in_flight: options.max_in_flight,
        deadline: Duration::from_secs(options.request_timeout),
        ..HttpOptions::default()
    };
    let app = assemble(apis, System::new(Arc::new(readiness), metrics), &http);
    banner::show(role, options, &places, address);

    let server =
        ServerOptions { drain: Duration::from_secs(options.drain_timeout), ..ServerOptions::default() };
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
            if let Drained::Cut(connections) = drained {
                tracing::warn!(connections, "stopped with requests unanswered");
            }
            Ok(())
        }
        ended = &mut writer_task => Err(writer_ended(ended)),
    };
    shutdown.send_replace(true);
    finish(projectors).await;
    tracing::info!("stopped");
    outcome
}

async fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => Failure::new(format!(
            "{address} is in use by another process; stop that one, or choose another address with --listen-addr"
        )),
        _ => Failure::because(format!("{address} can't be listened on"), &error),
    })
}

fn start_projectors(
    role: Role,
    places: &Places,
    event_store: &Arc<dyn EventStore>,
    stopping: &watch::Receiver<bool>,
) -> Vec<ProjectorHandle> {
    let mut projectors = Vec::new();
    if role.projects(Only::ReadModel) {
        let (event_store, stopping) = (Arc::clone(event_store), stopping.clone());
        projectors.push(match &places.read_model {
            Rows::Sqlite(path) => {
                Projector::spawn(event_store, SqliteReadModelTarget { path: path.clone() }, stopping)
            }
            Rows::Postgres(url) => Projector::spawn(
                event_store,
                PostgresReadModelTarget { url: PostgresUrl::clone(url) },
                stopping,
            ),
        });
    }
    if role.projects(Only::Search) {
        let target = SearchIndexTarget { dir: places.search_index.clone() };
        projectors.push(Projector::spawn(Arc::clone(event_store), target, stopping.clone()));
    }
    projectors
}

async fn start_writer(
    event_store: &Arc<dyn EventStore>,
    counters: Arc<dyn Counters>,
    reservations: Arc<dyn Reservations>,
) -> Result<(Idempotency, JoinHandle<()>), Failure> {
    let head = wait_for("the event log", || event_store.head(), EventStoreError::retryable).await;
    let head = head.map_err(|error| Failure::because("the event log can't be read", &error))?;
    let (handler, task) = CommandHandler::spawn(WriterConfig {
        event_store: Arc::clone(event_store),
        counters,
        clock: clock::now,
        queue: WriterConfig::QUEUE,
        cache_bytes: WriterConfig::CACHE_BYTES,
        head,
    });
    let commands = Idempotency::new(handler, reservations);
    if let Err(error) = commands.begin().await {
        // The first command with a key tries again; those without one go on.
        tracing::warn!(error = &error as &dyn std::error::Error, "idempotency keys can't be kept now");
    }
    Ok((commands, task))
}

fn query_api(options: &Options, ports: QueryPorts, projectors: &[ProjectorHandle]) -> QueryApi {
    // In the all-in-one process queries wake when the projectors beside them have moved; start_projectors gives both.
    let mut moved = projectors.iter().map(|projector| positions(projector.status.clone()));
    let progress = Progress { read_model: moved.next(), search: moved.next() };
    QueryApi::new(ports, progress, admin_access(options))
}

/// Who may ask what operators ask.
fn admin_access(options: &Options) -> AdminAccess {
    options.admin_token.clone().map_or(AdminAccess::Open, AdminAccess::Token)
}

/// The positions alone out of a projector's status.
fn positions(mut status: watch::Receiver<Status>) -> watch::Receiver<Position> {
    let (positions, receiver) = watch::channel(status.borrow().position);
    tokio::spawn(async move {
        while status.changed().await.is_ok() {
            let position = status.borrow_and_update().position;
            positions.send_if_modified(|known| std::mem::replace(known, position) != position);
        }
    });
    receiver
}

async fn finish(projectors: Vec<ProjectorHandle>) {
    let all = async {
        for projector in projectors {
            // One that panicked has nothing left to finish, and its panic is in the log.
            let _ = projector.join.await;
        }
    };
    if tokio::time::timeout(PATIENCE, all).await.is_err() {
        tracing::warn!("the projectors did not finish in time; they go on from their checkpoints next time");
    }
}

fn writer_ended(ended: Result<(), tokio::task::JoinError>) -> Failure {
    match ended {
        Ok(()) => Failure::new("the writer stopped although commands may still come"),
        Err(error) => Failure::because("the writer stopped", &error),
    }
}
