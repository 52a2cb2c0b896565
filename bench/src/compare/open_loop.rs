//! A load at a fixed rate, in threads: each request has a time at which it is due, and its latency counts from then, so
//! that a server that stalls can't hide it ("coordinated omission").
//!
//! A thread that sleeps wakes up within some 60 µs; a task's timer is a millisecond late, which is more than what is to
//! be measured.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use super::closed_loop::RequestSource;
use super::raw_http::{RawConnection, unexpected_status};
use super::run_config::CONNECTIONS;
use crate::latency::Latencies;

/// Sends what the source gives at this rate for so long, over [`CONNECTIONS`] keep-alive connections that take turns.
/// An answer with another status is an error.
pub async fn paced(
    address: &str,
    expected: u16,
    rate: f64,
    duration: Duration,
    source: Arc<dyn RequestSource>,
) -> io::Result<Latencies> {
    let address = address.to_owned();
    let threads = move || run_threads(&address, expected, rate, duration, &source);
    tokio::task::spawn_blocking(threads).await.map_err(io::Error::other)?
}

fn run_threads(
    address: &str,
    expected: u16,
    rate: f64,
    duration: Duration,
    source: &Arc<dyn RequestSource>,
) -> io::Result<Latencies> {
    let connections =
        (0..CONNECTIONS).map(|_| RawConnection::connect(address)).collect::<io::Result<Vec<_>>>()?;
    let (start, next) = (Barrier::new(CONNECTIONS), AtomicU64::new(0));
    let pause = Duration::from_secs_f64(CONNECTIONS as f64 / rate);
    thread::scope(|scope| {
        let shooters: Vec<_> = connections
            .into_iter()
            .enumerate()
            .map(|(turn, wire)| {
                let (start, next) = (&start, &next);
                let offset = pause.mul_f64(turn as f64 / CONNECTIONS as f64);
                scope.spawn(move || {
                    start.wait();
                    let first = Instant::now() + offset;
                    send_on_schedule(wire, expected, first, pause, duration, |request| {
                        source.write(next.fetch_add(1, Ordering::Relaxed), request)
                    })
                })
            })
            .collect();
        let mut all = Latencies::new();
        for shooter in shooters {
            let one = shooter.join().map_err(|_| io::Error::other("a thread of the load has panicked"))?;
            all.add(&one?);
        }
        Ok(all)
    })
}

fn send_on_schedule(
    mut wire: RawConnection,
    expected: u16,
    first: Instant,
    pause: Duration,
    duration: Duration,
    next: impl Fn(&mut Vec<u8>) -> bool,
) -> io::Result<Latencies> {
    let (mut latencies, mut request, mut due) = (Latencies::new(), Vec::with_capacity(4_096), first);
    while due < first + duration {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        request.clear();
        if !next(&mut request) {
            break;
        }
        let status = wire.exchange(&request)?.status;
        if status != expected {
            return Err(unexpected_status(status));
        }
        latencies.record_latency(due.elapsed());
        due += pause;
    }
    Ok(latencies)
}
