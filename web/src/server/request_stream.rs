//! Request bodies of HTTP/1 as they arrive, and what of them is left unread.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::HttpBody;
use bytes::Bytes;
use http::Request;
use http::header::EXPECT;
use hyper::body::{Frame, Incoming, SizeHint};

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
