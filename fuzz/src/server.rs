//! The router of all APIs in this process, over a log that can be read and takes no appends.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use axum::body::Body;
use chat_admin_api::{AdminApi, AdminPorts};
use chat_command_api::service::CommandService;
use chat_command_api::writer::{WriterConfig, WriterHandle};
use chat_domain::{Position, Timestamp};
use chat_operations::jobs::Jobs;
use chat_operations::projections::Projections;
use chat_ports::counters::{CounterKey, Counters, CountersError, ReservationRequest};
use chat_ports::event_store::{AppendGate, EventStore, GatedEventStore, LogId, LogLineage};
use chat_projector::generations::ProjectionLocations;
use chat_projector::projection::ProjectionStore;
use chat_projector::read_model::ReadModelProjectionStore;
use chat_projector::search::SearchIndexStore;
use chat_projector::{RecoveryPolicy, spawn_projector};
use chat_query_api::{LiveFeedOptions, ProjectionProgress, QueryApi, QueryPorts};
use chat_search::SearchIndexReader;
use chat_sqlite::{SqliteIdempotencyStore, SqliteReadModel, SqliteReadModelStorage};
use chat_web::admin_auth::AdminAccess;
use chat_web::metrics::Metrics;
use chat_web::router::{ApiRoutes, ApiSet, HttpOptions, Router, build_router};
use chat_web::system_routes::{Part, Readiness, SystemServices};
use http::header::{CONTENT_TYPE, HOST, HeaderMap};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tokio::sync::watch;
use tower::ServiceExt as _;

use crate::{block_on, new_folder, sample_log};

/// The path of the only app of the log.
pub fn app_path(rest: &str) -> String {
    format!("/api/v1/apps/{}{rest}", sample_log::app_token().expose())
}

/// A response.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// `Null` if the body is empty, and for an event stream, which is not read.
    pub body: Value,
}

impl Answer {
    /// The code of a problem.
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    /// The targets of `Link`, with their relations.
    pub fn links(&self) -> Vec<(String, String)> {
        let header = self.headers.get("link").map_or("", |value| value.to_str().expect("a text"));
        let parse = |link: &str| {
            let (target, attributes) = link.split_once('>')?;
            let relation = attributes.strip_prefix("; rel=\"")?.split('"').next()?;
            Some((target.to_owned(), relation.to_owned()))
        };
        header.split('<').skip(1).map(|link| parse(link).expect("a link")).collect()
    }
}

/// Sends a request, and checks the properties of every response: its body is empty, JSON or an event stream, its status
/// is not 500, and a failure is described by a problem document.
pub fn send(mut request: Request<Body>) -> Answer {
    static ROUTER: OnceLock<Router> = OnceLock::new();
    let router = ROUTER.get_or_init(|| block_on(start()));
    request.headers_mut().entry(HOST).or_insert(HeaderValue::from_static("localhost"));
    let description = format!("{} {}", request.method(), request.uri());
    let answer = block_on(async {
        let (head, body) = router.clone().oneshot(request).await.expect("a response").into_parts();
        let is_stream = head.headers.get(CONTENT_TYPE).is_some_and(|value| value == "text/event-stream");
        let bytes =
            if is_stream { Default::default() } else { body.collect().await.expect("a body").to_bytes() };
        let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).expect("JSON") };
        Answer { status: head.status, headers: head.headers, body }
    });
    assert_ne!(answer.status, StatusCode::INTERNAL_SERVER_ERROR, "{description}: {}", answer.body);
    if answer.status.is_client_error() || answer.status.is_server_error() {
        assert_eq!(answer.headers[CONTENT_TYPE], "application/problem+json", "{description}");
        assert_eq!(answer.body["status"], answer.status.as_u16(), "{description}");
        assert!(!answer.code().is_empty(), "{description}: {}", answer.body);
    }
    answer
}

/// Sends a `GET` request. `None` if the target is not a valid URI.
pub fn get(target: &str) -> Option<Answer> {
    Some(send(Request::get(target).body(Body::empty()).ok()?))
}

async fn start() -> Router {
    let folder = new_folder();
    let (log, head) = sample_log::create(&folder.join("events.db")).await;
    let log: Arc<dyn EventStore> = log;
    let log_id = log.log_id().await.expect("the log's id");
    let locations = project(&folder, &log, head).await;
    let gate = AppendGate::default();
    gate.close("the log stays as it is");
    let log: Arc<dyn EventStore> = Arc::new(GatedEventStore::new(log, gate));
    let read_model = Arc::new(SqliteReadModel::new(folder.join("read-model.db")));
    // The sender lives as long as the process: without it, tails and feeds would end at once.
    let (draining, is_draining) = watch::channel(false);
    std::mem::forget(draining);
    let queries = QueryApi::new(
        QueryPorts {
            read_model: Arc::clone(&read_model) as _,
            search: Arc::new(SearchIndexReader::new(folder.join("search-index"))),
            event_store: Arc::clone(&log),
            lineage: LogLineage::new(log_id, Vec::new()),
        },
        ProjectionProgress::default(),
        AdminAccess::Open("operator".into()),
        LiveFeedOptions::new(is_draining.clone()),
    );
    let projections = Arc::new(Projections { log: Arc::clone(&log), locations });
    let admin = AdminPorts {
        event_store: Arc::clone(&log),
        read_model: Arc::new(move || Arc::clone(&read_model) as _),
        projections: Arc::clone(&projections),
        jobs: Jobs::new(projections, None),
    };
    let admin = AdminApi::new(admin, AdminAccess::Open("operator".into()), is_draining);
    let commands = start_commands(&folder, log, (log_id, head)).await;
    let served = vec![
        ApiRoutes::commands(chat_command_api::routes::router(commands, AdminAccess::Open("operator".into()))),
        ApiRoutes::queries(chat_query_api::router(queries)),
        ApiRoutes::admin(chat_admin_api::router(admin)),
    ];
    let system = SystemServices::new(Arc::new(AlwaysReady), Metrics::detached());
    build_router(ApiSet { served, ..ApiSet::default() }, system, &HttpOptions::default())
}

/// Folds the log into a read model and a search index.
async fn project(folder: &Path, log: &Arc<dyn EventStore>, head: Position) -> ProjectionLocations {
    let storage = SqliteReadModelStorage::new(folder.join("read-model.db"));
    let search_index = folder.join("search-index");
    let locations =
        ProjectionLocations { read_model: Arc::new(storage.clone()), search_index: search_index.clone() };
    let stores: [Arc<dyn ProjectionStore>; 2] =
        [Arc::new(ReadModelProjectionStore::new(storage)), Arc::new(SearchIndexStore { dir: search_index })];
    for store in stores {
        let (stop, is_stopping) = watch::channel(false);
        let projector = spawn_projector(store, Arc::clone(log), RecoveryPolicy::Rebuild, is_stopping);
        assert!(projector.wait_for_position(head).await, "a projector stopped");
        stop.send_replace(true);
        projector.join.await.expect("the projector's end");
    }
    locations
}

async fn start_commands(
    folder: &Path,
    event_store: Arc<dyn EventStore>,
    (log_id, head): (LogId, Position),
) -> CommandService {
    let idempotency_store = SqliteIdempotencyStore::new(&folder.join("idempotency.db"), log_id);
    let (writer, _) = WriterHandle::spawn(WriterConfig {
        event_store,
        counters: Arc::new(NextNumbers),
        clock: || Timestamp::from_millis(1_790_000_100_000),
        queue_capacity: 16,
        cache_bytes: WriterConfig::DEFAULT_CACHE_BYTES,
        head,
    });
    let store = idempotency_store.expect("a store of idempotency keys");
    let commands = CommandService::new(writer, Arc::new(store), log_id);
    commands.initialize_idempotency_store().await.expect("an initialized store of idempotency keys");
    commands
}

/// Counters that are never ahead of the log. No append succeeds, so other counters would get ever farther ahead.
struct NextNumbers;

#[async_trait]
impl Counters for NextNumbers {
    async fn reserve(&self, requests: &[ReservationRequest]) -> Result<Vec<u64>, CountersError> {
        Ok(requests.iter().map(|request| request.floor + 1).collect())
    }

    async fn rewind(&self, _key: CounterKey, _from: u64, _to: u64) -> Result<(), CountersError> {
        Ok(())
    }
}

/// Reports no parts, so the process is always ready.
struct AlwaysReady;

#[async_trait]
impl Readiness for AlwaysReady {
    async fn parts(&self) -> Vec<Part> {
        Vec::new()
    }
}
