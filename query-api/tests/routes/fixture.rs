//! A query API with an event store and a read model in a temporary folder, and a stub of the search index.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use chat_domain::event::{
    AppCreated, AppRenamed, ChatCreated, MessageCreated, MessageDeleted, MessageEdited,
};
use chat_domain::metadata::EventId;
use chat_domain::{
    AppName, AppToken, ChatNumber, DataChange, Event, ExpectedRevision, MessageBody, MessageNumber, Position,
    Revision, StreamId, Timestamp, Version,
};
use chat_domain::{Sender, SenderId};
use chat_ports::event_store::{
    AppendError, AppendReceipt, EventLookup, EventStore, EventStoreError, Incarnation, LogId, LogLineage,
    LogReplaced, NewEvent, NewIncarnation, RecordedEvent, StreamAppend, StreamRead, Subscription,
};
use chat_ports::search_index::{
    Document, Hit, MessageKey, QueryTooLong, SearchError, SearchIndex, SearchPage, SearchRequest,
};
use chat_projector::read_model::ReadModelProjectionStore;
use chat_projector::{ProjectorHandle, RecoveryPolicy, spawn_projector};
pub use chat_query_api::LiveFeedOptions;
use chat_query_api::{ProjectionProgress, PromotedProjections, QueryApi, QueryPorts, router};
use chat_sqlite::{SqliteEventStore, SqliteReadModel, SqliteReadModelStorage};
use chat_web::admin_auth::{AdminAccess, AdminToken};
use chat_web::consistency::ConsistencyToken;
use chat_web::metrics::Metrics;
use chat_web::router::{ApiRoutes, ApiSet, HttpOptions, build_router};
use chat_web::system_routes::{Part, Readiness, SystemServices};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::timeout;
use tower::ServiceExt;
use uuid::Uuid;

const DEADLINE: Duration = Duration::from_secs(20);
pub const ADMIN_TOKEN: &str = "let-me-in";

/// The log id that the query API gets with the lineage. The id that the event store itself has is another one.
pub const LOG: LogId = LogId(Uuid::from_u128(82));

pub struct Fixture {
    folder: TempDir,
    event_store: Arc<dyn EventStore>,
    /// The reads of the log by the query API.
    pub reads: Arc<LogReads>,
    revisions: Mutex<HashMap<String, u64>>,
    pub index: Arc<StubIndex>,
    query_api: QueryApi,
    routes: Router,
    /// The running projector, and the sender that stops it.
    projector: Mutex<Option<(ProjectorHandle, watch::Sender<bool>)>>,
    /// Ends the live feed when it becomes `true`.
    pub stop: watch::Sender<bool>,
}

pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Reply {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name}")).to_str().unwrap()
    }

    /// The target of a relation in `Link`.
    pub fn link(&self, relation: &str) -> Option<String> {
        let links = self.headers.get("link")?.to_str().unwrap();
        let link = links.split(", ").find(|link| link.ends_with(&format!("rel=\"{relation}\"")))?;
        Some(link.strip_prefix('<').unwrap().split('>').next().unwrap().to_owned())
    }

    /// The status and the problem's code.
    pub fn problem(&self) -> (u16, &str) {
        assert_eq!(self.header("content-type"), "application/problem+json");
        (self.status.as_u16(), self.body["code"].as_str().unwrap())
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

impl Fixture {
    /// Creates a fixture with a running projector.
    pub fn with_projector() -> Self {
        let fixture = Self::without_projector();
        fixture.start_projector();
        fixture
    }

    pub fn without_projector() -> Self {
        Self::with_live_feed_options(|options| options)
    }

    /// Creates a fixture without a projector. `configure` changes the bounds of the live feed.
    pub fn with_live_feed_options(configure: impl FnOnce(LiveFeedOptions) -> LiveFeedOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let event_store: Arc<dyn EventStore> =
            Arc::new(SqliteEventStore::open(&folder.path().join("events.db")).unwrap());
        let index = Arc::new(StubIndex::default());
        let reads = Arc::new(LogReads::default());
        let log = ObservedLog { inner: Arc::clone(&event_store), reads: Arc::clone(&reads) };
        let ports = QueryPorts {
            read_model: Arc::new(SqliteReadModel::new(folder.path().join("read-model.db"))),
            search: Arc::clone(&index) as Arc<dyn SearchIndex>,
            event_store: Arc::new(log),
            lineage: LogLineage::new(LOG, Vec::new()),
        };
        let (stop, stopping) = watch::channel(false);
        let live_feed = configure(LiveFeedOptions::new(stopping));
        let admin = AdminAccess::with_token(AdminToken::parse(ADMIN_TOKEN).unwrap());
        let query_api = QueryApi::new(ports, ProjectionProgress::default(), admin, live_feed);
        let api = ApiRoutes::queries(router(query_api.clone()));
        let system = SystemServices::new(Arc::new(AlwaysReady), Metrics::detached());
        let routes =
            build_router(ApiSet { served: vec![api], ..ApiSet::default() }, system, &HttpOptions::default());
        let (revisions, projector) = (Mutex::default(), Mutex::default());
        Self { folder, event_store, reads, revisions, index, query_api, routes, projector, stop }
    }

    /// Switches over to another search index. The read model stays the same.
    pub fn switch_over(&self, index: &Arc<StubIndex>, position: Position) {
        self.query_api.switch_over(PromotedProjections {
            read_model: Arc::new(SqliteReadModel::new(self.folder.path().join("read-model.db"))),
            search: Arc::clone(index) as Arc<dyn SearchIndex>,
            progress: ProjectionProgress::default(),
            positions: (position, position),
        });
    }

    pub fn start_projector(&self) {
        let (stop, stopped) = watch::channel(false);
        let store = Arc::new(ReadModelProjectionStore::new(SqliteReadModelStorage::new(
            self.folder.path().join("read-model.db"),
        )));
        let handle = spawn_projector(store, Arc::clone(&self.event_store), RecoveryPolicy::Rebuild, stopped);
        *self.projector.lock().unwrap() = Some((handle, stop));
    }

    pub async fn stop_projector(&self) {
        let (handle, stop) = self.projector.lock().unwrap().take().unwrap();
        stop.send(true).unwrap();
        timeout(DEADLINE, handle.join).await.unwrap().unwrap();
    }

    /// Appends events and waits until the projector, if one runs, has applied them.
    pub async fn append_and_project(&self, stream: StreamId, events: Vec<Event>) -> Position {
        let position = self.append(stream, events).await;
        let status = {
            let projector = self.projector.lock().unwrap();
            projector.as_ref().map(|(handle, _)| handle.status.clone())
        };
        if let Some(mut status) = status {
            let reached = status.wait_for(|status| status.position >= position);
            timeout(DEADLINE, reached).await.unwrap().unwrap();
        }
        position
    }

    pub async fn append(&self, stream: StreamId, events: Vec<Event>) -> Position {
        let events = events.into_iter().map(|event| (event.payload(), event));
        self.append_payloads(stream, events.collect()).await
    }

    /// Appends events, each with the payload to store.
    pub async fn append_payloads(&self, stream: StreamId, events: Vec<(String, Event)>) -> Position {
        let name = stream.to_string();
        let first = self.revisions.lock().unwrap().get(&name).copied().unwrap_or(0);
        let count = events.len() as u64;
        let events = events.into_iter().enumerate().map(|(index, (data, event))| NewEvent {
            id: EventId::new(Uuid::new_v4()),
            event_type: event.event_type(),
            schema_version: event.schema_version(),
            recorded_at: at(first + index as u64),
            data,
            metadata: "{}".into(),
        });
        let expected = ExpectedRevision::from_last_revision(first.checked_sub(1).map(Revision::new));
        let append = StreamAppend {
            stream: name.as_str().into(),
            expected_revision: expected,
            events: events.collect(),
        };
        let position = self.event_store.append(vec![append]).await.remove(0).unwrap().position;
        self.revisions.lock().unwrap().insert(name, first + count);
        position
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    /// Repeats a query until its response has `Read-Model-Lag`. A response lacks this header if the log does not answer
    /// within 200 ms.
    pub async fn get_until_lag_is_reported(&self, path: &str) -> Reply {
        let query = async {
            loop {
                let reply = self.get(path).await;
                if reply.headers.contains_key("read-model-lag") {
                    return reply;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        timeout(DEADLINE, query).await.unwrap()
    }

    /// Repeats a query until it succeeds. On a busy machine, the query's wait may end before the projector has reached
    /// the query's consistency token.
    pub async fn get_until_ok(&self, path: &str, headers: &[(&str, &str)]) -> Reply {
        let query = async {
            loop {
                let reply = self.get_with(path, headers).await;
                if reply.status == StatusCode::OK {
                    return reply;
                }
                assert_eq!(reply.problem(), (503, "read_model_behind"));
            }
        };
        timeout(DEADLINE, query).await.unwrap()
    }

    pub async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Reply {
        let mut request = Request::get(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Body::empty()).unwrap()).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        let request = Request::post(path).header("content-type", "application/json");
        self.send(request.body(Body::from(body.to_string())).unwrap()).await
    }

    /// Sends a request, and returns the response with its body unread.
    pub async fn respond(&self, mut request: Request<Body>) -> Response<Body> {
        request.headers_mut().insert("host", HeaderValue::from_static("localhost"));
        timeout(DEADLINE, self.routes.clone().oneshot(request)).await.unwrap().unwrap()
    }

    async fn send(&self, request: Request<Body>) -> Reply {
        let (head, body) = self.respond(request).await.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
        Reply { status: head.status, headers: head.headers, body }
    }
}

/// Counts reads of streams and of the log, and can make them wait. The reads of subscriptions are not counted.
#[derive(Default)]
pub struct LogReads {
    count: watch::Sender<usize>,
    are_blocked: watch::Sender<bool>,
    are_subscriptions_blocked: watch::Sender<bool>,
}

impl LogReads {
    /// Returns the number of reads since the last call.
    pub fn take_count(&self) -> usize {
        self.count.send_replace(0)
    }

    /// Makes all reads wait from now on.
    pub fn block(&self) {
        self.are_blocked.send_replace(true);
    }

    /// Makes new subscriptions wait from now on: the hub of a live feed that begins later gets no events.
    pub fn block_subscriptions(&self) {
        self.are_subscriptions_blocked.send_replace(true);
    }

    /// Lets all reads go on.
    pub fn unblock(&self) {
        self.are_blocked.send_replace(false);
    }

    /// Waits until there were `count` reads since the last call of [`Self::take_count`].
    pub async fn wait_for_count(&self, count: usize) {
        let mut counter = self.count.subscribe();
        timeout(DEADLINE, counter.wait_for(|reads| *reads >= count)).await.unwrap().unwrap();
    }

    async fn begin(&self) {
        self.count.send_modify(|count| *count += 1);
        self.are_blocked.subscribe().wait_for(|are_blocked| !are_blocked).await.unwrap();
    }
}

/// A log whose reads are observed.
struct ObservedLog {
    inner: Arc<dyn EventStore>,
    reads: Arc<LogReads>,
}

#[async_trait]
impl EventStore for ObservedLog {
    async fn log_id(&self) -> Result<LogId, EventStoreError> {
        self.inner.log_id().await
    }

    async fn lineage(&self) -> Result<LogLineage, EventStoreError> {
        self.inner.lineage().await
    }

    async fn begin_incarnation(&self, incarnation: NewIncarnation) -> Result<Incarnation, EventStoreError> {
        self.inner.begin_incarnation(incarnation).await
    }

    async fn append(&self, appends: Vec<StreamAppend>) -> Vec<Result<AppendReceipt, AppendError>> {
        self.inner.append(appends).await
    }

    async fn read_stream(&self, read: StreamRead) -> Result<Vec<RecordedEvent>, EventStoreError> {
        self.reads.begin().await;
        self.inner.read_stream(read).await
    }

    async fn read_all(&self, after: Position, limit: usize) -> Result<Vec<RecordedEvent>, EventStoreError> {
        self.reads.begin().await;
        self.inner.read_all(after, limit).await
    }

    async fn read_all_backwards(
        &self,
        before: Option<Position>,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, EventStoreError> {
        self.reads.begin().await;
        self.inner.read_all_backwards(before, limit).await
    }

    async fn find_event(&self, lookup: EventLookup) -> Result<Option<RecordedEvent>, EventStoreError> {
        self.inner.find_event(lookup).await
    }

    async fn verify_identity(&self) -> Result<(), LogReplaced> {
        self.inner.verify_identity().await
    }

    async fn head(&self) -> Result<Position, EventStoreError> {
        self.inner.head().await
    }

    async fn subscribe(&self, after: Position) -> Result<Box<dyn Subscription>, EventStoreError> {
        let mut blocking = self.reads.are_subscriptions_blocked.subscribe();
        blocking.wait_for(|are_blocked| !are_blocked).await.unwrap();
        self.inner.subscribe(after).await
    }
}

/// A search index that returns a given page and records its requests.
#[derive(Default)]
pub struct StubIndex {
    pub page: Mutex<Option<SearchPage>>,
    pub requests: Mutex<Vec<SearchRequest>>,
}

impl SearchIndex for StubIndex {
    fn check_query(&self, query: &str) -> Result<(), QueryTooLong> {
        let fits = query.len() <= 1_024 && query.split(' ').count() <= 32;
        if fits { Ok(()) } else { Err(QueryTooLong) }
    }

    fn search(&self, request: &SearchRequest) -> Result<SearchPage, SearchError> {
        self.requests.lock().unwrap().push(request.clone());
        self.page.lock().unwrap().clone().ok_or(SearchError::NotCreated)
    }
}

pub fn hit(message: u64, body: &str, snippet: &str) -> Hit {
    let key = MessageKey { app: token(), chat: ChatNumber::FIRST, message: message_number(message) };
    let document = Document {
        key,
        created_position: Position::new(message),
        body: body.to_owned(),
        sender: None,
        data: None,
        version: Version::new(1),
        created_at: at(message),
        updated_at: at(message),
    };
    Hit { document, snippet: snippet.to_owned(), score: 7 }
}

/// Returns the consistency token that the query API sends for a position.
pub fn consistency_token(position: Position) -> String {
    ConsistencyToken::new(LOG.into(), position).to_string()
}

pub fn token() -> AppToken {
    AppToken::parse(&"k".repeat(36)).unwrap()
}

/// The token of a second app.
pub fn other_token() -> AppToken {
    AppToken::parse(&"m".repeat(36)).unwrap()
}

/// Returns a path below the app.
pub fn path(rest: &str) -> String {
    format!("/api/v1/apps/{}{rest}", token().expose())
}

pub fn app() -> StreamId {
    StreamId::App(token())
}

pub fn chat(number: u64) -> StreamId {
    StreamId::Chat(token(), ChatNumber::try_from(number).unwrap())
}

/// Returns the time at which the event at a revision was recorded.
pub fn at(revision: u64) -> Timestamp {
    Timestamp::from_millis(1_790_000_000_007 + i64::try_from(revision).unwrap() * 1_000)
}

pub fn app_created(name: &str) -> Event {
    AppCreated { name: AppName::parse(name.to_owned()).unwrap() }.into()
}

pub fn app_renamed(name: &str) -> Event {
    AppRenamed { name: AppName::parse(name.to_owned()).unwrap() }.into()
}

pub fn chat_created(number: u64) -> Event {
    ChatCreated { chat_number: ChatNumber::try_from(number).unwrap() }.into()
}

pub fn message_number(number: u64) -> MessageNumber {
    MessageNumber::try_from(number).unwrap()
}

pub fn created(number: u64, body: &str) -> Event {
    let body = MessageBody::parse(body.to_owned()).unwrap();
    MessageCreated { message_number: message_number(number), body, sender: None, data: None }.into()
}

/// Returns the creation of a message with a sender.
pub fn sent(number: u64, body: &str, sender: &str) -> Event {
    let body = MessageBody::parse(body.to_owned()).unwrap();
    let sender = Sender { id: SenderId::parse(sender.to_owned()).unwrap(), name: None };
    MessageCreated { message_number: message_number(number), body, sender: Some(sender), data: None }.into()
}

pub fn edited(number: u64, body: &str) -> Event {
    let body = MessageBody::parse(body.to_owned()).unwrap();
    MessageEdited { message_number: message_number(number), body, data: DataChange::Keep }.into()
}

pub fn deleted(number: u64) -> Event {
    MessageDeleted { message_number: message_number(number) }.into()
}

/// Returns the creations of messages 1 to `last`.
pub fn messages(last: u64) -> Vec<Event> {
    (1..=last).map(|number| created(number, &format!("message {number}"))).collect()
}
