//! The middleware around every route, and the system routes.

#![expect(clippy::unwrap_used, reason = "test helpers")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::routing::{get, post};
use chat_web::extract::JsonBody;
use chat_web::http_limits::HttpLimits;
use chat_web::metrics::Metrics;
use chat_web::router::{ApiRoutes, ApiSet, HttpOptions, build_router, build_starting_router};
use chat_web::system_routes::{Part, Projection, Readiness, Status, SystemServices};
use chat_web::{ErrorCode, Problem};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::sync::mpsc;
use tower::ServiceExt;
use utoipa_axum::router::OpenApiRouter;

/// Reports a read model with a configurable status: 0 ok, 1 degraded, 2 down.
#[derive(Default)]
struct StubReadiness(AtomicU8);

#[async_trait]
impl Readiness for StubReadiness {
    async fn parts(&self) -> Vec<Part> {
        let status =
            [Status::Ok, Status::Degraded, Status::Down][usize::from(self.0.load(Ordering::Relaxed))];
        let event_store =
            Part { name: "event_store".to_owned(), status: Status::Ok, reason: None, projection: None };
        let projection = Projection {
            state: "live".to_owned(),
            position: 7,
            lag_events: Some(0),
            lag_ms: 0,
            pending_dead_letters: 1,
            discarded: 0,
            last_error: None,
        };
        let reason = (status != Status::Ok).then(|| "1 dead letter".to_owned());
        vec![
            event_store,
            Part { name: "read_model".to_owned(), status, reason, projection: Some(projection) },
        ]
    }
}

struct TestServer {
    app: Router,
    readiness: Arc<StubReadiness>,
    /// Receives a message when a request has reached the handler of `/hangs`.
    arrived: mpsc::Receiver<()>,
}

#[derive(serde::Deserialize)]
struct Anything {}

async fn panics() -> &'static str {
    panic!("secret reason")
}

fn start(options: &HttpOptions) -> TestServer {
    let (arrive, arrived) = mpsc::channel(10);
    let routes = OpenApiRouter::new()
        .route("/api/v1/fine", get(async || "fine"))
        .route("/api/v1/panics", get(panics))
        .route("/api/v1/fails", get(async || Problem::internal("secret cause")))
        .route("/api/v1/bare", get(async || StatusCode::IM_A_TEAPOT))
        .route("/api/v1/takes", post(async |_: JsonBody<Anything>| "taken"))
        .route(
            "/api/v1/hangs",
            get(async move || {
                let _ = arrive.send(()).await;
                std::future::pending::<()>().await;
            }),
        );
    let readiness = Arc::new(StubReadiness::default());
    let system = SystemServices::new(Arc::clone(&readiness) as Arc<dyn Readiness>, Metrics::detached());
    TestServer {
        app: build_router(
            ApiSet { served: vec![ApiRoutes::commands(routes)], ..ApiSet::default() },
            system,
            options,
        ),
        readiness,
        arrived,
    }
}

struct Reply {
    status: u16,
    headers: HeaderMap,
    text: String,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    /// Checks that the reply is a problem, and returns its status and error code.
    fn problem(&self) -> (u16, String) {
        assert_eq!(self.headers["content-type"], "application/problem+json");
        let body = self.json();
        assert_eq!(body["status"], self.status);
        assert_eq!(body["request_id"], self.headers["x-request-id"].to_str().unwrap());
        (self.status, body["code"].as_str().unwrap().to_owned())
    }
}

async fn send(app: &Router, request: http::request::Builder, body: Body) -> Reply {
    let request = request.header("host", "localhost");
    let (head, body) = app.clone().oneshot(request.body(body).unwrap()).await.unwrap().into_parts();
    let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
    Reply { status: head.status.as_u16(), headers: head.headers, text }
}

async fn get_path(app: &Router, path: &str) -> Reply {
    send(app, Request::get(path), Body::empty()).await
}

/// The result of [`Reply::problem`] for this status and error code.
fn code(status: u16, code: ErrorCode) -> (u16, String) {
    (status, code.to_string())
}

#[tokio::test]
async fn every_error_is_a_problem_whichever_layer_it_comes_from() {
    let app = start(&HttpOptions::default()).app;
    let panicked = get_path(&app, "/api/v1/panics").await;
    assert_eq!(panicked.problem(), code(500, ErrorCode::Internal));
    let failed = get_path(&app, "/api/v1/fails").await;
    assert_eq!(failed.problem(), code(500, ErrorCode::Internal));
    assert!(!panicked.text.contains("secret") && !failed.text.contains("secret"));
    assert_eq!(get_path(&app, "/").await.problem(), code(404, ErrorCode::RouteNotFound));
    assert_eq!(get_path(&app, "/api/v1/nothing").await.problem(), code(404, ErrorCode::RouteNotFound));
    let wrong_method = send(&app, Request::delete("/api/v1/takes"), Body::empty()).await;
    assert_eq!(wrong_method.problem(), code(405, ErrorCode::MethodNotAllowed));
    assert_eq!(wrong_method.headers["allow"], "POST");
    let not_json = Request::post("/api/v1/takes").header("content-type", "text/plain");
    assert_eq!(
        send(&app, not_json, Body::from("{}")).await.problem(),
        code(415, ErrorCode::UnsupportedMediaType)
    );
    assert_eq!(get_path(&app, "/api/v1/bare").await.headers["content-type"], "application/problem+json");
}

#[tokio::test]
async fn rejects_only_bodies_over_the_limit() {
    let app = start(&HttpOptions { max_body_bytes: 100, ..HttpOptions::default() }).app;
    let body = |size: usize| Body::from(format!("{{{}}}", " ".repeat(size - 2)));
    let post = || Request::post("/api/v1/takes").header("content-type", "application/json");
    assert_eq!(send(&app, post(), body(100)).await.status, 200);
    let rejected = send(&app, post(), body(101)).await;
    assert_eq!(rejected.problem(), code(413, ErrorCode::PayloadTooLarge));
}

#[tokio::test]
async fn responses_carry_the_request_id() {
    let app = start(&HttpOptions::default()).app;
    let named = send(&app, Request::get("/api/v1/fine").header("x-request-id", "mine"), Body::empty()).await;
    assert_eq!(named.headers["x-request-id"], "mine");
    let unnamed = get_path(&app, "/api/v1/fine").await;
    assert_eq!(unnamed.headers["x-request-id"].len(), 36);
}

#[tokio::test]
async fn the_concurrency_limit_does_not_apply_to_health_checks() {
    let mut server =
        start(&HttpOptions { limits: HttpLimits::new(1, 1024 * 1024), ..HttpOptions::default() });
    let hanging = {
        let app = server.app.clone();
        tokio::spawn(async move { get_path(&app, "/api/v1/hangs").await })
    };
    server.arrived.recv().await.unwrap();
    let rejected = get_path(&server.app, "/api/v1/fine").await;
    assert_eq!(rejected.problem(), code(503, ErrorCode::Overloaded));
    assert_eq!(rejected.headers["retry-after"], "1");
    assert_eq!(get_path(&server.app, "/livez").await.status, 200);
    hanging.abort();
    assert!(hanging.await.is_err());
    assert_eq!(get_path(&server.app, "/api/v1/fine").await.status, 200);
}

#[tokio::test]
async fn a_command_that_misses_its_deadline_has_an_unknown_outcome() {
    let server = start(&HttpOptions { deadline: Duration::from_millis(10), ..HttpOptions::default() });
    let late = get_path(&server.app, "/api/v1/hangs").await;
    assert_eq!(late.problem(), code(503, ErrorCode::OutcomeUnknown));
}

#[tokio::test]
async fn readiness_is_the_worst_status_and_only_down_is_a_503() {
    let server = start(&HttpOptions::default());
    for (level, status, word) in [(0, 200, "ok"), (1, 200, "degraded"), (2, 503, "down")] {
        server.readiness.0.store(level, Ordering::Relaxed);
        for path in ["/readyz", "/health"] {
            let reply = get_path(&server.app, path).await;
            assert_eq!((reply.status, reply.json()["status"].as_str()), (status, Some(word)));
            assert_eq!(reply.headers["content-type"], "application/json");
            assert_eq!(reply.headers["cache-control"], "no-store");
            let part = &reply.json()["parts"][1];
            assert_eq!((&part["name"], &part["projection"]["parked"]), (&"read_model".into(), &1.into()));
            // The event store has no reason and no projection: only `name` and `status` are left.
            assert_eq!(reply.json()["parts"][0].as_object().unwrap().len(), 2);
        }
    }
    for path in ["/livez", "/up"] {
        assert_eq!(get_path(&server.app, path).await.json()["status"], "ok");
    }
}

#[tokio::test]
async fn only_system_routes_are_served_while_the_process_starts() {
    let system = SystemServices::new(Arc::new(StubReadiness::default()), Metrics::detached());
    let mut documented = OpenApiRouter::<()>::new().into_openapi();
    documented.paths.add_path_operation(
        "/api/v1/fine",
        vec![utoipa::openapi::HttpMethod::Get],
        utoipa::openapi::path::Operation::new(),
    );
    let app = build_starting_router(|| vec![documented], system, &HttpOptions::default());
    for path in
        ["/docs", "/docs/errors", "/docs/errors/overloaded", "/docs/assets/pages.css", "/livez", "/metrics"]
    {
        assert_eq!(get_path(&app, path).await.status, 200, "{path}");
    }
    let document = get_path(&app, "/openapi.json").await.json();
    for path in ["/api/v1/fine", "/livez"] {
        assert!(document["paths"].get(path).is_some(), "{path}");
    }
    let browser = send(&app, Request::get("/").header("accept", "text/html"), Body::empty()).await;
    assert_eq!((browser.status, &browser.headers["location"]), (307, &"/docs".parse().unwrap()));
    for path in ["/api/v1/fine", "/api/v1/nothing"] {
        let early = get_path(&app, path).await;
        assert_eq!(early.problem(), code(503, ErrorCode::EventStoreUnavailable), "{path}");
    }
}

#[tokio::test]
async fn every_operation_documents_the_problems_of_malformed_requests() {
    let app = start(&HttpOptions::default()).app;
    let document = get_path(&app, "/openapi.json").await.json();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let has = |status: &str, code: &str| {
                let reference = operation["responses"][status]["$ref"].as_str().expect("a reference");
                let response = document.pointer(reference.trim_start_matches('#')).expect("the response");
                response["content"]["application/problem+json"]["examples"].get(code).is_some()
            };
            assert!(has("400", "malformed_request") && has("400", "malformed_header"), "{method} {path}");
            assert!(has("400", "host_invalid") && has("403", "origin_refused"), "{method} {path}");
            assert!(has("431", "head_too_large"), "{method} {path}");
        }
    }
}

#[tokio::test]
async fn pages_may_load_nothing_from_other_servers() {
    let app = start(&HttpOptions::default()).app;
    for path in ["/docs", "/docs/errors/app_not_found"] {
        let page = get_path(&app, path).await;
        assert_eq!(page.status, 200);
        assert_eq!(page.headers["x-content-type-options"], "nosniff");
        assert!(page.headers["content-security-policy"].to_str().unwrap().starts_with("default-src 'none'"));
        assert!(!page.text.contains("http://") && !page.text.contains("https://"));
    }
    let unknown = get_path(&app, "/docs/errors/no_such_code").await;
    assert_eq!(unknown.problem(), code(404, ErrorCode::RouteNotFound));
    assert_eq!(get_path(&app, "/docs/assets/nothing.js").await.status, 404);
    assert_eq!(get_path(&app, "/docs/assets/swagger-ui-bundle.js").await.status, 200);
}

#[tokio::test]
async fn metrics_are_labelled_with_the_route_and_never_the_path() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let app = start(&HttpOptions::default()).app;
    get_path(&app, "/docs/errors/internal").await;
    get_path(&app, "/api/v1/apps/a-secret").await;
    let text = handle.render();
    assert!(
        text.contains(
            "chat_http_requests_total{method=\"GET\",route=\"/docs/errors/{code}\",status=\"200\"} 1"
        )
    );
    assert!(text.contains("route=\"(none)\",status=\"404\""), "{text}");
    assert!(!text.contains("a-secret"));
}

#[tokio::test]
async fn a_route_of_another_role_is_not_found_and_its_role_is_named() {
    let document = |path| {
        let operation = utoipa::openapi::path::OperationBuilder::new();
        let item = utoipa::openapi::PathItem::new(utoipa::openapi::HttpMethod::Get, operation);
        let paths = utoipa::openapi::PathsBuilder::new().path(path, item).build();
        utoipa::openapi::OpenApiBuilder::new().paths(paths).build()
    };
    let of_other_roles = vec![document("/api/v1/read"), document("/admin/v1/jobs")];
    let routes = OpenApiRouter::new()
        .route("/api/v1/missing", get(async || Problem::from_code(ErrorCode::AppNotFound)));
    let served = vec![ApiRoutes::commands(routes)];
    let system = SystemServices::new(Arc::<StubReadiness>::default(), Metrics::detached());
    let app =
        build_router(ApiSet { served, of_other_roles, ..ApiSet::default() }, system, &HttpOptions::default());
    for (path, detail) in [
        ("/admin/v1/jobs", "this address does not serve the admin API: `serve` and `query-api` serve it"),
        ("/api/v1/read", "this address does not serve this route: `serve` and `query-api` do"),
        ("/api/v1/nothing", "nothing is served at this path"),
    ] {
        let reply = get_path(&app, path).await;
        assert_eq!(reply.problem(), code(404, ErrorCode::RouteNotFound), "{path}");
        let shown = reply.json()["detail"].as_str().unwrap().to_owned();
        assert!(shown.starts_with(detail), "{path}: {shown}");
    }
    assert_eq!(get_path(&app, "/api/v1/missing").await.problem(), code(404, ErrorCode::AppNotFound));
}
