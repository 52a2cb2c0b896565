//! The audit tail: the log as server-sent events.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::thread;

use serde_json::Value;

use crate::audit::AUDIT;
use crate::contract::{Contract, assert_problem};
use crate::event_stream::{EventStream, TIMEOUT};

fn open(contract: &Contract, query: &str, last_event_id: Option<&str>) -> EventStream {
    let headers: Vec<_> = last_event_id.map(|id| ("Last-Event-ID", id)).into_iter().collect();
    EventStream::open(&contract.client().url_of(&format!("{AUDIT}/tail?{query}")), &headers)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_streams_new_events_and_resumes_after_a_disconnect() {
    let contract = Contract::start().await;
    let token = contract.app_with_chat().await;
    let query = format!("app={token}&type=MessageCreated");
    let mut tail = open(&contract, &query, None);
    contract.message(&token, "one").await;
    let (first, event) = tail.next().expect("an event");
    assert_eq!((&event["data"]["body"], event["position"].to_string()), (&"one".into(), first.clone()));
    drop(tail);

    contract.message(&token, "two").await;
    contract.message(&token, "three").await;
    let mut tail = open(&contract, &query, Some(&first));
    let next_bodies = |count: usize, tail: &mut EventStream| -> Vec<Value> {
        (0..count).map(|_| tail.next().expect("an event").1["data"]["body"].clone()).collect()
    };
    assert_eq!(next_bodies(2, &mut tail), ["two", "three"]);
    contract.message(&token, "four").await;
    assert_eq!(next_bodies(1, &mut tail), ["four"]);

    let mut tail = open(&contract, &format!("{query}&last=2"), None);
    assert_eq!(next_bodies(2, &mut tail), ["three", "four"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_is_not_cut_by_the_deadline_of_requests() {
    // A busy machine answers the commands of this test within 5 seconds. A body that does not arrive times out after 10
    // seconds, so the deadline comes first.
    let contract = Contract::start_with(|options| options.with("--request-timeout", "5")).await;
    let token = contract.app_with_chat().await;
    let mut tail = open(&contract, &format!("app={token}"), None);
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
    // If the stop did not end the tail, the drain timeout would, after 120 seconds. This test waits for a shorter time.
    let contract = Contract::start_with(|options| options.with("--drain-timeout", "120")).await;
    let mut tail = open(&contract, "", None);
    contract.terminate_all();
    let (ended, end) = mpsc::channel();
    thread::spawn(move || ended.send(tail.next()));
    assert_eq!(end.recv_timeout(TIMEOUT), Ok(None), "the tail did not end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_over_the_limit_is_refused() {
    /// The number of tails that one process serves at the same time.
    const MAX_CONCURRENT_TAILS: usize = 64;
    let contract = Contract::start().await;
    let mut tails: Vec<EventStream> = (0..MAX_CONCURRENT_TAILS).map(|_| open(&contract, "", None)).collect();
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
