//! The requests that comparisons send, written before they are needed.

use std::fmt::Write as _;
use std::io::Write as _;

use crate::compare::closed_loop::RequestSource;

/// Posts texts to chats in turn, so that every chat gets the same share.
pub struct Posts {
    /// The path of each chat's messages.
    pub paths: Vec<String>,
    /// Bodies of requests: JSON.
    pub bodies: Vec<String>,
    /// How many to send in all.
    pub limit: u64,
}

impl Posts {
    /// Messages with these texts.
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
        post(request, cycled(&self.paths, nth), cycled(&self.bodies, nth));
        true
    }
}

/// Gets paths in turn.
pub struct Gets {
    /// The paths.
    pub paths: Vec<String>,
}

impl RequestSource for Gets {
    fn write(&self, nth: u64, request: &mut Vec<u8>) -> bool {
        // Writing to a Vec can't fail.
        let _ = write!(request, "GET {} HTTP/1.1\r\nhost: bench\r\n\r\n", cycled(&self.paths, nth));
        true
    }
}

/// A `POST` of JSON.
pub fn post(request: &mut Vec<u8>, path: &str, body: &str) {
    // As above.
    let _ = write!(
        request,
        "POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
}

fn cycled(all: &[String], nth: u64) -> &str {
    &all[usize::try_from(nth).unwrap_or(0) % all.len()]
}

/// The path of a chat's messages.
pub fn messages_path(app: &str, chat: u64) -> String {
    let mut path = String::new();
    let _ = write!(path, "/api/v1/apps/{app}/chats/{chat}/messages");
    path
}
