//! A console over a log, a read model and a search index in a temporary folder, with an operator who acts and one who
//! only reads.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use chat_console::{Console, ConsolePorts, LiveReaders, router};
use chat_domain::event::{AppCreated, ChatCreated, MessageCreated, SchemaVersion};
use chat_domain::metadata::EventId;
use chat_domain::projection::{Generation, ProjectionName};
use chat_domain::{
    AppName, AppToken, ChatNumber, Event, ExpectedRevision, MessageBody, MessageNumber, OperatorAction,
    Position, StreamId, Timestamp,
};
use chat_operations::jobs::Jobs;
use chat_operations::operator_actions::{Operator, record_action};
use chat_operations::projections::Projections;
use chat_operations::proof::key::{KeyName, SigningKey};
use chat_ports::event_store::{EventStore, NewEvent, StreamAppend, StreamRead};
use chat_projector::ProjectorState;
use chat_projector::generations::{Generations, ProjectionLocations, ProjectorSupervisor, SupervisorContext};
use chat_search::SearchIndexReader;
use chat_sqlite::{SqliteEventStore, SqliteReadModelStorage};
use chat_web::admin_auth::{AdminAccess, AdminToken, Operators};
use chat_web::metrics::Metrics;
use chat_web::operators::{OperatorList, TokenHash};
use chat_web::router::{ApiSet, HttpOptions, build_router};
use chat_web::system_routes::{Part, Readiness, SystemServices};
use http::header::{COOKIE, HOST, LOCATION, SET_COOKIE};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::timeout;
use tower::ServiceExt;
use uuid::Uuid;

const DEADLINE: Duration = Duration::from_secs(20);

/// The token of the operator `admin`, who reads and acts.
const ADMIN_TOKEN: &str = "let-me-in";

/// The token of the operator `sam`, who reads.
const READER_TOKEN: &str = "let-me-read";

pub struct Fixture {
    pub log: Arc<dyn EventStore>,
    /// The public key of the server's checkpoints.
    pub public_key: String,
    pub console: Router,
    supervisor: ProjectorSupervisor,
    _stop: watch::Sender<bool>,
    folder: TempDir,
}

/// An operator who is signed in.
pub struct SignedIn {
    cookie: String,
}

pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl Reply {
    /// The address that the response redirects to.
    pub fn location(&self) -> &str {
        self.headers.get(LOCATION).unwrap().to_str().unwrap()
    }

    /// The value of the first hidden form field with this name.
    pub fn hidden(&self, name: &str) -> String {
        let (_, rest) = self.body.split_once(&format!("name=\"{name}\" value=\"")).unwrap();
        rest.split('"').next().unwrap().to_owned()
    }

    /// The text of the page, without tags, with single spaces.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for part in self.body.split('<') {
            text.push_str(part.split_once('>').map_or(part, |(_, text)| text));
            text.push(' ');
        }
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Panics unless the text of the page contains all of the texts.
    pub fn assert_shows(&self, texts: &[&str]) {
        let page = self.text();
        for text in texts {
            assert!(page.contains(text), "{text:?} is not in {} {page}", self.status);
        }
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
    /// A console over an empty log, with running projectors.
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| -> PathBuf { folder.path().join(name) };
        let log: Arc<dyn EventStore> = Arc::new(SqliteEventStore::open(&path("events.db")).unwrap());
        let locations = ProjectionLocations {
            read_model: Arc::new(SqliteReadModelStorage::new(path("read-model.db"))),
            search_index: path("search-index"),
        };
        let (stop, stopped) = watch::channel(false);
        let generations = Generations::load(&*log).await.unwrap().follow(Arc::clone(&log));
        let mut supervisor = ProjectorSupervisor::new(SupervisorContext {
            event_store: Arc::clone(&log),
            locations: locations.clone(),
            generations,
            shutdown: stopped.clone(),
            linger: Duration::from_secs(1),
        });
        for projection in ProjectionName::ALL {
            supervisor.supervise(projection);
        }
        for mut status in supervisor.statuses_of_generations_in_use() {
            let is_live = status.wait_for(|status| status.state == ProjectorState::Live);
            timeout(DEADLINE, is_live).await.unwrap().unwrap();
        }
        let projections = Arc::new(Projections { log: Arc::clone(&log), locations: locations.clone() });
        let key = SigningKey::generate(KeyName::default()).unwrap();
        let public_key = key.verifying_key().to_string();
        let jobs = Jobs::new(Arc::clone(&projections), Some(key));
        tokio::spawn(jobs.clone().run(stopped.clone()));
        let ports = ConsolePorts {
            event_store: Arc::clone(&log),
            readers: Box::new(move || LiveReaders {
                read_model: locations.read_model(Generation::FIRST).reader(),
                search: Arc::new(SearchIndexReader::new(locations.search_index(Generation::FIRST))),
            }),
            projections: Arc::clone(&projections),
            jobs: jobs.clone(),
            readiness: Arc::new(AlwaysReady),
            metrics: Metrics::detached(),
        };
        let console = router(Console::new(ports, access(), stopped).unwrap());
        let system = SystemServices::new(Arc::new(AlwaysReady), Metrics::detached());
        let apis = ApiSet { console: Some(console), ..ApiSet::default() };
        let console = build_router(apis, system, &HttpOptions::default());
        Self { log, public_key, console, supervisor, _stop: stop, folder }
    }

    /// Signs in the operator `admin`, who reads and acts.
    pub async fn admin(&self) -> SignedIn {
        self.sign_in(ADMIN_TOKEN).await
    }

    /// Signs in the operator `sam`, who reads.
    pub async fn reader(&self) -> SignedIn {
        self.sign_in(READER_TOKEN).await
    }

    async fn sign_in(&self, token: &str) -> SignedIn {
        let request = Request::post("/console/sign-in").body(Body::from(format!("token={token}")));
        let reply = self.send(request.unwrap()).await;
        assert_eq!(reply.status, StatusCode::SEE_OTHER, "{}", reply.body);
        let cookie = reply.headers.get(SET_COOKIE).unwrap().to_str().unwrap();
        SignedIn { cookie: cookie.split(';').next().unwrap().to_owned() }
    }

    pub async fn get(&self, operator: &SignedIn, path: &str) -> Reply {
        let request = Request::get(path).header(COOKIE, &operator.cookie);
        self.send(request.body(Body::empty()).unwrap()).await
    }

    /// Gets a page again and again until its HTML contains a text. For pages that compare two texts word by word: the
    /// comparison becomes coarse if it exceeds its time limit.
    pub async fn get_until(&self, operator: &SignedIn, path: &str, html: &str) -> Reply {
        let begun = Instant::now();
        loop {
            let page = self.get(operator, path).await;
            if page.body.contains(html) {
                return page;
            }
            assert!(begun.elapsed() < DEADLINE, "{html:?} is not in {}", page.body);
        }
    }

    /// Sends a form with the operator's form token.
    pub async fn post(&self, operator: &SignedIn, path: &str, fields: &[(&str, &str)]) -> Reply {
        self.post_accepting(operator, path, fields, "text/html").await
    }

    /// Sends a form as [`Self::post`] does, with `accepted` as the content type that the response should have.
    pub async fn post_accepting(
        &self,
        operator: &SignedIn,
        path: &str,
        fields: &[(&str, &str)],
        accepted: &str,
    ) -> Reply {
        let page = self.get(operator, "/console/events").await;
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("form_token", &page.hidden("form_token"));
        let form = form.extend_pairs(fields).finish();
        let request = Request::post(path)
            .header(COOKIE, &operator.cookie)
            .header("content-type", "application/x-www-form-urlencoded")
            .header("accept", accepted);
        self.send(request.body(Body::from(form)).unwrap()).await
    }

    pub async fn send(&self, mut request: Request<Body>) -> Reply {
        request.headers_mut().insert(HOST, "localhost".parse().unwrap());
        let (head, body) =
            timeout(DEADLINE, self.console.clone().oneshot(request)).await.unwrap().unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Reply { status: head.status, headers: head.headers, body: String::from_utf8(body.to_vec()).unwrap() }
    }

    /// Appends an event at the end of its stream.
    pub async fn append(&self, stream: StreamId, event: impl Into<Event>) -> Position {
        let event: Event = event.into();
        self.append_raw(&stream.to_string(), event.event_type(), event.schema_version(), event.payload())
            .await
    }

    /// Appends an event of a type that no program knows.
    pub async fn append_unknown(&self, stream: StreamId) -> Position {
        let data = "{\"message_number\":1}".to_owned();
        self.append_raw(&stream.to_string(), "MessagePinned", SchemaVersion::FIRST, data).await
    }

    /// Appends an event of a schema version that no program knows.
    pub async fn append_of_later_version(
        &self,
        stream: StreamId,
        event_type: &'static str,
        data: &str,
    ) -> Position {
        self.append_raw(&stream.to_string(), event_type, SchemaVersion(99), data.to_owned()).await
    }

    async fn append_raw(
        &self,
        stream: &str,
        event_type: &'static str,
        schema_version: SchemaVersion,
        data: String,
    ) -> Position {
        let last = self.log.read_stream(StreamRead::last_event(stream)).await.unwrap().pop();
        let event = NewEvent {
            id: EventId::new(Uuid::new_v4()),
            event_type,
            schema_version,
            recorded_at: Timestamp::from_millis(1_790_000_000_007),
            data,
            metadata: "{}".into(),
        };
        let append = StreamAppend {
            stream: stream.into(),
            expected_revision: ExpectedRevision::from_last_revision(last.map(|event| event.revision)),
            events: vec![event],
        };
        self.log.append(vec![append]).await.remove(0).unwrap().position
    }

    /// Records an action of the operator `nadia`.
    pub async fn act(&self, action: impl Into<OperatorAction>) -> Position {
        let operator = Operator { name: "nadia".to_owned(), program: "chat-api/9".to_owned(), job: None };
        record_action(&*self.log, &operator, &action.into()).await.unwrap().position
    }

    /// Changes one row of the read model's first generation by SQL, without the projector.
    pub fn alter_read_model(&self, statement: &str) {
        let file = rusqlite::Connection::open(self.folder.path().join("read-model.db")).unwrap();
        assert_eq!(file.execute(statement, []).unwrap(), 1);
    }

    /// Waits until the projectors have reached a position.
    pub async fn wait_until_projected(&self, position: Position) {
        for mut status in self.supervisor.statuses_of_generations_in_use() {
            let reached = status.wait_for(|status| status.position >= position);
            timeout(DEADLINE, reached).await.unwrap().unwrap();
        }
    }

    /// Appends an app, and a chat with two messages and an event of an unknown type between them. Returns the position
    /// of the event of the unknown type.
    pub async fn with_dead_letter(&self) -> Position {
        self.append(app_stream(), app_created("Helpdesk")).await;
        self.append(app_stream(), ChatCreated { chat_number: ChatNumber::FIRST }).await;
        self.append(chat_stream(), message_created(1, "before")).await;
        let unknown = self.append_unknown(chat_stream()).await;
        let last = self.append(chat_stream(), message_created(2, "behind it")).await;
        self.wait_until_projected(last).await;
        unknown
    }
}

fn access() -> AdminAccess {
    let hash = TokenHash::from_token(READER_TOKEN.as_bytes());
    let list = OperatorList::parse(&format!("sam read {hash}")).unwrap();
    AdminAccess::Operators(Operators {
        admin_token: Some(AdminToken::parse(ADMIN_TOKEN).unwrap()),
        listed: watch::channel(list).1,
    })
}

/// The token of the app of [`app_stream`]. Pages must not show it.
pub fn token() -> AppToken {
    AppToken::parse(&"k".repeat(36)).unwrap()
}

/// The stream of the app with the token [`token`].
pub fn app_stream() -> StreamId {
    StreamId::App(token())
}

/// The stream of the app's first chat.
pub fn chat_stream() -> StreamId {
    StreamId::Chat(token(), ChatNumber::FIRST)
}

pub fn app_created(name: &str) -> Event {
    AppCreated { name: AppName::parse(name.to_owned()).unwrap() }.into()
}

/// The creation of a message that has neither a sender nor data.
pub fn message_created(number: u64, body: &str) -> Event {
    let body = MessageBody::parse(body.to_owned()).unwrap();
    let message_number = MessageNumber::try_from(number).unwrap();
    MessageCreated { message_number, body, sender: None, data: None }.into()
}
