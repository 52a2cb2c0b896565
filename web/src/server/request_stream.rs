//! Unread request bodies: the rest that a handler leaves is read and discarded, or the connection ends.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::HttpBody;
use bytes::Bytes;
use http::header::EXPECT;
use http::{Request, Version};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::client_stream::{DISCARD_TIMEOUT, MAX_DISCARDED_BYTES};
use super::connection::{ClientConnection, UnreadBody};

/// The largest rest of an HTTP/1 body that is read and discarded before the response.
const MAX_REST_BYTES: usize = 64 * 1024;

/// How long the rest of an HTTP/1 body may take to arrive.
const REST_TIMEOUT: Duration = Duration::from_secs(1);

/// The body of a request. If it is dropped before its end, the rest is read and discarded, within bounds.
///
/// With HTTP/1, the next request follows the body on the connection, and the head of the response says whether the
/// connection stays open for it. So the response waits for a small rest. If the rest is large or does not arrive, the
/// connection ends with the response.
///
/// With HTTP/2, the response does not wait, and the rest is discarded meanwhile. Otherwise hyper would reset the stream
/// after the response, and clients that are still sending would lose the response (httpx, curl 7.88).
pub(super) struct RequestStream {
    /// `None` after the end.
    body: Option<Incoming>,
    /// The connection, if its protocol is HTTP/1.
    http1: Option<Arc<ClientConnection>>,
    /// Whether the client most likely sends the rest at once: it does not wait for `100 Continue`, and the handler did
    /// not wait for more bytes when it gave up.
    is_arriving: bool,
}

impl RequestStream {
    /// Replaces the body of a request.
    pub(super) fn wrap(request: Request<Incoming>, client: &Arc<ClientConnection>) -> Request<Self> {
        let http1 = (request.version() != Version::HTTP_2).then(|| Arc::clone(client));
        let is_arriving = !request.headers().contains_key(EXPECT);
        request.map(|body| Self { body: Some(body), http1, is_arriving })
    }
}

impl HttpBody for RequestStream {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(context);
        self.is_arriving = polled.is_ready();
        match &polled {
            Poll::Ready(None) => self.body = None,
            Poll::Ready(Some(Err(_))) => {
                self.body = None;
                if let Some(client) = &self.http1 {
                    // The next request can't be distinguished from the rest of the body.
                    client.set_unread(Some(UnreadBody::Abandoned));
                }
            }
            Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}

impl Drop for RequestStream {
    fn drop(&mut self) {
        let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) else { return };
        let http1 = self.http1.take();
        let (max_bytes, max_wait) = match http1 {
            Some(_) => (MAX_REST_BYTES, REST_TIMEOUT),
            None => (MAX_DISCARDED_BYTES, DISCARD_TIMEOUT),
        };
        let is_discarded =
            (self.is_arriving || http1.is_none()) && body.size_hint().lower() <= max_bytes as u64;
        let set_unread = move |unread| {
            if let Some(client) = &http1 {
                client.set_unread(unread);
            }
        };
        match Handle::try_current() {
            Ok(runtime) if is_discarded => {
                set_unread(Some(UnreadBody::Arriving));
                // The task ends with the connection at the latest.
                runtime.spawn(async move {
                    let has_ended = timeout(max_wait, discard(body, max_bytes)).await.unwrap_or(false);
                    set_unread((!has_ended).then_some(UnreadBody::Abandoned));
                });
            }
            _ => set_unread(Some(UnreadBody::Abandoned)),
        }
    }
}

/// Reads a body and discards the bytes, at most `max_bytes`. Returns whether the end of the body was reached.
async fn discard(mut body: Incoming, max_bytes: usize) -> bool {
    let mut bytes_left = max_bytes;
    loop {
        let bytes = match body.frame().await {
            None => return true,
            Some(Err(_)) => return false,
            Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len),
        };
        if bytes > bytes_left {
            return false;
        }
        bytes_left -= bytes;
    }
}
