//! Request bodies as they arrive, and what of them is left unread.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::HttpBody;
use bytes::Bytes;
use http::Request;
use http::header::EXPECT;
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::client_stream::{DISCARD_TIMEOUT, MAX_DISCARDED_BYTES};
use super::connection::{ClientConnection, UnreadBody};

/// The largest rest of a body that most likely has arrived with the request's head, so that hyper reads past it.
const MAX_SMALL_BYTES: u64 = 16 * 1024;

/// The body of an HTTP/1 request. If it is dropped before its end, the connection is notified.
pub(super) struct RequestStream {
    body: Incoming,
    client: Arc<ClientConnection>,
    expects_continue: bool,
    has_ended: bool,
}

impl RequestStream {
    /// Replaces the body of a request.
    pub(super) fn wrap(request: Request<Incoming>, client: &Arc<ClientConnection>) -> Request<Self> {
        let expects_continue = request.headers().contains_key(EXPECT);
        let client = Arc::clone(client);
        request.map(|body| Self { body, client, expects_continue, has_ended: false })
    }
}

impl HttpBody for RequestStream {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match &polled {
            Poll::Ready(None) => self.has_ended = true,
            Poll::Ready(Some(Err(_))) => {
                self.has_ended = true;
                // What follows can't be told from the rest of the body.
                self.client.leave_unread(UnreadBody::Large);
            }
            Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for RequestStream {
    fn drop(&mut self) {
        if self.has_ended || self.body.is_end_stream() {
            return;
        }
        let is_small = self.body.size_hint().upper().is_some_and(|bytes| bytes <= MAX_SMALL_BYTES);
        let unread = if is_small && !self.expects_continue { UnreadBody::Small } else { UnreadBody::Large };
        self.client.leave_unread(unread);
    }
}

/// The body of an HTTP/2 request. If it is dropped before its end, the rest is read and discarded. hyper would reset the stream
/// after the response instead, and clients that are still sending then lose the response (httpx, curl 7.88).
pub(super) struct Http2RequestStream(Option<Incoming>);

impl Http2RequestStream {
    /// Replaces the body of a request.
    pub(super) fn wrap(request: Request<Incoming>) -> Request<Self> {
        request.map(|body| Self(Some(body)))
    }
}

impl HttpBody for Http2RequestStream {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.0 else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(context);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.0 = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}

impl Drop for Http2RequestStream {
    fn drop(&mut self) {
        let Some(body) = self.0.take().filter(|body| !body.is_end_stream()) else { return };
        let is_too_large = body.size_hint().lower() > MAX_DISCARDED_BYTES as u64;
        if let (false, Ok(runtime)) = (is_too_large, Handle::try_current()) {
            // The task ends with the connection at the latest.
            runtime.spawn(timeout(DISCARD_TIMEOUT, discard(body)));
        }
    }
}

/// Reads a body to its end, or to the most bytes that are discarded.
async fn discard(mut body: Incoming) {
    let mut bytes_left = MAX_DISCARDED_BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        if bytes > bytes_left {
            return;
        }
        bytes_left -= bytes;
    }
}
