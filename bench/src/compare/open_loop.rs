//! An open-loop load: requests are due at a fixed rate, also while the server stalls.
//!
//! The latency of a request counts from the time at which it is due. So a stall adds to the latency of every request
//! that it delays. This avoids coordinated omission.
//!
//! The load runs in threads: a sleeping thread wakes up within some 60 µs, but the timer of a task is up to a
//! millisecond late.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use super::closed_loop::RequestSource;
use super::raw_http::{RawConnection, unexpected_status};
use super::run_config::CONNECTIONS;
use crate::latency::Latencies;

/// Sends `rate` requests of a source per second, over [`CONNECTIONS`] keep-alive connections in turn. A response with
/// another status than `expected_status` is an error.
pub async fn run_open_loop(
    address: &str,
    expected_status: u16,
    rate: f64,
    duration: Duration,
    source: Arc<dyn RequestSource>,
) -> io::Result<Latencies> {
    let address = address.to_owned();
    let run = move || run_threads(&address, expected_status, rate, duration, &source);
    tokio::task::spawn_blocking(run).await.map_err(io::Error::other)?
}

fn run_threads(
    address: &str,
    expected_status: u16,
    rate: f64,
    duration: Duration,
    source: &Arc<dyn RequestSource>,
) -> io::Result<Latencies> {
    let connections =
        (0..CONNECTIONS).map(|_| RawConnection::connect(address)).collect::<io::Result<Vec<_>>>()?;
    let (start, next) = (Barrier::new(CONNECTIONS), AtomicU64::new(0));
    let interval = Duration::from_secs_f64(CONNECTIONS as f64 / rate);
    thread::scope(|scope| {
        let threads: Vec<_> = connections
            .into_iter()
            .enumerate()
            .map(|(turn, connection)| {
                let (start, next) = (&start, &next);
                let offset = interval.mul_f64(turn as f64 / CONNECTIONS as f64);
                scope.spawn(move || {
                    start.wait();
                    let first_due = Instant::now() + offset;
                    send_on_schedule(connection, expected_status, first_due, interval, duration, |request| {
                        source.write(next.fetch_add(1, Ordering::Relaxed), request)
                    })
                })
            })
            .collect();
        let mut total = Latencies::new();
        for thread in threads {
            let latencies = thread.join().map_err(|_| io::Error::other("a thread of the load panicked"))?;
            total.add(&latencies?);
        }
        Ok(total)
    })
}

/// Sends one request for each interval, until the time is over or no request is left. A request that is overdue is sent
/// at once.
fn send_on_schedule(
    mut connection: RawConnection,
    expected_status: u16,
    first_due: Instant,
    interval: Duration,
    duration: Duration,
    write_next: impl Fn(&mut Vec<u8>) -> bool,
) -> io::Result<Latencies> {
    let (mut latencies, mut request, mut due) = (Latencies::new(), Vec::with_capacity(4_096), first_due);
    while due < first_due + duration {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        request.clear();
        if !write_next(&mut request) {
            break;
        }
        let status = connection.exchange(&request)?.status;
        if status != expected_status {
            return Err(unexpected_status(status));
        }
        latencies.record_latency(due.elapsed());
        due += interval;
    }
    Ok(latencies)
}
