//! Search queries, and the snippets of the texts that they find. The first line of a case is the query, after a `~` if
//! typing errors are tolerated; the rest is the text.

/// The longest query that the search takes, in bytes.
const MAX_QUERY_BYTES: usize = 1_024;

/// The longest text of a message, in bytes.
const MAX_BODY_BYTES: usize = 65_536;

/// The most characters of a snippet: 181 grapheme clusters of at most 32 characters.
const MAX_SNIPPET_CHARS: usize = 181 * 32;

/// A snippet without its marks is a part of the text. In an ASCII text, a query of 3 to 20 letters and digits is marked
/// exactly if the text contains it; with typing errors tolerated, other words may be marked as well.
pub fn check(case: &[u8]) {
    let Ok(case) = str::from_utf8(case) else { return };
    let Some((query, body)) = case.split_once('\n') else { return };
    let (fuzzy, query) = query.strip_prefix('~').map_or((false, query), |query| (true, query));
    if query.len() > MAX_QUERY_BYTES || body.len() > MAX_BODY_BYTES {
        return;
    }
    let snippet = chat_search::snippet(body, query, fuzzy);
    assert_shows_part_of(body, &snippet);
    if chat_search::count_query_words(query) == 0 {
        assert!(!snippet.contains("<mark>"), "a query has no words, but the text is marked: {snippet}");
    }
    let can_match_inside_words =
        (3..=20).contains(&query.len()) && query.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if can_match_inside_words && body.is_ascii() {
        let contains = body.to_ascii_lowercase().contains(&query.to_ascii_lowercase());
        assert!(
            !contains || snippet.contains("<mark>"),
            "{query} is in the text, but nothing is marked: {snippet}"
        );
        assert!(
            fuzzy || contains || !snippet.contains("<mark>"),
            "{query} is not in the text, but something is marked: {snippet}"
        );
    }
}

/// Checks that a snippet is HTML that shows a part of a text, with an ellipsis where the text is cut.
pub fn assert_shows_part_of(body: &str, snippet: &str) {
    let text = without_marks(snippet);
    assert!(text.chars().count() <= MAX_SNIPPET_CHARS, "{} characters", text.chars().count());
    let (cut_start, cut_end) = (text.strip_prefix('…'), text.strip_suffix('…'));
    let is_part = text == body
        || cut_start.is_some_and(|end| body.ends_with(end))
        || cut_end.is_some_and(|start| body.starts_with(start))
        || cut_start.and_then(|rest| rest.strip_suffix('…')).is_some_and(|middle| body.contains(middle));
    assert!(is_part, "{snippet:?} is not a part of {body:?}");
}

/// Returns the text of a snippet. Checks that its HTML has no elements and entities but those of `MARKUP`, and that
/// each mark holds text and no other mark.
fn without_marks(snippet: &str) -> String {
    const MARKUP: [(&str, &str); 7] = [
        ("<mark>", ""),
        ("</mark>", ""),
        ("&amp;", "&"),
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&#39;", "'"),
    ];
    let (mut text, mut rest) = (String::new(), snippet);
    let mut mark_start = None;
    while let Some(index) = rest.find(['<', '>', '&', '"', '\'']) {
        text.push_str(&rest[..index]);
        rest = &rest[index..];
        let markup = MARKUP.iter().find(|(markup, _)| rest.starts_with(markup));
        let (markup, meaning) = markup.unwrap_or_else(|| panic!("unescaped text in {snippet:?}"));
        match *markup {
            "<mark>" => assert_eq!(mark_start.replace(text.len()), None, "nested marks in {snippet:?}"),
            "</mark>" => {
                let start = mark_start.take().expect("the start of a mark");
                assert!(start < text.len(), "an empty mark in {snippet:?}");
            }
            _ => text.push_str(meaning),
        }
        rest = &rest[markup.len()..];
    }
    assert_eq!(mark_start, None, "an open mark in {snippet:?}");
    text + rest
}
