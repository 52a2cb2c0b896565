//! A feed as a page in JSON, which can wait for its first event.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use chat_domain::Position;
use chat_web::Problem;
use chat_web::consistency::ConsistencyToken;
use futures::stream;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::form::JSON;
use crate::live_feed::{Batch, FeedEvent, FollowError, Follower, FollowerPermit, count_sent};
use crate::log_head::LogHead;

/// The bounds of a page. The last batch may exceed them.
const PAGE_EVENTS: usize = 500;
const PAGE_BYTES: usize = 1024 * 1024;

/// The maximal number of batches that one call of [`PageReader::fill_page`] reads. A filter that leaves out most events
/// can need more for a full page.
const MAX_READS_PER_FILL: u32 = 64;

/// Responds with a page of the events that are there. If there are none up to the head of the log, the body of the
/// response waits for the first event, at most for `wait`. Also returns the position for the response's headers: all
/// events up to it have been read already.
pub(super) async fn respond(
    follower: Follower,
    permit: FollowerPermit,
    wait: Duration,
    log_head: &LogHead,
) -> Result<(Response, Position), Problem> {
    let deadline = Instant::now() + wait;
    let mut reader = PageReader { follower, permit, page: Page::default() };
    let mut is_complete = reader.fill_page().await?;
    if !is_complete && reader.page.count == 0 && wait.is_zero() {
        // The hub may be behind the log. The client takes an empty page as a sign that it has reached the head.
        reader.follower.set_log_head(log_head.read().await?);
        is_complete = reader.fill_page().await?;
    }
    let up_to = reader.follower.up_to();
    if is_complete || reader.page.count > 0 || wait.is_zero() {
        return Ok((json_response(Body::from(reader.finish())), up_to));
    }
    // The headers are sent at once, so that the concurrency limit and the deadline of requests do not apply to the
    // wait.
    let rest = stream::once(async move { Ok::<_, Infallible>(reader.wait_for_page(deadline).await) });
    Ok((json_response(Body::from_stream(rest)), up_to))
}

fn json_response(body: Body) -> Response {
    ([(CONTENT_TYPE, HeaderValue::from_static(JSON))], body).into_response()
}

/// A page that is being filled.
struct PageReader {
    follower: Follower,
    permit: FollowerPermit,
    page: Page,
}

impl PageReader {
    /// Fills the page with events that are there. Returns whether the page is complete:
    ///
    /// - `false` if the follower has caught up and the page has room for more events.
    /// - `true` if the page is full, [`MAX_READS_PER_FILL`] batches were read, the process is stopping, or the follower
    ///   can't read on.
    ///
    /// If the log can't be read while the page is empty, returns the error instead. Cancel safe.
    async fn fill_page(&mut self) -> Result<bool, Problem> {
        let mut reads = 0;
        while self.page.count < PAGE_EVENTS && self.page.json.len() < PAGE_BYTES && reads < MAX_READS_PER_FILL
        {
            let batch = tokio::select! {
                biased;
                batch = self.follower.next_batch() => batch,
                () = self.permit.stopping.stopped() => return Ok(true),
            };
            match batch {
                Ok(Batch::Events(events)) => self.page.add(&events),
                Ok(Batch::CaughtUp) => return Ok(false),
                // The client's next request reads the missing events from the log.
                Err(FollowError::FallenBehind) => return Ok(true),
                Err(FollowError::Log(_)) if self.page.count > 0 => return Ok(true),
                Err(FollowError::Log(error)) => return Err(error.into()),
            }
            reads += 1;
        }
        Ok(true)
    }

    async fn wait_for_page(mut self, deadline: Instant) -> String {
        loop {
            let is_wait_over = tokio::select! {
                biased;
                () = self.permit.stopping.stopped() => true,
                () = self.follower.wait() => false,
                () = sleep_until(deadline) => true,
            };
            // The status has been sent, so an error can only end the page. The client's next request gets the error.
            let filled = timeout_at(deadline, self.fill_page()).await;
            let is_complete = !matches!(filled, Ok(Ok(false)));
            if is_wait_over || is_complete || self.page.count > 0 {
                return self.finish();
            }
        }
    }

    /// The body of the response. The next page begins after the events that were read.
    fn finish(self) -> String {
        let next = ConsistencyToken::new(self.permit.log_tag, self.follower.up_to());
        count_sent(u64::try_from(self.page.count).unwrap_or(u64::MAX));
        format!(r#"{{"events":[{}],"next":"{next}"}}"#, self.page.json)
    }
}

/// The events of a page.
#[derive(Default)]
struct Page {
    count: usize,
    /// The events in JSON, separated by commas.
    json: String,
}

impl Page {
    fn add(&mut self, events: &[Arc<FeedEvent>]) {
        for encoded in events.iter().filter_map(|event| event.encoded()) {
            if self.count > 0 {
                self.json.push(',');
            }
            encoded.write_json(&mut self.json);
            self.count += 1;
        }
    }
}
