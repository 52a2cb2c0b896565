//! The snippet of a hit, and how each of its marks matched.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// A part of a snippet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SnippetPiece {
    pub(crate) text: String,
    /// How the part matched; `None` for the text around matches.
    pub(crate) kind: Option<MatchKind>,
}

/// How a marked part matched. Better kinds are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum MatchKind {
    /// A word that differs from the query’s by typing errors.
    Fuzzy,
    /// A part inside a word.
    Substring,
    /// The start of a word.
    Prefix,
    /// A whole word.
    WholeWord,
}

impl MatchKind {
    /// The name on a page.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fuzzy => "fuzzy",
            Self::Substring => "substring",
            Self::Prefix => "prefix",
            Self::WholeWord => "whole word",
        }
    }

    /// The CSS class of the kind's badge.
    pub(crate) fn class(self) -> &'static str {
        match self {
            Self::Fuzzy => "warn",
            Self::Substring => "",
            Self::Prefix => "info",
            Self::WholeWord => "ok",
        }
    }
}

/// Reads a snippet: HTML with `<mark>` as its only tag. Unescapes the text, because the templates escape it. `fuzzy`
/// says whether the search allowed typing errors.
pub(crate) fn read_snippet(snippet: &str, query: &str, fuzzy: bool) -> Vec<SnippetPiece> {
    let query = normalize(query);
    // Whether a text is marked, and the text.
    let mut texts: Vec<(bool, String)> = Vec::new();
    for (index, part) in snippet.split("<mark>").enumerate() {
        let (marked, plain) = match part.split_once("</mark>") {
            Some((marked, plain)) if index > 0 => (unescape(marked), unescape(plain)),
            _ => (String::new(), unescape(part)),
        };
        let pieces = [(true, marked), (false, plain)];
        texts.extend(pieces.into_iter().filter(|(_, text)| !text.is_empty()));
    }
    let is_letter_or_digit = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    let kind = |index: usize, text: &str| {
        let before = index.checked_sub(1).and_then(|before| texts.get(before));
        let begins_word = !is_letter_or_digit(before.and_then(|(_, text)| text.chars().next_back()));
        let ends_word = !is_letter_or_digit(texts.get(index + 1).and_then(|(_, text)| text.chars().next()));
        match (begins_word, ends_word) {
            _ if fuzzy && !query.contains(&normalize(text)) => MatchKind::Fuzzy,
            (true, true) => MatchKind::WholeWord,
            (true, false) => MatchKind::Prefix,
            (false, _) => MatchKind::Substring,
        }
    };
    let piece = |(index, (is_marked, text)): (usize, &(bool, String))| SnippetPiece {
        text: text.clone(),
        kind: is_marked.then(|| kind(index, text)),
    };
    texts.iter().enumerate().map(piece).collect()
}

/// Returns where the first mark of a snippet begins in the message's `body`, in characters from 1. `None` if the body
/// does not contain the snippet's text, or if the snippet has no mark: a fuzzy match far into a long text may lack one.
pub(crate) fn first_mark_in(body: &str, pieces: &[SnippetPiece]) -> Option<usize> {
    pieces.iter().find(|piece| piece.kind.is_some())?;
    let whole: String = pieces.iter().map(|piece| piece.text.as_str()).collect();
    let shown = whole.trim_matches('…');
    let start = body.find(shown)?;
    let before_mark: usize =
        pieces.iter().take_while(|piece| piece.kind.is_none()).map(|piece| piece.text.len()).sum();
    let ellipsis = whole.len() - whole.trim_start_matches('…').len();
    let offset = before_mark.checked_sub(ellipsis)?;
    Some(body.get(..start + offset)?.chars().count() + 1)
}

/// Removes compatibility forms, combining marks and case.
fn normalize(text: &str) -> String {
    text.nfkd().filter(|c| !is_combining_mark(*c)).collect::<String>().to_lowercase()
}

fn unescape(html: &str) -> String {
    html.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&#39;", "'")
        .replace("&#x27;", "'")
        .replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(snippet: &str, query: &str, fuzzy: bool) -> Vec<&'static str> {
        let pieces = read_snippet(snippet, query, fuzzy);
        pieces.iter().filter_map(|piece| piece.kind).map(MatchKind::name).collect()
    }

    #[test]
    fn a_mark_says_how_it_matched() {
        let snippet = "<mark>USB</mark>-C, <mark>port</mark>able, ex<mark>port</mark>";
        assert_eq!(kinds(snippet, "usb port", false), ["whole word", "prefix", "substring"]);
        assert_eq!(kinds("a <mark>serach</mark>", "search", true), ["fuzzy"]);
        assert_eq!(kinds("a <mark>café</mark>", "cafe", true), ["whole word"]);
    }

    #[test]
    fn the_text_of_a_snippet_is_unescaped_once() {
        let pieces = read_snippet("…&lt;b&gt; &amp;lt; <mark>&quot;x&#39;</mark>…", "x", false);
        let texts: Vec<_> = pieces.iter().map(|piece| piece.text.as_str()).collect();
        assert_eq!(texts, ["…<b> &lt; ", "\"x'", "…"]);
    }

    #[test]
    fn the_position_of_the_first_mark_counts_characters_of_the_text() {
        let body = "äöü the quick fox jumps";
        let pieces = read_snippet("…the quick <mark>fox</mark>…", "fox", false);
        assert_eq!(first_mark_in(body, &pieces), Some(15));
        assert_eq!(first_mark_in("other", &pieces), None);
        assert_eq!(first_mark_in(body, &read_snippet("the quick fox", "fax", true)), None);
    }
}
