//! A load generator that takes as little as it can of the cores it shares with the server: requests are made of bytes
//! that were written before, and of an answer only the status line and the length are read.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Barrier;
use tokio::time::timeout;

use super::raw_http::{RESPONSE_TIMEOUT, ResponseHead};

/// What a connection sends next: appends a whole request to the buffer. `false` where there is no more.
pub trait RequestSource: Send + Sync + 'static {
    /// Writes the `nth` request of all.
    fn write(&self, nth: u64, request: &mut Vec<u8>) -> bool;
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct LoadOutcome {
    /// Answers with the expected status.
    pub answered: u64,
    /// Other answers.
    pub refused: u64,
    /// From the first request to the last answer.
    pub took: Duration,
}

impl LoadOutcome {
    /// Answers a second.
    pub fn rate(&self) -> f64 {
        self.answered as f64 / self.took.as_secs_f64()
    }
}

/// Sends what the source gives, as fast as it is answered, over so many keep-alive connections with one request at a
/// time each, until the time is over or the source ends. Counts answers with this status.
pub async fn run_closed_loop(
    address: &str,
    expected: u16,
    connections: usize,
    duration: Duration,
    source: Arc<dyn RequestSource>,
) -> io::Result<LoadOutcome> {
    let start = Arc::new(Barrier::new(connections + 1));
    let next = Arc::new(AtomicU64::new(0));
    let mut shooters = Vec::new();
    for _ in 0..connections {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (next, source) = (Arc::clone(&next), Arc::clone(&source));
        let shooter = LoadConnection { stream, expected, duration, next, source };
        shooters.push(tokio::spawn(shooter.run(Arc::clone(&start))));
    }
    start.wait().await;
    let began = Instant::now();
    let mut all = LoadOutcome { answered: 0, refused: 0, took: Duration::ZERO };
    for shooter in shooters {
        let (answered, refused) = shooter.await.map_err(io::Error::other)??;
        all.answered += answered;
        all.refused += refused;
    }
    all.took = began.elapsed();
    Ok(all)
}

struct LoadConnection {
    stream: TcpStream,
    expected: u16,
    duration: Duration,
    next: Arc<AtomicU64>,
    source: Arc<dyn RequestSource>,
}

impl LoadConnection {
    async fn run(mut self, start: Arc<Barrier>) -> io::Result<(u64, u64)> {
        let (mut answered, mut refused) = (0, 0);
        let (mut request, mut answer) = (Vec::with_capacity(4_096), Vec::with_capacity(65_536));
        start.wait().await;
        let began = Instant::now();
        while began.elapsed() < self.duration {
            let nth = self.next.fetch_add(1, Ordering::Relaxed);
            request.clear();
            if !self.source.write(nth, &mut request) {
                break;
            }
            self.stream.write_all(&request).await?;
            let status = timeout(RESPONSE_TIMEOUT, read_response(&mut self.stream, &mut answer)).await??;
            *(if status == self.expected { &mut answered } else { &mut refused }) += 1;
        }
        Ok((answered, refused))
    }
}

/// Reads one answer to its end, and returns its status.
async fn read_response(stream: &mut TcpStream, answer: &mut Vec<u8>) -> io::Result<u16> {
    answer.clear();
    let mut head = None;
    loop {
        if stream.read_buf(answer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if head.is_none() {
            head = ResponseHead::parse(answer)?;
        }
        if let Some(ResponseHead { status, end, .. }) = head
            && answer.len() >= end
        {
            return Ok(status);
        }
    }
}
