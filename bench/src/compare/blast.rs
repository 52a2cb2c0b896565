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

use crate::latency::Latencies;

/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// What a connection sends next: appends a whole request to the buffer. `false` where there is no more.
pub trait Source: Send + Sync + 'static {
    /// Writes the `nth` request of all.
    fn write(&self, nth: u64, request: &mut Vec<u8>) -> bool;
}

/// When to stop, and how fast to go.
#[derive(Clone, Copy, Debug)]
pub struct Burst {
    /// Keep-alive connections, each with one request at a time.
    pub connections: usize,
    /// For how long; the source may end before.
    pub duration: Duration,
    /// Requests a second over all connections; as fast as they are answered without.
    pub rate: Option<f64>,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Answers with the expected status.
    pub answered: u64,
    /// Other answers.
    pub refused: u64,
    /// From the first request to the last answer.
    pub took: Duration,
    /// From when a request was due, or else sent, to its answer.
    pub latencies: Latencies,
}

impl Outcome {
    /// Answers a second.
    pub fn rate(&self) -> f64 {
        self.answered as f64 / self.took.as_secs_f64()
    }
}

/// Sends what the source gives and counts answers with this status.
pub async fn blast(
    address: &str,
    expected: u16,
    burst: Burst,
    source: Arc<dyn Source>,
) -> io::Result<Outcome> {
    let start = Arc::new(Barrier::new(burst.connections + 1));
    let next = Arc::new(AtomicU64::new(0));
    let mut connections = Vec::new();
    for connection in 0..burst.connections {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let shooter = Shooter {
            stream,
            expected,
            burst,
            offset: connection,
            next: Arc::clone(&next),
            source: Arc::clone(&source),
        };
        connections.push(tokio::spawn(shooter.run(Arc::clone(&start))));
    }
    start.wait().await;
    let began = Instant::now();
    let mut all = Outcome { answered: 0, refused: 0, took: Duration::ZERO, latencies: Latencies::new() };
    for connection in connections {
        let one = connection.await.map_err(io::Error::other)??;
        all.answered += one.answered;
        all.refused += one.refused;
        all.latencies.add(&one.latencies);
    }
    all.took = began.elapsed();
    Ok(all)
}

struct Shooter {
    stream: TcpStream,
    expected: u16,
    burst: Burst,
    offset: usize,
    next: Arc<AtomicU64>,
    source: Arc<dyn Source>,
}

impl Shooter {
    async fn run(mut self, start: Arc<Barrier>) -> io::Result<Outcome> {
        let mut outcome =
            Outcome { answered: 0, refused: 0, took: Duration::ZERO, latencies: Latencies::new() };
        let (mut request, mut answer) = (Vec::with_capacity(4_096), Vec::with_capacity(65_536));
        start.wait().await;
        let began = Instant::now();
        let pause = self.burst.rate.map(|rate| Duration::from_secs_f64(self.burst.connections as f64 / rate));
        // Connections take turns instead of sending all at the same moment.
        let mut due =
            began + pause.unwrap_or_default().mul_f64(self.offset as f64 / self.burst.connections as f64);
        while began.elapsed() < self.burst.duration {
            if pause.is_some() {
                tokio::time::sleep_until(due.into()).await;
            }
            let nth = self.next.fetch_add(1, Ordering::Relaxed);
            request.clear();
            if !self.source.write(nth, &mut request) {
                break;
            }
            let since = if pause.is_some() { due } else { Instant::now() };
            self.stream.write_all(&request).await?;
            let status = timeout(ANSWER_WITHIN, read_answer(&mut self.stream, &mut answer)).await??;
            if status == self.expected {
                outcome.answered += 1;
                outcome.latencies.record_one(since.elapsed());
            } else {
                outcome.refused += 1;
            }
            due += pause.unwrap_or_default();
        }
        Ok(outcome)
    }
}

/// Reads one answer to its end, and returns its status.
async fn read_answer(stream: &mut TcpStream, answer: &mut Vec<u8>) -> io::Result<u16> {
    answer.clear();
    loop {
        if stream.read_buf(answer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some(head) = answer.windows(4).position(|end| end == b"\r\n\r\n") else { continue };
        let whole = head + 4 + content_length(&answer[..head]);
        while answer.len() < whole {
            if stream.read_buf(answer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let status = answer.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok());
        return status
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not an answer of HTTP/1.1"));
    }
}

/// What the head says of the body's length; 0 where it says nothing.
fn content_length(head: &[u8]) -> usize {
    const NAME: &[u8] = b"content-length:";
    let lines = head.split(|byte| *byte == b'\n');
    let value = lines.filter(|line| line.len() > NAME.len()).find_map(|line| {
        line[..NAME.len()].eq_ignore_ascii_case(NAME).then(|| String::from_utf8_lossy(&line[NAME.len()..]))
    });
    value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_is_found_however_it_is_written() {
        assert_eq!(content_length(b"HTTP/1.1 201 Created\r\nContent-Length: 12\r\nX: y"), 12);
        assert_eq!(content_length(b"HTTP/1.1 200 OK\r\ncontent-length:7"), 7);
        assert_eq!(content_length(b"HTTP/1.1 204 No Content\r\nX: y"), 0);
    }
}
