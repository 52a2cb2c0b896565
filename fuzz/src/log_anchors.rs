//! Log anchors: the small files that say how far a log reached. A case is the content of one, with or without its
//! checksum.

use chat_files::log_anchor::LogAnchor;

/// An anchor can be written and read back, and no other checksum is accepted.
pub fn check(case: &[u8]) {
    let Ok(text) = str::from_utf8(case) else { return };
    check_text(text);
    let line = text.trim_end_matches('\n');
    let checksum = crc32fast::hash(line.as_bytes());
    check_text(&format!("{line} {checksum:08x}\n"));
    assert_eq!(LogAnchor::parse(&format!("{line} {:08x}\n", checksum ^ 1)), None);
}

fn check_text(text: &str) {
    if let Some(anchor) = LogAnchor::parse(text) {
        assert_eq!(LogAnchor::parse(&anchor.to_text()), Some(anchor));
    }
}
