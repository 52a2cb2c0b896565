//! A stream of server-sent events over a connection of its own.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// The time limit of a read from the stream.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// A stream of server-sent events.
pub struct EventStream {
    lines: BufReader<TcpStream>,
    head: Vec<String>,
}

impl EventStream {
    /// Opens the stream at a URL, and asserts that the response is an event stream.
    pub fn open(url: &str, headers: &[(&str, &str)]) -> Self {
        let (address, path) =
            url.strip_prefix("http://").and_then(|rest| rest.split_once('/')).expect("a URL");
        let mut connection = TcpStream::connect(address).expect("a connection");
        connection.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
        let mut request = format!("GET /{path} HTTP/1.1\r\nHost: {address}\r\n");
        for (name, value) in headers {
            request.extend([name, ": ", value, "\r\n"]);
        }
        write!(connection, "{request}\r\n").expect("a request");
        let mut stream = Self { lines: BufReader::new(connection), head: Vec::new() };
        stream.head = std::iter::from_fn(|| stream.line().filter(|line| !line.is_empty())).collect();
        assert!(stream.head[0].contains("200"), "{:?}", stream.head);
        assert_eq!(stream.header("content-type"), Some("text/event-stream"));
        stream
    }

    /// Returns a header of the response.
    pub fn header(&self, name: &str) -> Option<&str> {
        let headers = self.head.iter().filter_map(|line| line.split_once(": "));
        headers.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }

    /// Reads the next line; `None` at the end of the stream.
    pub fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.lines.read_line(&mut line).expect("a line");
        (read > 0).then(|| line.trim_end().to_owned())
    }

    /// Reads the next event: its id and its data. `None` at the end of the stream.
    pub fn next(&mut self) -> Option<(String, Value)> {
        let (mut id, mut data) = (None, None);
        loop {
            let line = self.line()?;
            // Other lines are skipped: lengths of HTTP chunks, comments, and other fields.
            if let Some(found) = line.strip_prefix("id: ") {
                id = Some(found.to_owned());
            } else if let Some(found) = line.strip_prefix("data: ") {
                data = Some(serde_json::from_str(found).expect("JSON"));
            }
            if let (Some(id), Some(data)) = (&id, &data) {
                return Some((id.clone(), Value::clone(data)));
            }
        }
    }
}
