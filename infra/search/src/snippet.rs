//! Snippets: the text around the best match, as HTML.

use std::ops::Range;

use crate::occurrences::{Occurrence, find_occurrences};
use crate::query_parser::{Clause, MAX_QUERY_WORDS};
use crate::text::normalize::bounded_clusters;
use crate::text::tokenize::TokenizedText;

/// The approximate length of a snippet, in grapheme clusters.
const SNIPPET_CHARS: usize = 160;

/// The approximate number of clusters before the match.
const LEADING_CHARS: usize = 40;

/// The maximum number of clusters that a cut moves to fall between words.
const MAX_CUT_SHIFT: usize = 20;

const ELLIPSIS: char = '…';

/// The escaped text around the best match, with `<mark>` around what matched.
pub(crate) fn build_snippet(body: &str, clauses: &[Clause], fuzzy: bool) -> String {
    let occurrences = find_occurrences(&TokenizedText::new(body), clauses, fuzzy);
    let clusters: Vec<(usize, &str)> = bounded_clusters(body).collect();
    let anchor = best_anchor(&occurrences, &clusters);
    let window = visible_range(body, &clusters, anchor);
    let marks = merge_ranges(occurrences.into_iter().map(|occurrence| occurrence.bytes).collect());
    render(body, &window, &marks)
}

/// The byte offset of the occurrence whose snippet matches most of the query; the first of equals.
fn best_anchor(occurrences: &[Occurrence], clusters: &[(usize, &str)]) -> usize {
    let cluster_at = |byte: usize| clusters.partition_point(|(offset, _)| *offset < byte);
    let mut best = (0, 0);
    for (index, anchor) in occurrences.iter().enumerate() {
        let end = clusters
            .get(cluster_at(anchor.bytes.start) + SNIPPET_CHARS - LEADING_CHARS)
            .map_or(usize::MAX, |(offset, _)| *offset);
        // The score of each clause's best occurrence in the snippet.
        let mut scores = [0_u8; MAX_QUERY_WORDS];
        let visible = occurrences[index..].iter().take_while(|occurrence| occurrence.bytes.end <= end);
        for occurrence in visible.take(MAX_NEARBY_OCCURRENCES) {
            if let Some(score) = scores.get_mut(occurrence.clause) {
                *score = (*score).max(occurrence.match_kind as u8);
            }
        }
        let score: u32 = scores.iter().map(|score| u32::from(*score)).sum();
        if score > best.0 {
            best = (score, anchor.bytes.start);
        }
    }
    best.1
}

/// The maximum number of occurrences that count for one anchor.
const MAX_NEARBY_OCCURRENCES: usize = 64;

/// The bytes to show around an anchor: cut between clusters, and between words if a word ends nearby.
fn visible_range(body: &str, clusters: &[(usize, &str)], anchor: usize) -> Range<usize> {
    let is_space = |index: usize| clusters.get(index).is_some_and(|(_, cluster)| cluster.trim().is_empty());
    let byte = |index: usize| clusters.get(index).map_or(body.len(), |(offset, _)| *offset);
    let anchor = clusters.partition_point(|(offset, _)| *offset < anchor);
    // Near the end of the text, the snippet starts earlier instead.
    let lead = LEADING_CHARS.max(SNIPPET_CHARS.saturating_sub(clusters.len() - anchor));
    let mut start = anchor.saturating_sub(lead);
    if start <= MAX_CUT_SHIFT / 2 {
        start = 0;
    } else if !is_space(start - 1) {
        let to = anchor.min(start + MAX_CUT_SHIFT);
        start = (start..to).find(|index| is_space(*index)).map_or(start, |space| space + 1);
    }
    let mut end = clusters.len().min(start + SNIPPET_CHARS);
    if clusters.len() - end <= MAX_CUT_SHIFT / 2 {
        end = clusters.len();
    } else if !is_space(end) {
        let from = (anchor + 1).max(end.saturating_sub(MAX_CUT_SHIFT));
        end = (from..end).rev().find(|index| is_space(*index)).unwrap_or(end);
    }
    byte(start)..byte(end)
}

/// Sorts ranges, and merges those that overlap or touch.
fn merge_ranges(mut ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    ranges.sort_unstable_by_key(|range| (range.start, range.end));
    let mut merged: Vec<Range<usize>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

fn render(body: &str, window: &Range<usize>, marks: &[Range<usize>]) -> String {
    let mut html = String::with_capacity(window.len() + 64);
    if window.start > 0 {
        html.push(ELLIPSIS);
    }
    let mut rendered_end = window.start;
    for mark in marks {
        let (start, end) = (mark.start.max(window.start), mark.end.min(window.end));
        if start < end {
            escape(&mut html, &body[rendered_end..start]);
            html.push_str("<mark>");
            escape(&mut html, &body[start..end]);
            html.push_str("</mark>");
            rendered_end = end;
        }
    }
    escape(&mut html, &body[rendered_end..window.end]);
    if window.end < body.len() {
        html.push(ELLIPSIS);
    }
    html
}

fn escape(html: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            _ => html.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query_parser::parse_query;

    fn snippet_for(body: &str, query: &str) -> String {
        build_snippet(body, &parse_query(query), false)
    }

    #[test]
    fn marks_matches() {
        for (body, query, html) in [
            ("The quick brown fox", "FOX", "The quick brown <mark>fox</mark>"),
            ("The quick brown fox", "qui", "The <mark>qui</mark>ck brown fox"),
            ("The quick brown fox", "row", "The quick b<mark>row</mark>n fox"),
            ("The quick brown fox", "fox quick", "The <mark>quick</mark> brown <mark>fox</mark>"),
            ("The quick brown fox", "\"quick brown\"", "The <mark>quick brown</mark> fox"),
            ("brown, quick; quick -- brown", "\"quick brown\"", "brown, quick; <mark>quick -- brown</mark>"),
            ("Crème brûlée", "creme", "<mark>Crème</mark> brûlée"),
            ("我喜欢吃苹果", "苹果", "我喜欢吃<mark>苹果</mark>"),
            ("a 👨‍👩‍👧 b", "👨‍👩‍👧", "a <mark>👨‍👩‍👧</mark> b"),
            ("l'homme", "homme", "l&#39;<mark>homme</mark>"),
        ] {
            assert_eq!(snippet_for(body, query), html);
        }
    }

    #[test]
    fn marks_whole_words_prefixes_and_substrings() {
        assert_eq!(
            snippet_for("form of a platform for forms", "form"),
            "<mark>form</mark> of a plat<mark>form</mark> for <mark>form</mark>s"
        );
    }

    #[test]
    fn escapes_text_but_not_marks() {
        assert_eq!(
            snippet_for("<b>\"R&D\"</b> 'x'", "b"),
            "&lt;<mark>b</mark>&gt;&quot;R&amp;D&quot;&lt;/<mark>b</mark>&gt; &#39;x&#39;"
        );
    }

    #[test]
    fn a_grapheme_is_never_split() {
        assert_eq!(snippet_for("e\u{301}a", "e"), "<mark>e\u{301}</mark>a");
        assert_eq!(snippet_for("हिन्दी", "हि"), "<mark>हि</mark>न्दी");
        let body = "e\u{301}".repeat(1_000);
        let html = snippet_for(&body, "eee");
        assert!(html.contains("\u{301}</mark>…"), "{html}");
    }

    #[test]
    fn a_long_text_is_cut_between_words_around_the_match() {
        let body = format!("{} needle {}", "before ".repeat(100), "after ".repeat(100));
        let html = snippet_for(&body, "needle");
        assert!(html.starts_with("…before ") && html.ends_with(" after…"), "{html}");
        assert!(html.contains(" <mark>needle</mark> "), "{html}");
        let shown = html.chars().count() - "<mark></mark>".len();
        assert!((130..=165).contains(&shown), "{shown}");
    }

    #[test]
    fn shows_the_part_that_matches_most_of_the_query() {
        let body = format!("fox {} a brown fox", "filler ".repeat(60));
        assert!(snippet_for(&body, "brown fox").ends_with("a <mark>brown</mark> <mark>fox</mark>"));
    }

    #[test]
    fn marks_a_word_with_a_typing_error() {
        assert_eq!(build_snippet("a serach box", &parse_query("search"), true), "a <mark>serach</mark> box");
    }
}
