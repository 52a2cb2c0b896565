//! Snippets: the text around the best match, as HTML.

use std::ops::Range;

use crate::likely_places::find_likely_places;
use crate::occurrences::{Occurrence, find_occurrences, score_visible};
use crate::query_parser::{Clause, parse_query};
use crate::text::normalize::bounded_clusters;
use crate::text::tokenize::TokenizedText;

/// The approximate length of a snippet, in grapheme clusters.
const SNIPPET_CHARS: usize = 160;

/// The approximate number of clusters before the match.
const LEADING_CHARS: usize = 40;

/// The approximate number of clusters from the start of the match to the end of the snippet.
const SHOWN_AFTER_ANCHOR: usize = SNIPPET_CHARS - LEADING_CHARS;

/// The maximum number of clusters by which a cut moves to fall between words.
const MAX_CUT_SHIFT: usize = 20;

/// The size up to which a text is tokenized as a whole, in bytes. Of a longer text, excerpts are tokenized first.
const MAX_WHOLE_BYTES: usize = 4 << 10;

/// The bytes of an excerpt before and after the place that it was made for. A snippet of ordinary text needs far
/// fewer.
const EXCERPT_MARGIN: usize = 2 << 10;

/// The maximum number of likely places of a text for which excerpts are made and compared.
const MAX_EXCERPTS: usize = 4;

/// The maximum number of bytes by which an end of an excerpt moves to fall between words.
const MAX_EXCERPT_CUT_SHIFT: usize = 256;

const ELLIPSIS: char = '…';

/// Returns the snippet of a text for a query, as a hit of a search has it. `fuzzy` says whether typing errors in words
/// of the query are tolerated.
pub fn snippet(text: &str, query: &str, fuzzy: bool) -> String {
    build_snippet(text, &parse_query(query), fuzzy)
}

/// Returns the escaped text around the best match, with `<mark>` around each match.
///
/// Of a long text, only excerpts are tokenized: those with the best scores as estimated by a search of the untokenized
/// bytes. If none has a match, the whole text is tokenized, unless typing errors are tolerated. In a long text, words
/// with typing errors are looked for at the start, and may be missed elsewhere.
pub(crate) fn build_snippet(body: &str, clauses: &[Clause], fuzzy: bool) -> String {
    if body.len() <= MAX_WHOLE_BYTES {
        return Excerpt::new(body, 0..body.len(), clauses, fuzzy).render(body);
    }
    let places = find_likely_places(body, clauses, SHOWN_AFTER_ANCHOR, MAX_EXCERPTS);
    let mut best: Option<Excerpt<'_>> = None;
    if fuzzy || places.is_empty() {
        best = Some(Excerpt::new(body, excerpt_range(body, 0), clauses, fuzzy));
    }
    for place in places {
        if best.as_ref().is_some_and(|best| best.score >= place.score) {
            break;
        }
        let excerpt = Excerpt::new(body, excerpt_range(body, place.byte), clauses, false);
        if best.as_ref().is_none_or(|best| best.score < excerpt.score) {
            best = Some(excerpt);
        }
    }
    // No excerpt has a match: there was no likely place, or only doubtful ones. A match may be anywhere in the text.
    if !fuzzy && best.as_ref().is_none_or(|best| best.score == 0) {
        best = Some(Excerpt::new(body, 0..body.len(), clauses, false));
    }
    best.map(|excerpt| excerpt.centered(body, clauses, fuzzy).render(body)).unwrap_or_default()
}

/// The bytes around a place, cut between words if there are spaces.
fn excerpt_range(body: &str, byte: usize) -> Range<usize> {
    let cut = |from: usize, to: usize| {
        let space = body.as_bytes()[from..to].iter().position(u8::is_ascii_whitespace);
        body.floor_char_boundary(space.map_or(from, |space| from + space + 1))
    };
    let start = match byte.saturating_sub(EXCERPT_MARGIN) {
        0 => 0,
        start => cut(start, start + MAX_EXCERPT_CUT_SHIFT),
    };
    let end = byte + EXCERPT_MARGIN;
    let end = if end >= body.len() { body.len() } else { cut(end - MAX_EXCERPT_CUT_SHIFT, end) };
    start..end
}

/// A tokenized part of a text.
struct Excerpt<'a> {
    /// The bytes of the part in the text. All other offsets are from the start of the part.
    range: Range<usize>,
    /// The grapheme clusters, with their byte offsets.
    clusters: Vec<(usize, &'a str)>,
    occurrences: Vec<Occurrence>,
    /// The byte offset of the occurrence whose snippet matches most of the query.
    anchor: usize,
    /// The score of that snippet.
    score: u32,
}

impl<'a> Excerpt<'a> {
    fn new(body: &'a str, range: Range<usize>, clauses: &[Clause], fuzzy: bool) -> Self {
        let text = &body[range.clone()];
        let occurrences = find_occurrences(&TokenizedText::new(text), clauses, fuzzy);
        let clusters: Vec<(usize, &str)> = bounded_clusters(text).collect();
        let (score, anchor) = best_anchor(&occurrences, &clusters);
        Self { range, clusters, occurrences, anchor, score }
    }

    /// Returns this excerpt. If the anchor is so near to an edge of it that the snippet could be cut there, returns a
    /// new excerpt around the anchor.
    fn centered(self, body: &'a str, clauses: &[Clause], fuzzy: bool) -> Self {
        let anchor = self.range.start + self.anchor;
        let is_near =
            |edge: usize, body_edge: usize| edge != body_edge && anchor.abs_diff(edge) < EXCERPT_MARGIN / 2;
        if is_near(self.range.start, 0) || is_near(self.range.end, body.len()) {
            return Self::new(body, excerpt_range(body, anchor), clauses, fuzzy);
        }
        self
    }

    fn render(self, body: &str) -> String {
        let offset = self.range.start;
        let window = visible_range(&body[self.range], &self.clusters, self.anchor);
        let marks = self.occurrences.into_iter().map(|occurrence| shift(&occurrence.bytes, offset)).collect();
        render(body, &shift(&window, offset), &merge_ranges(marks))
    }
}

fn shift(range: &Range<usize>, offset: usize) -> Range<usize> {
    range.start + offset..range.end + offset
}

/// Returns the score and the byte offset of the occurrence whose snippet matches most of the query: the first of
/// equals.
fn best_anchor(occurrences: &[Occurrence], clusters: &[(usize, &str)]) -> (u32, usize) {
    let cluster_at = |byte: usize| clusters.partition_point(|(offset, _)| *offset < byte);
    let mut best = (0, 0);
    for (index, anchor) in occurrences.iter().enumerate() {
        let end = clusters
            .get(cluster_at(anchor.bytes.start) + SHOWN_AFTER_ANCHOR)
            .map_or(usize::MAX, |(offset, _)| *offset);
        let visible = occurrences[index..].iter().take_while(|occurrence| occurrence.bytes.end <= end);
        let score = score_visible(visible.map(|occurrence| (occurrence.clause, occurrence.match_kind)));
        if score > best.0 {
            best = (score, anchor.bytes.start);
        }
    }
    best
}

/// The bytes to show around an anchor: cut between clusters, and between words if a word ends nearby.
fn visible_range(body: &str, clusters: &[(usize, &str)], anchor_byte: usize) -> Range<usize> {
    let is_space = |index: usize| clusters.get(index).is_some_and(|(_, cluster)| cluster.trim().is_empty());
    let byte = |index: usize| clusters.get(index).map_or(body.len(), |(offset, _)| *offset);
    let anchor = clusters.partition_point(|(offset, _)| *offset < anchor_byte);
    // Near the end of the text, the snippet starts earlier, so that it is not shorter.
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
    use proptest::prelude::*;

    use super::*;

    fn snippet_for(body: &str, query: &str) -> String {
        snippet(body, query, false)
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

    /// The snippet of a text that is tokenized as a whole, however long it is.
    fn snippet_of_whole(body: &str, query: &str, fuzzy: bool) -> String {
        Excerpt::new(body, 0..body.len(), &parse_query(query), fuzzy).render(body)
    }

    fn assert_same_snippet(body: &str, query: &str) {
        assert!(body.len() > MAX_WHOLE_BYTES);
        assert_eq!(snippet_for(body, query), snippet_of_whole(body, query, false), "{query}");
    }

    #[test]
    fn shows_the_best_match_of_a_long_text_wherever_it_is() {
        let filler = "A platform in the middle of a quiet reform, and e\u{301}tudes. ".repeat(90);
        for needle in ["a form", "Formular", "FO\u{301}RM", "the big -- CAT", "l'homme", "我喜欢吃苹果", "😀"]
        {
            for place in [0, 60, 3_000, filler.len() - 3] {
                let place =
                    filler[..filler.floor_char_boundary(place)].rfind(' ').map_or(0, |space| space + 1);
                let body = format!("{}{needle} {}", &filler[..place], &filler[place..]);
                for query in [
                    "form",
                    "form middle",
                    "\"big cat\"",
                    "big cat the",
                    "homme",
                    "吃苹",
                    "😀",
                    "of",
                    "nothing",
                ] {
                    assert_same_snippet(&body, query);
                }
            }
        }
    }

    #[test]
    fn shows_a_short_word_among_many_words_that_contain_it() {
        let body = format!("{} of {}", "soft ".repeat(2_000), "often ".repeat(2_000));
        assert_same_snippet(&body, "of");
        assert!(snippet_for(&body, "of").contains(" <mark>of</mark> "));
    }

    #[test]
    fn finds_typing_errors_at_the_start_of_a_long_text() {
        let body = format!("a serach box {}", "and more of it ".repeat(1_000));
        let clauses = parse_query("search");
        assert_eq!(build_snippet(&body, &clauses, true), snippet_of_whole(&body, "search", true));
        assert!(build_snippet(&body, &clauses, true).contains("<mark>serach</mark>"));
    }

    #[test]
    fn excerpts_of_a_text_without_spaces_miss_no_match() {
        for unit in ["漢字", "กขค", "a", "\u{301}", "😀", "e\u{301}\u{302}\u{303}"] {
            let half = unit.repeat(3_000 / unit.len());
            let body = format!("{half}苹果{half}");
            for query in ["苹果", "漢字", "กข", "aaa", "😀", "e"] {
                let html = snippet_for(&body, query);
                assert_eq!(html.contains("<mark>"), snippet_of_whole(&body, query, false).contains("<mark>"));
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]
        #[test]
        fn a_long_text_of_ordinary_words_has_the_snippet_of_the_whole(
            words in prop::collection::vec(
                prop::sample::select(vec![
                    "fox", "Fox,", "foxes", "outfox", "brown", "brown-fox", "fo_x", "bröwn", "лиса", "Лисы", "quick!\n",
                    "的狐狸很快", "😀", "<b>", "it's", "an", "and", "band", "3.14", "...",
                ]),
                900..1_500,
            ),
            query in prop::sample::select(vec![
                "fox", "brown fox", "\"brown fox\"", "лис", "狐狸", "an", "it's", "\"it's an\"", "😀 quick", "3.14 fox",
                "quick лиса 狐狸", "\"fox brown\" band",
            ]),
        ) {
            let body = words.join(" ");
            prop_assert!(body.len() > MAX_WHOLE_BYTES);
            prop_assert_eq!(snippet_for(&body, query), snippet_of_whole(&body, query, false));
        }
    }
}
