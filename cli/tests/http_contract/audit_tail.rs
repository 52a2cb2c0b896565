//! The audit tail: the log as server-sent events.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::audit::AUDIT;
use crate::contract::{Contract, assert_problem};

/// The time limit for an event.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A stream of server-sent events.
struct Stream {
    lines: BufReader<TcpStream>,
}

impl Stream {
    fn open(contract: &Contract, query: &str, last_event_id: Option<&str>) -> Self {
        let url = contract.client().url_of(&format!("{AUDIT}/tail?{query}"));
        let (address, path) =
            url.strip_prefix("http://").and_then(|rest| rest.split_once('/')).expect("a URL");
        let mut connection = TcpStream::connect(address).expect("a connection");
        connection.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
        let resume_header = last_event_id.map_or_else(String::new, |id| format!("Last-Event-ID: {id}\r\n"));
        write!(connection, "GET /{path} HTTP/1.1\r\nHost: {address}\r\n{resume_header}\r\n")
            .expect("a request");
        let mut stream = Self { lines: BufReader::new(connection) };
        let head: Vec<String> =
            std::iter::from_fn(|| stream.line().filter(|line| !line.is_empty())).collect();
        assert!(head[0].contains("200"), "{head:?}");
        let stream_type = "content-type: text/event-stream";
        assert!(head.iter().any(|line| line.eq_ignore_ascii_case(stream_type)), "{head:?}");
        stream
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.lines.read_line(&mut line).expect("a line");
        (read > 0).then(|| line.trim_end().to_owned())
    }

    /// Reads the next event: its id and its data. `None` at the end of the stream.
    fn next(&mut self) -> Option<(String, Value)> {
        let (mut id, mut data) = (None, None);
        loop {
            let line = self.line()?;
            // Skips the lengths of HTTP chunks, and comments, which begin with a colon.
            if let Some(found) = line.strip_prefix("id: ") {
                id = Some(found.to_owned());
            } else if let Some(found) = line.strip_prefix("data: ") {
                data = Some(serde_json::from_str(found).expect("JSON"));
            }
            if let (Some(id), Some(data)) = (&id, &data) {
                return Some((id.clone(), Value::clone(data)));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_streams_new_events_and_resumes_after_a_disconnect() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    let query = format!("app={token}&type=MessageCreated");
    let mut tail = Stream::open(&contract, &query, None);
    contract.message(&token, "one").await;
    let (first, event) = tail.next().expect("an event");
    assert_eq!((&event["data"]["body"], event["position"].to_string()), (&"one".into(), first.clone()));
    drop(tail);

    contract.message(&token, "two").await;
    contract.message(&token, "three").await;
    let mut tail = Stream::open(&contract, &query, Some(&first));
    let bodies = |count: usize, tail: &mut Stream| -> Vec<Value> {
        (0..count).map(|_| tail.next().expect("an event").1["data"]["body"].clone()).collect()
    };
    assert_eq!(bodies(2, &mut tail), ["two", "three"]);
    contract.message(&token, "four").await;
    assert_eq!(bodies(1, &mut tail), ["four"]);

    let mut tail = Stream::open(&contract, &format!("{query}&last=2"), None);
    assert_eq!(bodies(2, &mut tail), ["three", "four"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_is_not_cut_by_the_deadline_of_requests() {
    let contract = Contract::start_with(|options| options.with("--request-timeout", "1")).await;
    let token = contract.app_with_chat().await;
    let mut tail = Stream::open(&contract, &format!("app={token}"), None);
    // The body of this request never arrives, so the request is answered at the deadline. If the deadline applied to
    // the tail, the tail would have been cut by then.
    let url = contract.client().url_of(&format!("/api/v1/apps/{token}/messages/search"));
    let (address, path) = url.strip_prefix("http://").and_then(|rest| rest.split_once('/')).expect("a URL");
    let mut unfinished = TcpStream::connect(address).expect("a connection");
    unfinished.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
    let head = format!("POST /{path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n");
    write!(unfinished, "{head}Content-Length: 20\r\n\r\n").expect("a request");
    let mut status = String::new();
    BufReader::new(unfinished).read_line(&mut status).expect("an answer");
    assert!(status.starts_with("HTTP/1.1 503"), "{status}");
    contract.message(&token, "still here").await;
    assert_eq!(tail.next().expect("an event").1["data"]["body"], "still here");
}

#[tokio::test(flavor = "multi_thread")]
async fn tails_end_when_the_process_stops() {
    // If the stop did not end the tail, it would be cut after 120 seconds, which is longer than this test waits.
    let contract = Contract::start_with(|options| options.with("--drain-timeout", "120")).await;
    let mut tail = Stream::open(&contract, "", None);
    contract.terminate_all();
    let (ended, end) = mpsc::channel();
    thread::spawn(move || ended.send(tail.next()));
    assert_eq!(end.recv_timeout(TIMEOUT), Ok(None), "it does not end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_over_the_limit_is_refused() {
    let contract = Contract::start().await;
    let mut tails: Vec<Stream> = (0..64).map(|_| Stream::open(&contract, "", None)).collect();
    let refused = contract.client().get(format!("{AUDIT}/tail")).send().await;
    assert_problem(&refused, 503, "overloaded");
    tails.pop();
    crate::harness::deadline::eventually("another tail is accepted", async || {
        let url = contract.client().url_of(&format!("{AUDIT}/tail"));
        let address = url.strip_prefix("http://")?.split('/').next()?.to_owned();
        let mut connection = TcpStream::connect(address).ok()?;
        connection.set_read_timeout(Some(TIMEOUT)).ok()?;
        write!(connection, "GET {AUDIT}/tail HTTP/1.1\r\nHost: localhost\r\n\r\n").ok()?;
        let mut line = String::new();
        BufReader::new(connection).read_line(&mut line).ok()?;
        line.contains("200").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_last_event_id_is_refused() {
    let contract = Contract::start().await;
    let resumed = contract.client().get(format!("{AUDIT}/tail")).header("last-event-id", "x");
    assert_problem(&contract.send(resumed).await, 400, "malformed_header");
}
