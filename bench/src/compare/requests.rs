//! The requests of loads, encoded as bytes.

use std::io::Write as _;

use crate::compare::closed_loop::RequestSource;

/// Posts of messages to chats in turn, so that all chats get nearly equally many messages.
pub struct Posts {
    /// For each chat, the path of its messages.
    pub paths: Vec<String>,
    /// The JSON bodies of the requests.
    pub bodies: Vec<String>,
    /// The number of requests in total.
    pub limit: u64,
}

impl Posts {
    /// Creates posts of messages with these texts.
    pub fn new(paths: Vec<String>, texts: &[String], limit: u64) -> Self {
        let body = |text| serde_json::json!({ "body": text }).to_string();
        Self { paths, bodies: texts.iter().map(body).collect(), limit }
    }
}

impl RequestSource for Posts {
    fn write(&self, nth: u64, request: &mut Vec<u8>) -> bool {
        if nth >= self.limit {
            return false;
        }
        write_post(request, cycled(&self.paths, nth), cycled(&self.bodies, nth));
        true
    }
}

/// GET requests of paths in turn.
pub struct Gets {
    /// The paths.
    pub paths: Vec<String>,
}

impl RequestSource for Gets {
    fn write(&self, nth: u64, request: &mut Vec<u8>) -> bool {
        // Writing to a Vec can't fail.
        let _ = write!(request, "GET {} HTTP/1.1\r\nhost: localhost\r\n\r\n", cycled(&self.paths, nth));
        true
    }
}

/// Appends a `POST` request with a JSON body.
pub fn write_post(request: &mut Vec<u8>, path: &str, body: &str) {
    // Writing to a Vec can't fail.
    let _ = write!(
        request,
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
}

/// Returns entry `nth`, counted from 0, of an endless repetition of `entries`.
pub fn cycled(entries: &[String], nth: u64) -> &str {
    &entries[usize::try_from(nth).unwrap_or(0) % entries.len()]
}

/// Returns the path of the messages of a chat.
pub fn messages_path(app: &str, chat: u64) -> String {
    format!("/api/v1/apps/{app}/chats/{chat}/messages")
}
