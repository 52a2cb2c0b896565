//! The listeners of a process: one for clients, and on request one for operators.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chat_web::http_limits::HttpLimits;
use chat_web::router::{
    ApiSet, HttpOptions, OpenApi, build_router, build_separate_routers, build_starting_router,
};
use chat_web::served_router::ServedRouter;
use chat_web::server::{ConnectionLimits, DrainOutcome, ServerOptions, serve};
use chat_web::system_routes::SystemServices;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::failure::Failure;
use crate::open_files;
use crate::serve_options::ServeOptions;

/// Limits of the listener for operators: connections, requests in flight, and bytes of memory for request and response
/// bodies.
const ADMIN_CONNECTIONS: usize = 256;
const ADMIN_IN_FLIGHT: usize = 128;
const ADMIN_MEMORY_BYTES: usize = 128 * 1024 * 1024;

/// Threads of the listener for operators: two, because a scan of the log may keep one busy.
const ADMIN_THREADS: usize = 2;

/// The addresses that a process listens on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    pub(crate) public: SocketAddr,
    /// The address for operators. `None` if the public address serves operators too.
    pub(crate) admin: Option<SocketAddr>,
}

/// Listeners that don't accept connections yet.
pub(crate) struct Listeners {
    public: TcpListener,
    admin: Option<TcpListener>,
    options: ServerOptions,
    addresses: Addresses,
}

/// The servers of a process. Until [`Servers::start`] they serve health, metrics and documentation only.
pub(crate) struct Servers {
    public: PublicServer,
    admin: Option<AdminServer>,
}

/// The server for clients.
pub(crate) struct PublicServer {
    router: ServedRouter,
    stop: oneshot::Sender<()>,
    task: JoinHandle<DrainOutcome>,
}

/// The server for operators. It has threads of its own, so that it answers however busy the process's other threads
/// are.
pub(crate) struct AdminServer {
    router: ServedRouter,
    limits: Arc<HttpLimits>,
    _runtime: OwnRuntime,
    stop: oneshot::Sender<()>,
    task: JoinHandle<DrainOutcome>,
}

impl Listeners {
    /// Listens on the address for clients, and on the one for operators if it is set.
    pub(crate) async fn bind(options: &ServeOptions, wanted: Addresses) -> Result<Self, Failure> {
        let admin = match wanted.admin {
            Some(address) => Some(bind(address, "--admin-listen-addr").await?),
            None => None,
        };
        let public = bind(wanted.public, "--listen-addr").await?;
        let local_address = |listener: &TcpListener| {
            listener.local_addr().map_err(|error| Failure::because("the listener has no address", &error))
        };
        let addresses = Addresses {
            public: local_address(&public)?,
            admin: admin.as_ref().map(local_address).transpose()?,
        };
        let options = ServerOptions {
            connections: options.connection_limits(open_files::raise_limit()),
            drain_timeout: Duration::from_secs(options.drain_timeout),
            ..ServerOptions::default()
        };
        Ok(Self { public, admin, options, addresses })
    }

    pub(crate) fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Starts to accept connections. Health, metrics and documentation are served from now on. `leaving` says that the
    /// process is about to stop.
    pub(crate) fn serve(
        self,
        system: &SystemServices,
        http: &HttpOptions,
        leaving: watch::Receiver<bool>,
    ) -> Result<Servers, Failure> {
        let Self { public, admin, options, .. } = self;
        let options = ServerOptions { leaving, cors: http.cors.clone(), ..options };
        let system_of_public = match admin {
            Some(_) => system.clone().without_metrics(),
            None => system.clone(),
        };
        let admin = admin
            .map(|listener| AdminServer::spawn(listener, system.clone(), http, &options))
            .transpose()
            .map_err(|error| Failure::because("the listener for operators could not be started", &error))?;
        let router = ServedRouter::starting(build_starting_router(api_documents, system_of_public, http));
        let (stop, stopped) = oneshot::channel();
        let serving = serve(public, router.clone(), Arc::clone(&http.limits), options, async {
            let _ = stopped.await;
        });
        let public = PublicServer { router, stop, task: tokio::spawn(serving) };
        Ok(Servers { public, admin })
    }
}

impl Servers {
    /// Serves the APIs from now on.
    pub(crate) fn start(&self, apis: ApiSet, system: SystemServices, http: &HttpOptions) {
        match &self.admin {
            Some(admin) => {
                let admin_http = HttpOptions { limits: Arc::clone(&admin.limits), ..http.clone() };
                let (public_router, admin_router) = build_separate_routers(apis, system, http, &admin_http);
                self.public.router.start(public_router);
                admin.router.start(admin_router);
            }
            None => self.public.router.start(build_router(apis, system, http)),
        }
    }

    /// Returns the two servers, so that the caller can stop one after the other.
    pub(crate) fn split(self) -> (PublicServer, Option<AdminServer>) {
        (self.public, self.admin)
    }
}

impl PublicServer {
    /// Stops the server. Waits for requests in flight, up to the drain timeout.
    pub(crate) async fn stop(self) -> DrainOutcome {
        let Self { router, stop, task } = self;
        // The task holds the last clone of the router now, so the handlers are dropped when the task ends.
        drop(router);
        let _ = stop.send(());
        // A panic of the server is logged where it happens.
        task.await.unwrap_or(DrainOutcome::ConnectionsAborted(0))
    }
}

impl AdminServer {
    fn spawn(
        listener: TcpListener,
        system: SystemServices,
        http: &HttpOptions,
        options: &ServerOptions,
    ) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(ADMIN_THREADS)
            .thread_name("operators")
            .enable_all()
            .build()?;
        let listener = listener.into_std()?;
        let listener = {
            let _entered = runtime.enter();
            TcpListener::from_std(listener)?
        };
        let limits = HttpLimits::new(ADMIN_IN_FLIGHT, ADMIN_MEMORY_BYTES);
        let http = HttpOptions { limits: Arc::clone(&limits), ..http.clone() };
        let options =
            ServerOptions { connections: ConnectionLimits::new(ADMIN_CONNECTIONS), ..options.clone() };
        let router = ServedRouter::starting(build_starting_router(api_documents, system, &http));
        let (stop, stopped) = oneshot::channel();
        let task = runtime.spawn(serve(listener, router.clone(), Arc::clone(&limits), options, async {
            let _ = stopped.await;
        }));
        Ok(Self { router, limits, _runtime: OwnRuntime(Some(runtime)), stop, task })
    }

    /// Stops the server. Waits for requests in flight, up to the drain timeout.
    pub(crate) async fn stop(self) {
        let Self { stop, task, _runtime, .. } = self;
        let _ = stop.send(());
        let _ = task.await;
    }
}

/// Returns the documents of the whole API, which are the same for every role.
fn api_documents() -> Vec<OpenApi> {
    vec![
        chat_command_api::routes::openapi_document(),
        chat_query_api::openapi_document(),
        chat_admin_api::openapi_document(),
    ]
}

/// A runtime that a task of another runtime may drop. Dropping a [`Runtime`] itself there panics, because the
/// drop would wait for the runtime's blocking tasks.
struct OwnRuntime(Option<Runtime>);

impl Drop for OwnRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Listens on an address that the option `flag` sets.
async fn bind(address: SocketAddr, flag: &str) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => Failure::new(format!(
            "{address} is in use by another process; stop that one, or choose another address with {flag}"
        )),
        _ => Failure::because(format!("{address} can't be listened on"), &error),
    })
}
