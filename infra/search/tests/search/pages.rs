//! Pages of hits: order, time ranges, cursors, totals, scopes and snippets.

use chat_domain::{AppToken, ChatNumber, Position, Timestamp};
use chat_ports::MAX_PAGE_BYTES;
use chat_ports::search_index::{Document, IndexChanges, MessageKey, Scope, SearchPage, SearchRequest, Sort};

use crate::fixture::{Fixture, app, key, message, request, texts};

/// 60 messages in 6 commits. A seventh commit replaces messages 7, 31 and 56, as edits do, and an eighth deletes ten
/// that would match "fox". The 40 messages that still match contain "fox" as a word, a prefix or a substring. The last
/// commit adds no segment, so there are 7 segments; 8 would be merged.
fn forty_matches() -> Fixture {
    let mut fixture = Fixture::new();
    let numbered = |number: u64| {
        let text = ["fox", "foxes", "outfoxed", "fox fox", "cat", "fox gone"];
        message(number, &format!("{} {number}", text[usize::try_from(number % 6).unwrap()]))
    };
    for batch in 0..6 {
        fixture.upsert((batch * 10 + 1..=batch * 10 + 10).map(numbered).collect());
    }
    fixture.upsert([7, 31, 56].map(numbered).to_vec());
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
fn pages_together_equal_one_large_page() {
    let fixture = forty_matches();
    for sort in [Sort::Relevance, Sort::Newest, Sort::Oldest] {
        let whole = fixture.index.search(&SearchRequest { sort, ..request("fox") }).unwrap();
        assert_eq!((whole.hits.len(), whole.total.count(), whole.next), (40, 40, None));
        for limit in [1, 3, 7, 20, 39, 40, 41] {
            let pages = all_pages(&fixture, &SearchRequest { sort, limit, ..request("fox") });
            assert_eq!(pages.len(), 40_usize.div_ceil(limit), "{sort:?} by {limit}");
            assert!(pages.iter().all(|page| page.total.count() == 40));
            let hits: Vec<_> = pages.into_iter().flat_map(|page| page.hits).collect();
            assert_eq!(hits, whole.hits, "{sort:?} by {limit}");
        }
    }
}

#[test]
fn a_page_of_large_messages_ends_early_and_continues_with_its_cursor() {
    let texts: Vec<_> = (1..=20).map(|number| format!("fox {number} {}", "x ".repeat(32_000))).collect();
    let fixture = Fixture::with_texts(&texts.iter().map(String::as_str).collect::<Vec<_>>());
    let pages = all_pages(&fixture, &SearchRequest { sort: Sort::Oldest, ..request("fox") });
    for page in &pages {
        let bytes: usize = page.hits.iter().map(|hit| hit.document.body.len()).sum();
        assert!(bytes <= MAX_PAGE_BYTES, "{bytes} bytes on a page");
        assert_eq!(page.total.count(), 20);
    }
    let found: Vec<_> = pages.into_iter().flat_map(|page| page.hits).map(|hit| hit.document.body).collect();
    assert!(found == texts, "the pages hold other texts, or in another order: {} messages", found.len());
}

#[test]
fn newest_and_oldest_order_by_creation_regardless_of_score() {
    let fixture = Fixture::with_texts(&["fox", "outfoxed", "foxes"]);
    let sorted = |sort| texts(&fixture.index.search(&SearchRequest { sort, ..request("fox") }).unwrap());
    assert_eq!(sorted(Sort::Newest), ["foxes", "outfoxed", "fox"]);
    assert_eq!(sorted(Sort::Oldest), ["fox", "outfoxed", "foxes"]);
}

#[test]
fn time_ranges_are_inclusive() {
    let fixture = forty_matches();
    let [second_12, second_15] = [12_000, 15_000].map(|millis| Some(Timestamp::from_millis(millis)));
    let page = fixture
        .index
        .search(&SearchRequest {
            created_from: second_12,
            created_until: second_15,
            sort: Sort::Oldest,
            ..request("fox")
        })
        .unwrap();
    assert_eq!(texts(&page), ["fox 12", "foxes 13", "outfoxed 14", "fox fox 15"]);
    assert_eq!(page.total.count(), 4);
    let page = fixture
        .index
        .search(&SearchRequest { created_until: second_12, limit: 2, ..request("fox") })
        .unwrap();
    assert_eq!((page.total.count(), page.next.is_some()), (8, true));
    let late = SearchRequest { created_from: second_15, sort: Sort::Newest, limit: 2, ..request("fox") };
    let page = fixture.index.search(&late).unwrap();
    assert_eq!(
        (&texts(&page)[..], page.total.count()),
        (&["fox 60", "fox fox 57"].map(str::to_owned)[..], 30)
    );
}

#[test]
fn an_empty_page_has_the_total() {
    let page = forty_matches().index.search(&SearchRequest { limit: 0, ..request("fox") }).unwrap();
    assert_eq!((page.hits.len(), page.total.count(), page.next), (0, 40, None));
}

#[test]
fn a_page_has_the_position_of_its_snapshot() {
    let fixture = forty_matches();
    assert_eq!(fixture.index.search(&request("fox")).unwrap().position, Position::new(8));
    assert_eq!(fixture.index.position(), Position::new(8));
}

#[test]
fn a_scope_is_one_chat_or_all_chats_of_an_app() {
    let other_app = AppToken::parse(&"m".repeat(AppToken::LENGTH)).unwrap();
    let chat_12 = ChatNumber::parse("12").unwrap();
    let message_in = |number: u64, app: AppToken, chat: ChatNumber| Document {
        key: MessageKey { app, chat, ..message(number, "").key },
        ..message(number, &format!("fox {number}"))
    };
    let mut fixture = Fixture::new();
    fixture.upsert(vec![
        message_in(1, app(), ChatNumber::FIRST),
        message_in(2, app(), chat_12),
        message_in(3, other_app, ChatNumber::FIRST),
        message_in(4, other_app, chat_12),
    ]);
    let find = |scope| texts(&fixture.index.search(&SearchRequest { scope, ..request("fox") }).unwrap());
    assert_eq!(find(Scope::Chat(app(), ChatNumber::FIRST)), ["fox 1"]);
    assert_eq!(find(Scope::Chat(app(), chat_12)), ["fox 2"]);
    assert_eq!(find(Scope::App(app())), ["fox 2", "fox 1"]);
    assert_eq!(find(Scope::App(other_app)), ["fox 4", "fox 3"]);
    assert!(find(Scope::Chat(app(), ChatNumber::parse("2").unwrap())).is_empty());
}

#[test]
fn a_hit_has_the_whole_message() {
    let fixture = Fixture::with_texts(&["  A fox\n\u{202e}<b>  "]);
    let page = fixture.index.search(&request("fox")).unwrap();
    assert_eq!(page.hits[0].document, message(1, "  A fox\n\u{202e}<b>  "));
}

#[test]
fn a_snippet_is_escaped_and_marks_matches() {
    let fixture = Fixture::with_texts(&["<script>alert('fox & \"foxes\"')</script>"]);
    let page = fixture.index.search(&request("fox")).unwrap();
    assert_eq!(
        page.hits[0].snippet,
        "&lt;script&gt;alert(&#39;<mark>fox</mark> &amp; &quot;<mark>fox</mark>es&quot;&#39;)&lt;/script&gt;"
    );
}
