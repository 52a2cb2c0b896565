//! The `Date` header of responses, and times before 1970, which neither httpdate nor hyper can format.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future as _;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::response::Response;
use http::HeaderValue;
use http::header::DATE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

/// The first second of the year 10000, in seconds since 1970. A `Date` has four digits for the year.
const YEAR_10000: u64 = 253_402_300_800;

thread_local! {
    /// The header of the last second in which this thread answered.
    static LAST_DATE: RefCell<Option<(u64, HeaderValue)>> = const { RefCell::new(None) };
}

/// Adds the current time to a response. hyper's own header stands still after the clock was set back. A response has no
/// `Date` before 1970 or after 9999.
pub(super) fn with_date(mut response: Response) -> Response {
    if let Some(date) = date_header(SystemTime::now()) {
        response.headers_mut().entry(DATE).or_insert(date);
    }
    response
}

/// Returns a time as a header; `None` before 1970 and after 9999. Formats each second once on each thread.
fn date_header(time: SystemTime) -> Option<HeaderValue> {
    let second = time.duration_since(UNIX_EPOCH).ok()?.as_secs();
    LAST_DATE.with_borrow_mut(|last| {
        if let Some((_, date)) = last.as_ref().filter(|(formatted, _)| *formatted == second) {
            return Some(date.clone());
        }
        let date = HeaderValue::try_from(format_http_date(time)?).ok()?;
        *last = Some((second, date.clone()));
        Some(date)
    })
}

/// Formats a time as HTTP does; `None` before 1970 and after 9999.
pub(super) fn format_http_date(time: SystemTime) -> Option<String> {
    let since_epoch = time.duration_since(UNIX_EPOCH).ok()?;
    (since_epoch.as_secs() < YEAR_10000).then(|| httpdate::fmt_http_date(time))
}

/// Prepares the current thread, which will serve connections, for a clock that is later set to a time before 1970.
/// hyper formats the time when a thread serves its first connection, and after that only when the time has risen.
/// Formatting a time before 1970 panics. So this function serves an empty connection at once.
pub fn prepare_thread() {
    let service = service_fn(|_| async { Ok::<_, Infallible>(Response::new(Body::empty())) });
    let mut builder = http1::Builder::new();
    builder.header_read_timeout(None);
    let connection = builder.serve_connection(TokioIo::new(tokio::io::empty()), service);
    // The input is empty, so one poll serves the whole connection.
    let _ = pin!(connection).poll(&mut Context::from_waker(Waker::noop()));
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_that_http_can_t_express_are_not_formatted() {
        let format = |seconds| format_http_date(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(format_http_date(UNIX_EPOCH - Duration::from_secs(1)), None);
        assert_eq!(format(0).as_deref(), Some("Thu, 01 Jan 1970 00:00:00 GMT"));
        assert_eq!(format(YEAR_10000 - 1).as_deref(), Some("Fri, 31 Dec 9999 23:59:59 GMT"));
        assert_eq!(format(YEAR_10000), None);
    }

    #[test]
    fn the_header_follows_the_clock_in_both_directions() {
        let header = |millis| date_header(UNIX_EPOCH + Duration::from_millis(millis));
        for millis in [5_000, 5_999, 6_000, 4_000] {
            let expected = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_millis(millis));
            assert_eq!(header(millis).unwrap().to_str().unwrap(), expected);
        }
        assert_eq!(date_header(UNIX_EPOCH - Duration::from_secs(1)), None);
    }
}
