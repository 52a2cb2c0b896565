//! The listeners of a process: one for clients, and on request one for operators.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chat_web::http_limits::HttpLimits;
use chat_web::router::{ApiSet, HttpOptions, Router, build_router, build_separate_routers};
use chat_web::server::{ConnectionLimits, DrainOutcome, ServerOptions, serve};
use chat_web::system_routes::SystemServices;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::failure::Failure;
use crate::open_files;
use crate::serve_options::ServeOptions;

/// Connections, requests and memory of the listener for operators.
const ADMIN_CONNECTIONS: usize = 256;
const ADMIN_IN_FLIGHT: usize = 128;
const ADMIN_MEMORY_BYTES: usize = 128 * 1024 * 1024;

/// Threads of the listener for operators: a second one, because a scan of the log may keep one busy.
const ADMIN_THREADS: usize = 2;

/// The addresses that a process listens on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    pub(crate) public: SocketAddr,
    /// The address for operators, if it is separate.
    pub(crate) admin: Option<SocketAddr>,
}

/// Listeners that don't accept connections yet.
pub(crate) struct Listeners {
    public: TcpListener,
    admin: Option<TcpListener>,
    options: ServerOptions,
    addresses: Addresses,
}

/// The server for clients.
pub(crate) struct PublicServer {
    listener: TcpListener,
    app: Router,
    limits: Arc<HttpLimits>,
    options: ServerOptions,
}

/// The server for operators, if there is one. It has threads of its own, so that it answers however busy the others are.
pub(crate) struct AdminServer(Option<RunningServer>);

struct RunningServer {
    runtime: Runtime,
    stop: oneshot::Sender<()>,
    task: JoinHandle<DrainOutcome>,
}

impl Listeners {
    /// Listens on the address for clients, and on the one for operators if it is set.
    pub(crate) async fn bind(options: &ServeOptions, address: SocketAddr) -> Result<Self, Failure> {
        let admin = match options.admin_listen_addr {
            Some(address) => Some(bind(address, "--admin-listen-addr").await?),
            None => None,
        };
        let public = bind(address, "--listen-addr").await?;
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

    /// Mounts the routes, and starts the server for operators. `leaving` says that the process is about to stop.
    pub(crate) fn mount(
        self,
        apis: ApiSet,
        system: SystemServices,
        http: &HttpOptions,
        leaving: watch::Receiver<bool>,
    ) -> Result<(PublicServer, AdminServer), Failure> {
        let Self { public: listener, admin, options, .. } = self;
        let options = ServerOptions { leaving, ..options };
        let limits = Arc::clone(&http.limits);
        let Some(admin) = admin else {
            let app = build_router(apis, system, http);
            return Ok((PublicServer { listener, app, limits, options }, AdminServer(None)));
        };
        let admin_limits = HttpLimits::new(ADMIN_IN_FLIGHT, ADMIN_MEMORY_BYTES);
        let admin_http = HttpOptions { limits: Arc::clone(&admin_limits), ..http.clone() };
        let (app, admin_app) = build_separate_routers(apis, system, http, &admin_http);
        let admin_options =
            ServerOptions { connections: ConnectionLimits::new(ADMIN_CONNECTIONS), ..options.clone() };
        let admin = RunningServer::start(admin, admin_app, admin_limits, admin_options)
            .map_err(|error| Failure::because("the listener for operators could not be started", &error))?;
        Ok((PublicServer { listener, app, limits, options }, AdminServer(Some(admin))))
    }
}

impl PublicServer {
    /// Serves clients until `stop` completes. Then waits for requests in flight.
    pub(crate) async fn serve(self, stop: impl Future<Output = ()>) -> DrainOutcome {
        serve(self.listener, self.app, self.limits, self.options, stop).await
    }
}

impl AdminServer {
    /// Stops the server. Waits for requests in flight.
    pub(crate) async fn stop(self) {
        let Some(RunningServer { runtime, stop, task }) = self.0 else { return };
        let _ = stop.send(());
        let _ = task.await;
        runtime.shutdown_background();
    }
}

impl RunningServer {
    fn start(
        listener: TcpListener,
        app: Router,
        limits: Arc<HttpLimits>,
        options: ServerOptions,
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
        let (stop, stopped) = oneshot::channel();
        let task = runtime.spawn(serve(listener, app, limits, options, async {
            let _ = stopped.await;
        }));
        Ok(Self { runtime, stop, task })
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
