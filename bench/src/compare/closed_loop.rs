//! A closed-loop load: each connection sends its next request when the previous one is answered.
//!
//! The generator and the server share the same cores, so the generator does as little as possible: it parses only the
//! status and the length of a response, and where rates are compared, bodies are encoded before the load.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Barrier;
use tokio::time::timeout;

use super::raw_http::{RESPONSE_TIMEOUT, ResponseHead};

/// A source of encoded requests.
pub trait RequestSource: Send + Sync + 'static {
    /// Appends the `nth` request of the load, from 0, to the buffer. Returns `false` if there are no more requests.
    fn write(&self, nth: u64, request: &mut Vec<u8>) -> bool;
}

/// The outcome of a load.
#[derive(Clone, Copy, Debug)]
pub struct LoadOutcome {
    /// The number of responses with the expected status.
    pub succeeded: u64,
    /// The number of other responses.
    pub refused: u64,
    /// The time from the first request to the last response.
    pub duration: Duration,
}

impl LoadOutcome {
    /// Returns the number of responses with the expected status per second.
    pub fn rate(&self) -> f64 {
        self.succeeded as f64 / self.duration.as_secs_f64()
    }
}

/// Sends the requests of a source over keep-alive connections, each with one request at a time, until the time is over
/// or the source ends.
pub async fn run_closed_loop(
    address: &str,
    expected_status: u16,
    connections: usize,
    duration: Duration,
    source: Arc<dyn RequestSource>,
) -> io::Result<LoadOutcome> {
    let start = Arc::new(Barrier::new(connections + 1));
    let next = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::new();
    for _ in 0..connections {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (next, source) = (Arc::clone(&next), Arc::clone(&source));
        let connection = LoadConnection { stream, expected_status, duration, next, source };
        tasks.push(tokio::spawn(connection.run(Arc::clone(&start))));
    }
    start.wait().await;
    let start_time = Instant::now();
    let mut outcome = LoadOutcome { succeeded: 0, refused: 0, duration: Duration::ZERO };
    for task in tasks {
        let (succeeded, refused) = task.await.map_err(io::Error::other)??;
        outcome.succeeded += succeeded;
        outcome.refused += refused;
    }
    outcome.duration = start_time.elapsed();
    Ok(outcome)
}

struct LoadConnection {
    stream: TcpStream,
    expected_status: u16,
    duration: Duration,
    next: Arc<AtomicU64>,
    source: Arc<dyn RequestSource>,
}

impl LoadConnection {
    /// Sends requests until the time is over or the source ends. Returns the number of responses with the expected
    /// status, and the number of other responses.
    async fn run(mut self, start: Arc<Barrier>) -> io::Result<(u64, u64)> {
        let (mut succeeded, mut refused) = (0, 0);
        let (mut request, mut response) = (Vec::with_capacity(4_096), Vec::with_capacity(65_536));
        start.wait().await;
        let start_time = Instant::now();
        while start_time.elapsed() < self.duration {
            let nth = self.next.fetch_add(1, Ordering::Relaxed);
            request.clear();
            if !self.source.write(nth, &mut request) {
                break;
            }
            self.stream.write_all(&request).await?;
            let status = timeout(RESPONSE_TIMEOUT, read_response(&mut self.stream, &mut response)).await??;
            *(if status == self.expected_status { &mut succeeded } else { &mut refused }) += 1;
        }
        Ok((succeeded, refused))
    }
}

/// Reads one response to its end, and returns its status.
async fn read_response(stream: &mut TcpStream, response: &mut Vec<u8>) -> io::Result<u16> {
    response.clear();
    let mut head = None;
    loop {
        if stream.read_buf(response).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if head.is_none() {
            head = ResponseHead::parse(response)?;
        }
        if let Some(ResponseHead { status, body_end, .. }) = head
            && response.len() >= body_end
        {
            return Ok(status);
        }
    }
}
