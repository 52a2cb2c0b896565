//! The byte stream of a connection.
//!
//! It adds two things to the stream of the operating system. A problem document takes the place of the empty response
//! with which hyper refuses a malformed head. And a connection that is closed before all of a request was read is
//! closed in two steps: the server ends its own side, then reads on for a while. If it closed at once, the unread bytes
//! would make the operating system reset the connection, and the client would lose the response.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use memchr::memchr;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Sleep, sleep};
use tracing::debug;

use super::connection::{ClientConnection, UnreadBody};
use super::date::format_http_date;
use crate::error_code::ErrorCode;
use crate::problem::Problem;
use crate::request_context::request_id;

/// The maximum number of a request's remaining bytes that are read and discarded. That happens after the response in
/// HTTP/1, and while the response is sent in HTTP/2.
pub(super) const MAX_DISCARDED_BYTES: usize = 16 * 1024 * 1024;

/// How long unread bytes of a request are read and discarded.
pub(super) const DISCARD_TIMEOUT: Duration = Duration::from_secs(10);

/// The bytes that are discarded at a time.
const DISCARD_CHUNK_BYTES: usize = 16 * 1024;

/// The maximum number of bytes kept of a head's line. An ordinary `Content-Length` line is shorter.
const MAX_LINE_BYTES: usize = 128;

/// The longest response with which hyper refuses a head.
const MAX_REFUSAL_BYTES: usize = 256;

/// The stream of one connection, as hyper reads and writes it.
pub(super) struct ClientStream {
    reader: Arc<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    client: Arc<ClientConnection>,
    /// Header lines of a refusal, in addition to those that every refusal has.
    refusal_headers: &'static str,
    declared_length: DeclaredLength,
    /// The bytes that replace hyper's refusal and are not sent yet: the rest of an earlier response, if any, and a
    /// response with a problem.
    refusal: Bytes,
    closing: Closing,
}

enum Closing {
    Open,
    /// Nothing more is written. Bytes are read and discarded.
    Discarding(Discarding),
    Closed,
}

struct Discarding {
    timeout: Pin<Box<Sleep>>,
    bytes_left: usize,
}

/// Detects heads whose `Content-Length` is larger than hyper can count.
#[derive(Default)]
struct DeclaredLength {
    /// The beginning of a line whose rest is not read yet.
    line: Vec<u8>,
    /// Whether a line of the present head was read. Empty lines may precede a head (RFC 9112, 2.2).
    has_begun: bool,
    /// Whether the present head declares a body.
    has_body: bool,
    /// Whether a head declares a longer body than hyper can count. hyper refuses such a head as too large or malformed.
    is_excessive: bool,
}

impl ClientStream {
    pub(super) fn new(
        reader: Arc<OwnedReadHalf>,
        writer: OwnedWriteHalf,
        client: Arc<ClientConnection>,
        refusal_headers: &'static str,
    ) -> Self {
        Self {
            reader,
            writer,
            client,
            refusal_headers,
            declared_length: DeclaredLength::default(),
            refusal: Bytes::new(),
            closing: Closing::Open,
        }
    }

    /// If the bytes that hyper writes end with a refusal, takes them and returns their number. hyper writes nothing
    /// after a refusal.
    fn take_refusal(&mut self, buffers: &[IoSlice<'_>]) -> Option<usize> {
        let (code, mut replacement) = split_refusal(buffers)?;
        let code = if self.declared_length.is_excessive { ErrorCode::PayloadTooLarge } else { code };
        replacement.extend(problem_response(code, self.refusal_headers));
        self.refusal = Bytes::from(replacement);
        // The client may still be sending: close in two steps.
        self.client.set_unread(Some(UnreadBody::Abandoned));
        Some(buffers.iter().map(|buffer| buffer.len()).sum())
    }

    fn poll_send_refusal(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.refusal.is_empty() {
            let sent = ready!(Pin::new(&mut self.writer).poll_write(context, &self.refusal))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.refusal.advance(sent);
        }
        Poll::Ready(Ok(()))
    }
}

impl Discarding {
    fn new() -> Self {
        Self { timeout: Box::pin(sleep(DISCARD_TIMEOUT)), bytes_left: MAX_DISCARDED_BYTES }
    }

    /// Reads until the client closes its side, or a bound is reached.
    fn poll(&mut self, reader: &OwnedReadHalf, context: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.timeout.as_mut().poll(context).is_ready() {
                return Poll::Ready(());
            }
            let mut chunk = [MaybeUninit::uninit(); DISCARD_CHUNK_BYTES];
            let mut chunk = ReadBuf::uninit(&mut chunk);
            let read = ready!(poll_read(reader, context, &mut chunk));
            let bytes = chunk.filled().len();
            if read.is_err() || bytes == 0 || bytes > self.bytes_left {
                return Poll::Ready(());
            }
            self.bytes_left -= bytes;
        }
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(poll_read(&this.reader, context, buffer))?;
        // While no request is in flight, the bytes are those of a head.
        if this.client.idle_since().is_some() {
            this.declared_length.read(&buffer.filled()[before..]);
        }
        Poll::Ready(Ok(()))
    }
}

/// Reads from a read half that is shared.
fn poll_read(
    reader: &OwnedReadHalf,
    context: &mut Context<'_>,
    buffer: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    loop {
        ready!(reader.as_ref().poll_read_ready(context))?;
        match reader.try_read_buf(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            read => return Poll::Ready(read.map(|_| ())),
        }
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match this.take_refusal(&[IoSlice::new(buffer)]) {
            Some(written) => Poll::Ready(Ok(written)),
            None => Pin::new(&mut this.writer).poll_write(context, buffer),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match this.take_refusal(buffers) {
            Some(written) => Poll::Ready(Ok(written)),
            None => Pin::new(&mut this.writer).poll_write_vectored(context, buffers),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.writer.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send_refusal(context))?;
        Pin::new(&mut this.writer).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            match &mut this.closing {
                Closing::Open => {
                    ready!(this.poll_send_refusal(context))?;
                    ready!(Pin::new(&mut this.writer).poll_shutdown(context))?;
                    this.closing = if this.client.unread().is_some() {
                        Closing::Discarding(Discarding::new())
                    } else {
                        Closing::Closed
                    };
                }
                Closing::Discarding(discarding) => {
                    ready!(discarding.poll(&this.reader, context));
                    this.closing = Closing::Closed;
                }
                Closing::Closed => return Poll::Ready(Ok(())),
            }
        }
    }
}

/// Returns the error code of a refusal by hyper at the end of what is written, and the bytes before it: an earlier
/// response that is not sent yet.
fn split_refusal(buffers: &[IoSlice<'_>]) -> Option<(ErrorCode, Vec<u8>)> {
    let last = buffers.iter().rfind(|buffer| !buffer.is_empty())?;
    let code = refusal_code(last)?;
    let mut before: Vec<u8> = buffers.iter().flat_map(|buffer| buffer.iter().copied()).collect();
    before.truncate(before.len() - refusal_length(last));
    Some((code, before))
}

/// Returns the length of the last response in `written`, assuming that it has no body.
fn refusal_length(written: &[u8]) -> usize {
    let last_bytes = &written[written.len().saturating_sub(MAX_REFUSAL_BYTES)..];
    let start = last_bytes.windows(7).rposition(|window| window == b"HTTP/1.");
    start.map_or(0, |start| last_bytes.len() - start)
}

/// Returns the error code of a refusal by hyper at the end of what is written. If hyper can't parse a head, it writes a
/// response of its own, without a body and without a request id. All other responses have a request id.
fn refusal_code(written: &[u8]) -> Option<ErrorCode> {
    if !written.ends_with(b"\r\n\r\n") {
        return None;
    }
    let head = std::str::from_utf8(&written[written.len() - refusal_length(written)..]).ok()?;
    if !head.contains("content-length: 0\r\n") || head.contains("x-request-id") {
        return None;
    }
    match head.get("HTTP/1.1 ".len()..)?.get(..3)? {
        "400" => Some(ErrorCode::MalformedRequest),
        "414" | "431" => Some(ErrorCode::HeadTooLarge),
        _ => None,
    }
}

impl DeclaredLength {
    /// Reads bytes of a head, and of the heads that follow it directly. Ignores a body and all bytes after it.
    fn read(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some(end) = memchr(b'\n', rest) {
            let (part, following) = rest.split_at(end + 1);
            rest = following;
            // Most heads come in one read, and their lines are not copied.
            let line = if self.line.is_empty() {
                part
            } else {
                self.keep(part);
                &self.line
            };
            let is_empty = line.trim_ascii().is_empty();
            self.has_body |= declares_body(line);
            self.is_excessive |= declares_excessive_length(line);
            self.line.clear();
            if !is_empty {
                self.has_begun = true;
            } else if std::mem::take(&mut self.has_begun) && std::mem::take(&mut self.has_body) {
                return;
            }
        }
        self.keep(rest);
    }

    /// Keeps a part of a line, as far as there is room.
    fn keep(&mut self, part: &[u8]) {
        let room = MAX_LINE_BYTES - self.line.len();
        self.line.extend_from_slice(&part[..part.len().min(room)]);
    }
}

/// Whether a line of a head declares a body.
fn declares_body(line: &[u8]) -> bool {
    [&b"content-length:"[..], b"transfer-encoding:"]
        .iter()
        .any(|name| line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name)))
}

/// Whether a line of a head declares a body of so many bytes that hyper can't count them.
fn declares_excessive_length(line: &[u8]) -> bool {
    const NAME: &[u8] = b"content-length:";
    const MAX_LENGTH: u64 = u64::MAX - 2;
    let Some((name, value)) = line.split_at_checked(NAME.len()) else { return false };
    let value = value.trim_ascii();
    name.eq_ignore_ascii_case(NAME)
        && !value.is_empty()
        && value.iter().all(u8::is_ascii_digit)
        // Digits that don't fit into a `u64` are a number over `MAX_LENGTH`, too.
        && std::str::from_utf8(value).is_ok_and(|digits| digits.parse().map_or(true, |length: u64| length > MAX_LENGTH))
}

/// Returns a response with the problem of a refused head. The response has a new request id, because the request's own
/// is unknown.
fn problem_response(code: ErrorCode, headers: &str) -> Vec<u8> {
    let id = request_id(&HeaderMap::new());
    debug!(request_id = &*id, code = code.as_str(), "a request's head was refused");
    let body = Problem::from_code(code).to_json(&id);
    let date =
        format_http_date(SystemTime::now()).map(|date| format!("date: {date}\r\n")).unwrap_or_default();
    let head = format!(
        "HTTP/1.1 {}\r\nconnection: close\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\n\
         cache-control: no-store\r\nx-request-id: {id}\r\n{headers}{date}\r\n",
        code.status(),
        body.len(),
    );
    [head.into_bytes(), body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_does_not_replace_an_earlier_response() {
        let earlier = "HTTP/1.1 200 OK\r\nx-request-id: a\r\ncontent-length: 2\r\n\r\n";
        let refusal = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
        let hi_and_refusal = format!("hi{refusal}");
        let expected = Some((ErrorCode::MalformedRequest, format!("{earlier}hi").into_bytes()));
        for buffers in [&[earlier, "hi", refusal][..], &[earlier, &hi_and_refusal, ""]] {
            let buffers: Vec<_> = buffers.iter().map(|buffer| IoSlice::new(buffer.as_bytes())).collect();
            assert_eq!(split_refusal(&buffers), expected);
        }
        assert_eq!(split_refusal(&[IoSlice::new(refusal.as_bytes()), IoSlice::new(b"more")]), None);
        assert_eq!(split_refusal(&[]), None);
    }

    #[test]
    fn only_lengths_beyond_what_hyper_counts_are_excessive() {
        for (head, expected) in [
            ("POST / HTTP/1.1\r\nContent-Length: 18446744073709551614\r\n\r\n", true),
            ("POST / HTTP/1.1\r\nhost: x\r\ncontent-length:99999999999999999999 \r\n\r\n", true),
            ("POST / HTTP/1.1\r\ncontent-length: 18446744073709551613\r\n\r\n", false),
            ("POST / HTTP/1.1\r\ncontent-length: 00000000000000000000012\r\n\r\n", false),
            ("POST / HTTP/1.1\r\ncontent-length: 99999999999999999999x\r\n\r\n", false),
            ("POST / HTTP/1.1\r\ncontent-length: \r\n\r\n", false),
            ("\r\nPOST / HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n", true),
            ("GET / HTTP/1.1\r\n\r\nPOST / HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n", true),
            ("", false),
        ] {
            // The head may arrive in any parts.
            for part_bytes in [1, 7, 40, 200] {
                let mut declared = DeclaredLength::default();
                head.as_bytes().chunks(part_bytes).for_each(|part| declared.read(part));
                assert_eq!(declared.is_excessive, expected, "{head} in parts of {part_bytes} bytes");
            }
        }
        let mut declared = DeclaredLength::default();
        declared
            .read(b"POST / HTTP/1.1\r\ncontent-length: 38\r\n\r\ncontent-length: 99999999999999999999\r\n");
        assert!(!declared.is_excessive, "a body declares nothing");
    }

    #[test]
    fn only_responses_without_body_and_request_id_are_refusals() {
        let refusal =
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\ndate: Sun, 29 Nov 2026 12:00:00 GMT\r\n\r\n";
        assert_eq!(refusal_code(refusal.as_bytes()), Some(ErrorCode::MalformedRequest));
        let too_large = refusal.replace("400 Bad Request", "431 Request Header Fields Too Large");
        assert_eq!(refusal_code(too_large.as_bytes()), Some(ErrorCode::HeadTooLarge));
        let after_another =
            format!("HTTP/1.1 200 OK\r\nx-request-id: a\r\ncontent-length: 2\r\n\r\nhi{refusal}");
        assert_eq!(refusal_code(after_another.as_bytes()), Some(ErrorCode::MalformedRequest));
        assert_eq!(refusal_length(after_another.as_bytes()), refusal.len());
        for other in [
            refusal.replace("content-length: 0", "content-length: 0\r\nx-request-id: a"),
            refusal.replace("400 Bad Request", "200 OK"),
            refusal.replace("content-length: 0", "content-length: 10"),
            format!("{refusal}body"),
            "\r\n\r\n".to_owned(),
            String::new(),
        ] {
            assert_eq!(refusal_code(other.as_bytes()), None, "{other}");
        }
    }
}
