//! Properties of searches in generated and hostile texts: matches, order, pages, snippets and speed.

use std::time::{Duration, Instant};

use chat_domain::{ChatNumber, Timestamp};
use chat_ports::search_index::{Document, IndexChanges, Scope, SearchRequest, Sort, Total};
use proptest::prelude::*;

use crate::fixture::{Fixture, app, key, message, request};

/// Text of letters of many scripts, marks, joiners, emoji and punctuation.
pub fn any_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[a-zA-Z]{1,9}",
        "[à-žА-я]{1,6}",
        "[\u{0621}-\u{064A}\u{064B}-\u{0652}]{1,6}",
        "[\u{05D0}-\u{05EA}\u{05B0}-\u{05BC}\"']{1,6}",
        "[\u{0904}-\u{0950}]{1,6}",
        "[\u{0E01}-\u{0E3A}\u{0E40}-\u{0E4E}]{1,8}",
        "[\u{4E00}-\u{4E20}\u{3041}-\u{3060}\u{30A1}-\u{30C0}]{1,6}",
        "[가-깋]{1,5}",
        "[😀-😏🇦-🇿\u{200D}\u{FE0F}\u{1F3FB}]{1,5}",
        "[ .,'’_·\"\u{200B}\u{200C}\u{AD}-]{1,3}",
        "\\PC{1,4}",
    ];
    prop::collection::vec(piece, 1..12).prop_map(|pieces| pieces.concat())
}

/// The runs of ASCII letters in a text.
fn letter_runs(text: &str) -> Vec<Vec<char>> {
    let runs = text.split(|c: char| !c.is_ascii_alphabetic()).filter(|run| !run.is_empty());
    runs.map(|run| run.chars().collect()).collect()
}

/// Moves messages with even numbers to the second chat.
fn spread_over_two_chats(mut message: Document) -> Document {
    if message.key.message.get().is_multiple_of(2) {
        message.key.chat = ChatNumber::try_from(2).unwrap();
    }
    message
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_finds_itself(texts in prop::collection::vec(any_text(), 1..8)) {
        // Quotes in a query are syntax. The indexed texts have none either: a combining mark after a quote would lose
        // its base character, the quote, in the query alone.
        let is_quote = |c: char| matches!(c, '"' | '“' | '”' | '„' | '‟' | '«' | '»' | '＂');
        let texts: Vec<String> = texts.iter().map(|text| text.replace(is_quote, "")).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let fixture = Fixture::with_texts(&texts);
        for text in &texts {
            let words = chat_search::count_query_words(text);
            prop_assert!(words == 0 || fixture.finds(text, text), "{text:?}");
        }
    }

    #[test]
    fn prefixes_and_substrings_find_exactly_the_matching_texts(
        texts in prop::collection::vec("[a-d]{1,12}( [a-d]{1,12}){0,3}", 1..10),
        from in 0_usize..12,
        length in 1_usize..12,
    ) {
        let all: Vec<&str> = texts.iter().map(String::as_str).collect();
        let fixture = Fixture::with_texts(&all);
        for text in &all {
            for run in letter_runs(text) {
                let from = from % run.len();
                let part: String = run[from..].iter().take(length).collect();
                let mut expected: Vec<&str> = all
                    .iter()
                    .copied()
                    .filter(|other| other.split(' ').any(|word| {
                        word.starts_with(&part) || (part.len() > 2 && word.contains(&part))
                    }))
                    .collect();
                let mut found = fixture.find(&part);
                expected.sort_unstable();
                found.sort_unstable();
                prop_assert_eq!(found, expected, "{}", part);
            }
        }
    }

    #[test]
    fn a_phrase_finds_exactly_the_matching_texts(
        texts in prop::collection::vec("[ab]{1,2}( [ab]{1,2}){0,5}", 1..10),
        phrase in "[ab]{1,2}( [ab]{1,2}){0,2}",
    ) {
        let all: Vec<&str> = texts.iter().map(String::as_str).collect();
        let fixture = Fixture::with_texts(&all);
        let words: Vec<&str> = phrase.split(' ').collect();
        let mut expected: Vec<&str> = all
            .iter()
            .copied()
            .filter(|text| text.split(' ').collect::<Vec<_>>().windows(words.len()).any(|window| window == words))
            .collect();
        let mut found = fixture.find(&format!("\"{phrase}\""));
        expected.sort_unstable();
        found.sort_unstable();
        prop_assert_eq!(found, expected);
    }

    /// The order by relevance scores all matches. The other orders score only the matches on the page, except in a
    /// fuzzy search. A hit must have the same score in every order.
    #[test]
    fn every_order_finds_the_same_hits_with_the_same_scores(
        texts in prop::collection::vec(any_text(), 1..8),
        similar_texts in prop::collection::vec("[ab漢字'.]{1,9}( [ab漢字'.]{1,9}){0,3}", 1..60),
        (messages_per_commit, delete_every) in (1_usize..30, 2_u64..20),
        (queried_text, from, length) in (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1_usize..10),
        (fuzzy, limit) in (any::<bool>(), 0_usize..6),
    ) {
        let texts: Vec<String> = texts.into_iter().chain(similar_texts).collect();
        let mut fixture = Fixture::new();
        let messages: Vec<_> = (1..).zip(&texts).map(|(number, text)| message(number, text)).collect();
        for messages in messages.chunks(messages_per_commit) {
            fixture.upsert(messages.iter().cloned().map(spread_over_two_chats).collect());
        }
        let deleted_keys = messages.iter().cloned().map(spread_over_two_chats).map(|message| message.key);
        let deleted_keys = deleted_keys.filter(|key| key.message.get().is_multiple_of(delete_every)).collect();
        fixture.writer.commit(IndexChanges { delete: deleted_keys, ..fixture.next_changes() }).unwrap();

        let chars: Vec<char> = queried_text.get(&texts).chars().collect();
        let query: String = chars[from.index(chars.len())..].iter().take(length).collect();
        for scope in [Scope::App(app()), request("").scope] {
            let request = SearchRequest { fuzzy, scope, ..request(&query) };
            let found = |sort, limit| {
                let page = fixture.index.search(&SearchRequest { sort, limit, ..request.clone() }).unwrap();
                let hits = page.hits.iter().map(|hit| (hit.document.created_position, hit.score));
                (page.total.count(), hits.collect::<Vec<_>>())
            };
            let (total, mut all) = found(Sort::Relevance, texts.len());
            prop_assert!(all.iter().all(|(_, score)| *score > 0), "{:?} in {:?}", query, texts);
            all.sort_unstable();
            let first_page = |hits: &[_]| (total, hits[..limit.min(hits.len())].to_vec());
            prop_assert_eq!(found(Sort::Oldest, texts.len()), (total, all.clone()), "{:?} in {:?}", query, texts);
            prop_assert_eq!(found(Sort::Oldest, limit), first_page(&all), "{:?} in {:?}", query, texts);
            all.reverse();
            prop_assert_eq!(found(Sort::Newest, limit), first_page(&all), "{:?} in {:?}", query, texts);
        }
    }

    /// If no message of a segment can be on the page, the segment's matches are only counted. Once enough matches are
    /// counted, such a segment is skipped.
    #[test]
    fn pages_and_totals_do_not_depend_on_skipped_segments(
        texts in prop::collection::vec("(ab|abc|b)( (ab|abc|b)){0,2}", 1..40),
        (messages_per_commit, delete_every) in (6_usize..12, 2_u64..20),
        (query, fuzzy) in ("(ab|b|\"ab b\"|abcd)( ab)?", any::<bool>()),
        (limit, count_up_to) in (1_usize..5, 0_u64..20),
        created_from in prop::option::of(0_i64..40_000),
    ) {
        let mut fixture = Fixture::new();
        let messages: Vec<_> = (1..).zip(&texts).map(|(number, text)| message(number, text)).collect();
        for messages in messages.chunks(messages_per_commit) {
            fixture.upsert(messages.to_vec());
        }
        let delete = (1..=messages.len() as u64).filter(|number| number.is_multiple_of(delete_every)).map(key);
        fixture.writer.commit(IndexChanges { delete: delete.collect(), ..fixture.next_changes() }).unwrap();
        for sort in [Sort::Relevance, Sort::Newest, Sort::Oldest] {
            let created_from = created_from.map(Timestamp::from_millis);
            // All matches are on this page, so all segments are read.
            let all = SearchRequest { fuzzy, sort, created_from, ..request(&query) };
            let expected = fixture.index.search(&all).unwrap().hits;
            let expected_total = match expected.len() as u64 {
                total if total > count_up_to => Total::MoreThan(count_up_to),
                total => Total::Exactly(total),
            };
            let (mut hits, mut request) = (Vec::new(), SearchRequest { limit, count_up_to, ..all });
            loop {
                let page = fixture.index.search(&request).unwrap();
                prop_assert_eq!(page.total, expected_total);
                hits.extend(page.hits);
                request.cursor = page.next;
                if request.cursor.is_none() {
                    break;
                }
            }
            prop_assert_eq!(hits, expected);
        }
    }

    #[test]
    fn a_snippet_is_the_text_except_for_marks_and_cuts(text in any_text(), from in any::<prop::sample::Index>()) {
        let chars: Vec<char> = text.chars().collect();
        let from = from.index(chars.len());
        let query: String = chars[from..].iter().take(4).collect();
        let fixture = Fixture::with_texts(&[&text]);
        for hit in fixture.index.search(&request(&query)).unwrap().hits {
            prop_assert_eq!(hit.snippet.matches("<mark>").count(), hit.snippet.matches("</mark>").count());
            prop_assert!(hit.snippet.contains("<mark>"), "{:?} in {:?}: {}", query, text, hit.snippet);
            let plain = hit.snippet.replace("<mark>", "").replace("</mark>", "");
            prop_assert!(!plain.contains(['<', '>', '"', '\'']));
            let plain = plain
                .replace("&lt;", "<")
                .replace("&gt;", ">")
                .replace("&quot;", "\"")
                .replace("&#39;", "'")
                .replace("&amp;", "&");
            prop_assert!(text.contains(plain.trim_matches('…')), "{:?} from {:?}", plain, text);
        }
    }
}

/// Bodies of about the maximum length, of characters that may slow an index down or make it fail.
fn hostile_bodies() -> Vec<String> {
    let fill = |piece: &str| piece.repeat(65_536 / piece.len());
    vec![
        fill("a"),
        fill("ab"),
        fill("\u{301}"),
        format!("e{}", fill("\u{301}\u{323}").get(..65_532).unwrap()),
        fill("😀"),
        fill("🇩"),
        fill("👩\u{200D}"),
        fill("\u{202E}x\u{2067}"),
        fill("漢"),
        fill("가"),
        fill("\u{1100}"),
        fill("ก"),
        fill("क्"),
        fill("\u{FDFA}"),
        fill("a'"),
        fill("\"a "),
        fill("a."),
        fill("\u{200B}"),
        fill("\u{FFFF}"),
        fill("<\"&'>"),
        fill("x "),
    ]
}

#[test]
fn indexes_and_searches_hostile_bodies_in_time() {
    let bodies = hostile_bodies();
    let texts: Vec<&str> = bodies.iter().map(String::as_str).collect();
    let started = Instant::now();
    let fixture = Fixture::with_texts(&texts);
    for text in &texts {
        let query: String = text.chars().take(300).collect();
        for query in [query.clone(), format!("\"{query}\"")] {
            for hit in fixture.index.search(&SearchRequest { fuzzy: true, ..request(&query) }).unwrap().hits {
                assert!(hit.snippet.len() < 100_000, "a snippet has {} bytes", hit.snippet.len());
            }
        }
    }
    assert!(started.elapsed() < Duration::from_mins(5), "it took {:?}", started.elapsed());
}
