//! Requests and answers as bytes, over a blocking connection: what measures single requests takes as little time itself
//! as can be.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// How long an answer may take.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

/// A keep-alive connection with one request at a time.
pub struct RawConnection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// What came back.
pub struct RawResponse<'a> {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: &'a [u8],
}

/// What the head of an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// The status.
    pub status: u16,
    /// Where the body starts.
    pub body: usize,
    /// Where the answer ends.
    pub end: usize,
}

impl RawConnection {
    /// Connects.
    pub fn connect(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(RESPONSE_TIMEOUT))?;
        Ok(Self { stream, buffer: vec![0; 16_384] })
    }

    /// Sends a whole request and reads its answer.
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
            if let Some(ResponseHead { status, body, end }) = head
                && read >= end
            {
                return Ok(RawResponse { status, body: &self.buffer[body..end] });
            }
        }
    }

    /// `GET`s a path; anything but 200 is an error.
    pub fn get(&mut self, path: &str) -> io::Result<&[u8]> {
        let answer = self.exchange(format!("GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n").as_bytes())?;
        if answer.status == 200 { Ok(answer.body) } else { Err(unexpected_status(answer.status)) }
    }
}

/// An answer that was not expected.
pub fn unexpected_status(status: u16) -> io::Error {
    io::Error::other(format!("the server answered {status}"))
}

impl ResponseHead {
    /// Reads the head, where it is there to its end.
    pub fn parse(answer: &[u8]) -> io::Result<Option<Self>> {
        let Some(head) = answer.windows(4).position(|end| end == b"\r\n\r\n") else { return Ok(None) };
        let status = answer.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok());
        let status = status
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not an answer of HTTP/1.1"))?;
        Ok(Some(Self { status, body: head + 4, end: head + 4 + content_length(&answer[..head]) }))
    }
}

/// What the head says of the body's length; 0 where it says nothing.
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
    fn the_length_is_found_however_it_is_written() {
        assert_eq!(content_length(b"HTTP/1.1 201 Created\r\nContent-Length: 12\r\nX: y"), 12);
        assert_eq!(content_length(b"HTTP/1.1 200 OK\r\ncontent-length:7"), 7);
        assert_eq!(content_length(b"HTTP/1.1 204 No Content\r\nX: y"), 0);
    }

    #[test]
    fn a_head_is_read_once_it_is_there_to_its_end() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        assert_eq!(ResponseHead::parse(&answer[..30]).unwrap(), None);
        let head = ResponseHead::parse(answer).unwrap().unwrap();
        assert_eq!((head.status, &answer[head.body..head.end]), (200, &b"ok"[..]));
        assert!(ResponseHead::parse(b"nonsense\r\n\r\n").is_err());
    }
}
