//! A feed as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use chat_domain::Position;
use chat_web::consistency::ConsistencyToken;
use futures::future::BoxFuture;
use futures::stream;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use metrics::counter;
use tokio::time::sleep;
use tracing::error;

use super::form::EVENT_STREAM;
use crate::live_feed::{Batch, FeedEvent, FollowError, Follower, FollowerPermit, count_sent};

/// How long a client waits at least before it reconnects.
const RECONNECT_MILLIS: usize = 1_000;

/// How far the reconnects to other processes are spread when this one stops.
const STOPPING_RECONNECT_SPREAD_MILLIS: usize = 4_000;

/// A client gets a new cursor after this number of batches without an event for it.
const BATCHES_PER_CURSOR: u32 = 16;

/// The pause before a failed read of the log is retried.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Responds with a stream of server-sent events.
pub(super) fn respond(follower: Follower, permit: FollowerPermit) -> Response {
    let up_to = follower.up_to();
    let reader = Some(Reader::Idle(Box::new(follower)));
    let mut state = EventStream { permit, reader, up_to, first_frame: None, empty_batches: 0 };
    state.first_frame = Some(format!("retry: {RECONNECT_MILLIS}\nid: {}\n\n", state.cursor()).into());
    let chunks = stream::unfold(state, async |mut state| {
        let chunk = state.next().await?;
        Some((Ok::<_, Infallible>(chunk), state))
    });
    let content_type = [(CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM))];
    (content_type, Body::from_stream(chunks)).into_response()
}

/// Server-sent events of a feed.
struct EventStream {
    permit: FollowerPermit,
    /// `None` at the end of the stream.
    reader: Option<Reader>,
    /// All events of the scope up to this position were sent or left out.
    up_to: Position,
    /// The frame that begins the stream, until it is sent.
    first_frame: Option<Bytes>,
    /// The batches since the last one with an event for the client.
    empty_batches: u32,
}

enum Reader {
    Idle(Box<Follower>),
    /// The follower reads its next batch. A heartbeat does not interrupt the read.
    Reading(BoxFuture<'static, (Box<Follower>, Result<Batch, FollowError>)>),
}

impl EventStream {
    /// Returns the next frame; `None` at the end of the stream.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(frame) = self.first_frame.take() {
            return Some(frame);
        }
        loop {
            let reader = self.reader.take()?;
            if self.permit.stopping.is_stopping() {
                return Some(self.end_at_stop());
            }
            let mut reading = match reader {
                Reader::Idle(follower) => Box::pin(follower.into_next_batch()),
                Reader::Reading(reading) => reading,
            };
            let (mut follower, batch) = tokio::select! {
                biased;
                () = self.permit.stopping.stopped() => return Some(self.end_at_stop()),
                read = &mut reading => read,
                () = self.permit.heartbeats.next() => {
                    self.reader = Some(Reader::Reading(reading));
                    return Some(self.heartbeat());
                }
            };
            self.up_to = follower.up_to();
            let pause = match batch {
                Ok(Batch::Events(events)) => {
                    self.reader = Some(Reader::Idle(follower));
                    let frames = Self::frames(&events);
                    if !frames.is_empty() {
                        self.empty_batches = 0;
                        return Some(frames);
                    }
                    self.empty_batches += 1;
                    if self.empty_batches.is_multiple_of(BATCHES_PER_CURSOR) {
                        return Some(self.cursor_frame());
                    }
                    continue;
                }
                Ok(Batch::CaughtUp) => None,
                Err(FollowError::Log(error)) if error.is_retryable() => Some(RETRY_PAUSE),
                Err(FollowError::FallenBehind) => {
                    counter!("chat_feed_closed_total", "reason" => "fallen_behind").increment(1);
                    return None;
                }
                Err(FollowError::Log(error)) => {
                    error!(
                        error = &error as &dyn std::error::Error,
                        "a feed ends because the log can't be read"
                    );
                    counter!("chat_feed_closed_total", "reason" => "log_unreadable").increment(1);
                    return None;
                }
            };
            let ready_to_read = async {
                match pause {
                    Some(pause) => sleep(pause).await,
                    None => follower.wait().await,
                }
            };
            let is_heartbeat_due = tokio::select! {
                biased;
                () = self.permit.stopping.stopped() => false,
                () = ready_to_read => false,
                () = self.permit.heartbeats.next() => true,
            };
            self.reader = Some(Reader::Idle(follower));
            if is_heartbeat_due {
                return Some(self.heartbeat());
            }
        }
    }

    /// The cursor after the events that were sent or left out so far.
    fn cursor(&self) -> ConsistencyToken {
        ConsistencyToken::new(self.permit.log_tag, self.up_to)
    }

    fn frames(events: &[Arc<FeedEvent>]) -> Bytes {
        let encoded = events.iter().filter_map(|event| event.encoded());
        let frames: Vec<_> = encoded.map(|encoded| encoded.frame().clone()).collect();
        count_sent(u64::try_from(frames.len()).unwrap_or(u64::MAX));
        match &*frames {
            // The bytes are shared with other followers, not copied.
            [frame] => frame.clone(),
            frames => frames.concat().into(),
        }
    }

    /// Moves the client's cursor over events that the filter left out.
    fn cursor_frame(&self) -> Bytes {
        format!("id: {}\n\n", self.cursor()).into()
    }

    /// Keeps the connection alive, and moves the client's cursor.
    fn heartbeat(&self) -> Bytes {
        format!(":\nid: {}\n\n", self.cursor()).into()
    }

    /// The end of the stream because the process stops. The clients reconnect one after another.
    fn end_at_stop(&self) -> Bytes {
        counter!("chat_feed_closed_total", "reason" => "stopping").increment(1);
        // 1,237 and the spread have no common factor, so the delays of clients with consecutive numbers are spread
        // evenly.
        let delay =
            RECONNECT_MILLIS + self.permit.number.wrapping_mul(1_237) % STOPPING_RECONNECT_SPREAD_MILLIS;
        format!("retry: {delay}\nid: {}\n\n", self.cursor()).into()
    }
}
