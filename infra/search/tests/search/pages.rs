//! Order, bounds, cursors, totals, scopes and snippets of whole pages.

use chat_domain::{AppToken, ChatNumber, Position, Timestamp};
use chat_ports::search_index::{Document, IndexChanges, MessageKey, Scope, SearchPage, SearchRequest, Sort};

use crate::fixture::{Fixture, app, key, message, request, texts};

/// 60 messages in 6 commits, of which 40 match "fox" in different ways. One more commit has some of them again, of all
/// times, as edited ones are, and another one has taken away ten more that would match. These are 7 segments: with 8, they
/// would be merged.
fn many() -> Fixture {
    let mut fixture = Fixture::new();
    let nth = |number: u64| {
        let text = ["fox", "foxes", "outfoxed", "fox fox", "cat", "fox gone"];
        message(number, &format!("{} {number}", text[usize::try_from(number % 6).unwrap()]))
    };
    for batch in 0..6 {
        fixture.put((batch * 10 + 1..=batch * 10 + 10).map(nth).collect());
    }
    fixture.put([7, 31, 56].map(nth).to_vec());
    let delete = (5..60).step_by(6).map(key).collect();
    fixture.writer.commit(IndexChanges { delete, ..fixture.next_changes() }).unwrap();
    fixture
}

fn all_pages(fixture: &Fixture, request: &SearchRequest) -> Vec<SearchPage> {
    let mut pages = Vec::new();
    let mut cursor = None;
    loop {
        let page = fixture.index.search(&SearchRequest { cursor, ..request.clone() }).unwrap();
        cursor = page.next;
        pages.push(page);
        if cursor.is_none() {
            return pages;
        }
    }
}

#[test]
fn pages_together_are_what_one_page_would_be() {
    let fixture = many();
    for sort in [Sort::Relevance, Sort::Newest, Sort::Oldest] {
        let whole = fixture.index.search(&SearchRequest { sort, ..request("fox") }).unwrap();
        assert_eq!((whole.hits.len(), whole.total, whole.next), (40, 40, None));
        for limit in [1, 3, 7, 20, 39, 40, 41] {
            let pages = all_pages(&fixture, &SearchRequest { sort, limit, ..request("fox") });
            assert_eq!(pages.len(), 40_usize.div_ceil(limit), "{sort:?} by {limit}");
            assert!(pages.iter().all(|page| page.total == 40));
            let hits: Vec<_> = pages.into_iter().flat_map(|page| page.hits).collect();
            assert_eq!(hits, whole.hits, "{sort:?} by {limit}");
        }
    }
}

#[test]
fn newest_and_oldest_go_by_creation_whatever_the_score() {
    let fixture = Fixture::of(&["fox", "outfoxed", "foxes"]);
    let sorted = |sort| texts(&fixture.index.search(&SearchRequest { sort, ..request("fox") }).unwrap());
    assert_eq!(sorted(Sort::Newest), ["foxes", "outfoxed", "fox"]);
    assert_eq!(sorted(Sort::Oldest), ["fox", "outfoxed", "foxes"]);
}

#[test]
fn bounds_take_in_both_ends() {
    let fixture = many();
    let (from, to) = (Some(Timestamp::from_millis(12_000)), Some(Timestamp::from_millis(15_000)));
    let page = fixture
        .index
        .search(&SearchRequest {
            created_from: from,
            created_until: to,
            sort: Sort::Oldest,
            ..request("fox")
        })
        .unwrap();
    assert_eq!(texts(&page), ["fox 12", "foxes 13", "outfoxed 14", "fox fox 15"]);
    assert_eq!(page.total, 4);
    let page =
        fixture.index.search(&SearchRequest { created_until: from, limit: 2, ..request("fox") }).unwrap();
    assert_eq!((page.total, page.next.is_some()), (8, true));
    let late = SearchRequest { created_from: to, sort: Sort::Newest, limit: 2, ..request("fox") };
    let page = fixture.index.search(&late).unwrap();
    assert_eq!((&texts(&page)[..], page.total), (&["fox 60", "fox fox 57"].map(str::to_owned)[..], 30));
}

#[test]
fn a_page_of_nothing_still_counts() {
    let page = many().index.search(&SearchRequest { limit: 0, ..request("fox") }).unwrap();
    assert_eq!((page.hits.len(), page.total, page.next), (0, 40, None));
}

#[test]
fn a_page_says_as_of_which_position_it_is() {
    let fixture = many();
    assert_eq!(fixture.index.search(&request("fox")).unwrap().position, Position::new(8));
    assert_eq!(fixture.index.position(), Position::new(8));
}

#[test]
fn a_scope_is_one_chat_or_all_chats_of_one_app() {
    let other_app = AppToken::parse(&"m".repeat(AppToken::LENGTH)).unwrap();
    let second = ChatNumber::parse("12").unwrap();
    let at = |number: u64, app: AppToken, chat: ChatNumber| Document {
        key: MessageKey { app, chat, ..message(number, "").key },
        ..message(number, &format!("fox {number}"))
    };
    let mut fixture = Fixture::new();
    fixture.put(vec![
        at(1, app(), ChatNumber::FIRST),
        at(2, app(), second),
        at(3, other_app, ChatNumber::FIRST),
        at(4, other_app, second),
    ]);
    let find = |scope| texts(&fixture.index.search(&SearchRequest { scope, ..request("fox") }).unwrap());
    assert_eq!(find(Scope::Chat(app(), ChatNumber::FIRST)), ["fox 1"]);
    assert_eq!(find(Scope::Chat(app(), second)), ["fox 2"]);
    assert_eq!(find(Scope::App(app())), ["fox 2", "fox 1"]);
    assert_eq!(find(Scope::App(other_app)), ["fox 4", "fox 3"]);
    assert!(find(Scope::Chat(app(), ChatNumber::parse("2").unwrap())).is_empty());
}

#[test]
fn a_hit_carries_the_whole_message() {
    let fixture = Fixture::of(&["  A fox\n\u{202e}<b>  "]);
    let page = fixture.index.search(&request("fox")).unwrap();
    assert_eq!(page.hits[0].document, message(1, "  A fox\n\u{202e}<b>  "));
}

#[test]
fn a_snippet_is_escaped_and_marks_what_matched() {
    let fixture = Fixture::of(&["<script>alert('fox & \"foxes\"')</script>"]);
    let page = fixture.index.search(&request("fox")).unwrap();
    assert_eq!(
        page.hits[0].snippet,
        "&lt;script&gt;alert(&#39;<mark>fox</mark> &amp; &quot;<mark>fox</mark>es&quot;&#39;)&lt;/script&gt;"
    );
}
