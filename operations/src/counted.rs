//! Numbers of things in sentences.

/// Returns a number of things, such as `1 event` or `2 events`.
pub fn counted(count: u64, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    }
}
