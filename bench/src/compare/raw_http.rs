//! HTTP requests and responses as bytes over a blocking connection, so that the client takes little of the measured
//! time.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// The longest wait for a response. A [`RawConnection`] applies it to each read of its socket, so that a response in
/// several parts can take longer.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

/// A keep-alive connection with one request at a time.
pub struct RawConnection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// A response.
pub struct RawResponse<'a> {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: &'a [u8],
}

/// The head of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// The status.
    pub status: u16,
    /// The offset of the start of the body.
    pub body_start: usize,
    /// The offset of the end of the body.
    pub body_end: usize,
}

impl RawConnection {
    /// Connects to a server.
    pub fn connect(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(RESPONSE_TIMEOUT))?;
        Ok(Self { stream, buffer: vec![0; 16_384] })
    }

    /// Sends an encoded request and reads its response.
    pub fn exchange(&mut self, request: &[u8]) -> io::Result<RawResponse<'_>> {
        self.stream.write_all(request)?;
        let (mut read, mut head) = (0, None);
        loop {
            if read == self.buffer.len() {
                self.buffer.resize(read * 2, 0);
            }
            let more = self.stream.read(&mut self.buffer[read..])?;
            if more == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            read += more;
            if head.is_none() {
                head = ResponseHead::parse(&self.buffer[..read])?;
            }
            if let Some(ResponseHead { status, body_start, body_end }) = head
                && read >= body_end
            {
                return Ok(RawResponse { status, body: &self.buffer[body_start..body_end] });
            }
        }
    }

    /// Sends a GET request and returns the body. Any status other than 200 is an error.
    pub fn get(&mut self, path: &str) -> io::Result<&[u8]> {
        let response = self.exchange(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes())?;
        if response.status == 200 { Ok(response.body) } else { Err(unexpected_status(response.status)) }
    }
}

/// Returns the error of a response with an unexpected status.
pub fn unexpected_status(status: u16) -> io::Error {
    io::Error::other(format!("the server answered {status}"))
}

impl ResponseHead {
    /// Parses the head of a response. Returns `None` if the head is incomplete.
    pub fn parse(response: &[u8]) -> io::Result<Option<Self>> {
        let Some(head_end) = response.windows(4).position(|end| end == b"\r\n\r\n") else { return Ok(None) };
        let status = response.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok());
        let status = status
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not an HTTP/1.1 response"))?;
        let body_start = head_end + 4;
        let body_end = body_start + content_length(&response[..head_end]);
        Ok(Some(Self { status, body_start, body_end }))
    }
}

/// Returns the `Content-Length` of a head, or 0 without one.
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
    fn finds_the_content_length_regardless_of_letter_case() {
        assert_eq!(content_length(b"HTTP/1.1 201 Created\r\nContent-Length: 12\r\nX: y"), 12);
        assert_eq!(content_length(b"HTTP/1.1 200 OK\r\ncontent-length:7"), 7);
        assert_eq!(content_length(b"HTTP/1.1 204 No Content\r\nX: y"), 0);
    }

    #[test]
    fn parses_complete_heads_and_rejects_nonsense() {
        let response = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        assert_eq!(ResponseHead::parse(&response[..30]).unwrap(), None);
        let head = ResponseHead::parse(response).unwrap().unwrap();
        assert_eq!((head.status, &response[head.body_start..head.body_end]), (200, &b"ok"[..]));
        assert!(ResponseHead::parse(b"nonsense\r\n\r\n").is_err());
    }
}
