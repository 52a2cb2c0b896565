//! An HTTP endpoint that records requests and gives prepared responses.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Collected, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// The parts of a request that tests check.
#[derive(Clone, Debug)]
pub struct Received {
    pub idempotency_key: String,
    pub authorization: String,
    pub content_type: String,
    pub body: String,
}

#[derive(Debug, Default)]
struct State {
    /// The responses that were not given yet.
    answers: VecDeque<String>,
    requests: Vec<Received>,
}

/// The endpoint, which stops with the test's runtime.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Receiver {
    /// Starts an endpoint that answers with these responses in order, and then with 200. A response is a status, or a
    /// status and one header, as in `429 Retry-After: 0`.
    pub async fn start(answers: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let answers = answers.iter().map(|answer| (*answer).to_owned()).collect();
        let state = Arc::new(Mutex::new(State { answers, requests: Vec::new() }));
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                let service = service_fn(move |request| answer(Arc::clone(&state), request));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), service));
            }
        });
        Self { address, state }
    }

    /// Returns the URL.
    pub fn url(&self) -> String {
        format!("http://{}/events", self.address)
    }

    /// Returns the received requests.
    pub fn requests(&self) -> Vec<Received> {
        lock(&self.state).requests.clone()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answer(
    state: Arc<Mutex<State>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(Collected::to_bytes).unwrap_or_default();
    let header = |headers: &HeaderMap, name| {
        headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    let mut state = lock(&state);
    state.requests.push(Received {
        idempotency_key: header(&head.headers, "idempotency-key"),
        authorization: header(&head.headers, "authorization"),
        content_type: header(&head.headers, "content-type"),
        body: String::from_utf8(body.to_vec()).expect("text"),
    });
    let answer = state.answers.pop_front().unwrap_or_else(|| "200".to_owned());
    let (status, header_line) = answer.split_once(' ').unwrap_or((&answer, ""));
    let mut response = Response::builder().status(status);
    if let Some((name, value)) = header_line.split_once(": ") {
        response = response.header(name, value);
    }
    Ok(response.body(Full::new(Bytes::from("said the receiver"))).expect("an answer"))
}
