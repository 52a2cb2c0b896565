//! Whether an HTTP/1 connection goes on or ends after a request that was answered before its body was read.

use chat_web::host_policy::{AllowedHosts, HostPolicy};
use futures::future::join_all;
use tokio::time::{Instant, sleep};

use super::*;

const BODY: &str = r#"{"text":"abc"}"#;
const LIVEZ: &str = "GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n";
const APP: &str = "9vFRRV7QaTDRcVtWjbSMWCQGQnHJAZKBPXyT";

/// How long the server waits for the rest of a body.
const REST_TIMEOUT: Duration = Duration::from_secs(1);
/// The number of attempts to send a body within [`REST_TIMEOUT`]: a machine may stall for longer.
const ATTEMPTS: usize = 5;

/// A request that is answered before its body is read.
struct RequestWithUnreadBody {
    server: Arc<TestServer>,
    method: &'static str,
    path: String,
    headers: &'static str,
    /// The status of the answer.
    status: u16,
}

/// How the length of a body is declared.
#[derive(Clone, Copy, Debug)]
enum Framing {
    Length,
    Chunks,
}

impl RequestWithUnreadBody {
    /// The head of the request, with these headers about the body.
    fn head(&self, body_headers: &str) -> String {
        let Self { method, path, headers, .. } = self;
        let host = if headers.contains("host: ") { "" } else { "host: localhost\r\n" };
        format!("{method} {path} HTTP/1.1\r\n{host}{headers}{body_headers}\r\n")
    }

    /// The head and the body of the request.
    fn framed(&self, framing: Framing) -> (String, Vec<u8>) {
        match framing {
            Framing::Length => (self.head(&format!("content-length: {}\r\n", BODY.len())), BODY.into()),
            Framing::Chunks => (self.head("transfer-encoding: chunked\r\n"), chunked(BODY.as_bytes())),
        }
    }

    /// Whether the answer depends on the head alone. The size of a chunked body is known only from its chunks.
    fn is_answered_from_head(&self, framing: Framing) -> bool {
        self.status != 413 || matches!(framing, Framing::Length)
    }

    fn name(&self) -> String {
        format!("{} {} {}", self.method, self.path, self.headers)
    }

    /// Sends the parts of the request with a pause between them, receives the answer, and then sends another request on
    /// the same connection.
    async fn assert_connection_goes_on(&self, parts: &[&[u8]]) {
        let name = self.name();
        for _ in 0..ATTEMPTS {
            let begun = Instant::now();
            let mut stream = self.server.connect().await;
            for (index, part) in parts.iter().enumerate() {
                if index > 0 {
                    // The delay is what the test is about.
                    sleep(Duration::from_millis(50)).await;
                }
                stream.write_all(part).await.unwrap();
            }
            let answer = receive(&mut stream, self.method).await;
            if may_have_timed_out(&answer, begun) {
                continue;
            }
            assert_eq!((answer.status, answer.header("connection")), (self.status, None), "{name}");
            stream.write_all(LIVEZ.as_bytes()).await.unwrap();
            assert_eq!(receive(&mut stream, "GET").await.status, 200, "the request after {name}");
            return;
        }
        panic!("the connection ended in each of {ATTEMPTS} attempts, after {REST_TIMEOUT:?} or more: {name}");
    }

    /// Receives the answer and the end of the connection that it announces.
    async fn assert_connection_ends(&self, mut stream: TcpStream) {
        let answer = read_to_end(&mut stream).await;
        assert_eq!(
            (answer.status, answer.header("connection")),
            (self.status, Some("close")),
            "{}: {answer:?}",
            self.name()
        );
    }
}

/// Whether the server ended a connection, and may have done so because the test sent the rest of the body too late.
fn may_have_timed_out(answer: &Response, begun: Instant) -> bool {
    answer.header("connection").is_some() && begun.elapsed() >= REST_TIMEOUT
}

/// Reads one response.
async fn receive(stream: &mut TcpStream, method: &str) -> Response {
    let mut received = Vec::new();
    while !received.ends_with(b"\r\n\r\n") {
        let byte = timeout(DEADLINE, stream.read_u8()).await.unwrap();
        received.push(byte.unwrap_or_else(|error| panic!("no response: {error}")));
    }
    let mut response = Response::parse(&received);
    let length = response.header("content-length").filter(|_| method != "HEAD");
    response.body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    timeout(DEADLINE, stream.read_exact(&mut response.body)).await.unwrap().unwrap();
    response
}

async fn requests_with_unread_bodies() -> Vec<RequestWithUnreadBody> {
    let open = Arc::new(start().await);
    let loopback = Arc::new(
        start_with(HttpOptions {
            host_policy: HostPolicy::LoopbackAnd(AllowedHosts::default()),
            cors: Some("https://chat.example".parse().unwrap()),
            ..HttpOptions::default()
        })
        .await,
    );
    let small_bodies =
        Arc::new(start_with(HttpOptions { max_body_bytes: 10, ..HttpOptions::default() }).await);
    let overloaded = HttpLimits::new(0, HttpLimits::DEFAULT_MEMORY_BYTES);
    let overloaded = Arc::new(start_with(HttpOptions { limits: overloaded, ..HttpOptions::default() }).await);
    let rate_limit = Some("1/h".parse().unwrap());
    let rate_limited = Arc::new(start_with(HttpOptions { rate_limit, ..HttpOptions::default() }).await);
    // Uses up the allowance of one request an hour.
    let first_request = format!("POST {API}/apps/{APP} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    assert_eq!(rate_limited.send_text(&first_request).await.status, 200);
    let json = "content-type: application/json\r\n";
    let preflight = "origin: https://chat.example\r\naccess-control-request-method: PUT\r\n";
    let request = |server: &Arc<TestServer>, method, path: &str, headers, status| RequestWithUnreadBody {
        server: Arc::clone(server),
        method,
        path: path.to_owned(),
        headers,
        status,
    };
    let app = format!("{API}/apps/{APP}");
    let api = |path: &str| format!("{API}{path}");
    vec![
        request(&open, "POST", &api("/nowhere"), json, 404),
        request(&open, "POST", &api("/apps/None"), json, 404),
        request(&open, "POST", &app, json, 200),
        request(&open, "POST", &api("/operators"), json, 401),
        request(&open, "POST", &api("/operators"), "authorization: Bearer wrong\r\n", 403),
        request(&open, "PUT", &api("/length"), json, 405),
        request(&open, "POST", &api("/length"), "content-type: text/plain\r\n", 415),
        request(
            &open,
            "POST",
            &api("/length"),
            "content-type: application/json\r\ncontent-encoding: br\r\n",
            415,
        ),
        request(&open, "POST", &api("/query"), json, 400),
        request(&open, "POST", &api("/length"), "last-event-id: 1\r\nlast-event-id: 2\r\n", 400),
        request(&open, "POST", &api("/length"), "host: a b\r\n", 400),
        request(&open, "GET", &api("/small"), "", 200),
        request(&open, "HEAD", &api("/small"), "", 200),
        request(&open, "GET", &api("/empty"), "", 204),
        request(&open, "GET", "/", "accept: text/html\r\n", 307),
        request(&open, "DELETE", &api("/small"), "", 405),
        request(&loopback, "POST", &api("/length"), "host: evil.example\r\n", 403),
        request(&loopback, "OPTIONS", &api("/length"), preflight, 200),
        request(&small_bodies, "POST", &api("/length"), json, 413),
        request(&rate_limited, "POST", &app, json, 429),
        request(&overloaded, "POST", &api("/length"), json, 503),
        request(&overloaded, "GET", &api("/small"), "", 503),
    ]
}

/// Runs a check for each request and framing, all at the same time.
async fn for_each_request(check: impl AsyncFn(&RequestWithUnreadBody, Framing)) {
    let requests = requests_with_unread_bodies().await;
    let check = &check;
    let checks = requests.iter().flat_map(|request| {
        [Framing::Length, Framing::Chunks].map(|framing| async move { check(request, framing).await })
    });
    join_all(checks).await;
}

#[tokio::test]
async fn a_connection_goes_on_if_the_unread_body_came_with_the_head() {
    for_each_request(async |request, framing| {
        let (head, body) = request.framed(framing);
        request.assert_connection_goes_on(&[&[head.as_bytes(), &body].concat()]).await;
    })
    .await;
}

#[tokio::test]
async fn a_connection_goes_on_if_the_unread_body_comes_later_than_the_head() {
    for_each_request(async |request, framing| {
        let (head, body) = request.framed(framing);
        request.assert_connection_goes_on(&[head.as_bytes(), &body]).await;
    })
    .await;
}

#[tokio::test]
async fn a_connection_ends_with_its_response_if_the_unread_body_does_not_come() {
    for_each_request(async |request, framing| {
        if !request.is_answered_from_head(framing) {
            return;
        }
        let (head, body) = request.framed(framing);
        for body in [&body[..0], &body[..body.len() / 2]] {
            let mut stream = request.server.connect().await;
            stream.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
            request.assert_connection_ends(stream).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_that_waits_for_100_continue_is_not_asked_for_a_body_that_is_not_read() {
    for_each_request(async |request, framing| {
        if !request.is_answered_from_head(framing) {
            return;
        }
        let framing = match framing {
            Framing::Length => format!("content-length: {}\r\n", BODY.len()),
            Framing::Chunks => "transfer-encoding: chunked\r\n".to_owned(),
        };
        let head = request.head(&format!("{framing}expect: 100-continue\r\n"));
        let mut stream = request.server.connect().await;
        stream.write_all(head.as_bytes()).await.unwrap();
        request.assert_connection_ends(stream).await;
    })
    .await;
}

#[tokio::test]
async fn a_connection_ends_with_its_response_if_the_unread_body_is_large() {
    let body = message(100_000);
    for_each_request(async |request, framing| {
        let (head, body) = match framing {
            Framing::Length => (request.head(&format!("content-length: {}\r\n", body.len())), body.clone()),
            Framing::Chunks => (request.head("transfer-encoding: chunked\r\n"), chunked(&body)),
        };
        let mut stream = request.server.connect().await;
        stream.write_all(&[head.as_bytes(), &body].concat()).await.unwrap();
        request.assert_connection_ends(stream).await;
    })
    .await;
}

#[tokio::test]
async fn a_connection_goes_on_after_an_unread_body_of_exactly_64_kib() {
    let server = start().await;
    let head = format!("POST {API}/nowhere HTTP/1.1\r\nhost: x\r\ncontent-length: 65536\r\n\r\n");
    let request = [head.as_bytes(), &vec![b'x'; 65_536]].concat();
    'attempts: for _ in 0..ATTEMPTS {
        let mut stream = server.connect().await;
        for _ in 0..3 {
            let begun = Instant::now();
            stream.write_all(&request).await.unwrap();
            let response = receive(&mut stream, "POST").await;
            if may_have_timed_out(&response, begun) {
                continue 'attempts;
            }
            assert_eq!((response.status, response.header("connection")), (404, None));
        }
        return;
    }
    panic!("the connection ended in each of {ATTEMPTS} attempts, after {REST_TIMEOUT:?} or more");
}

#[tokio::test]
async fn a_refusal_that_waits_for_an_unread_body_holds_no_slot() {
    let limits = HttpLimits::new(1, HttpLimits::DEFAULT_MEMORY_BYTES);
    let server = start_with(HttpOptions { limits, ..HttpOptions::default() }).await;
    let mut refused = Vec::new();
    for _ in 0..20 {
        let mut stream = server.connect().await;
        let head = format!(
            "POST {API}/length HTTP/1.1\r\nhost: x\r\ncontent-type: text/plain\r\ncontent-length: 14\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        refused.push(stream);
        let get = format!("GET {API}/small HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        assert_eq!(server.send_text(&get).await.status, 200);
    }
    for mut stream in refused {
        assert_eq!(read_to_end(&mut stream).await.status, 415);
    }
}
