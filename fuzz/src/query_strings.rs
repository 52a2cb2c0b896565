//! Query strings. The first byte of a case chooses the route, the rest is the query string.

use crate::server::{app_path, get};

/// Every query string is answered, and the links of a page lead to pages.
pub fn check(case: &[u8]) {
    let Some((route, query)) = case.split_first() else { return };
    let Ok(query) = str::from_utf8(query) else { return };
    // Text after a `#` is a fragment, which is not sent.
    if query.contains('#') {
        return;
    }
    let admin = |rest: &str| format!("/admin/v1{rest}");
    let app = app_token();
    let routes = [
        "/api/v1/apps".to_owned(),
        app_path("/chats"),
        app_path("/chats/1/messages"),
        app_path("/chats/1/messages/search"),
        app_path("/messages/search"),
        app_path("/chats/1/messages/6/history"),
        admin("/audit/events"),
        admin("/audit/stats"),
        admin("/audit/tail"),
        admin("/audit/traces/4bf92f3577b34da6a3ce929d0e0e4736"),
        admin(&format!("/audit/at/apps/{app}/chats/1/messages/6")),
        admin(&format!("/audit/diff/apps/{app}/chats/1/messages/6")),
        admin("/dead-letters"),
        admin("/events/check"),
    ];
    let Some(path) = usize::from(*route).checked_sub(usize::from(b'0')).and_then(|index| routes.get(index))
    else {
        return;
    };
    let Some(answer) = get(&format!("{path}?{query}")) else { return };
    if answer.status != 200 {
        return;
    }
    let has =
        |names: &[&str]| form_urlencoded::parse(query.as_bytes()).any(|(name, _)| names.contains(&&*name));
    // A query string may have only one of these.
    let is_positioned = has(&["after", "around", "before", "cursor"]);
    for (link, relation) in answer.links() {
        let page = get(&link).expect("a link to a valid URI");
        assert_eq!(page.status, 200, "{query} leads to {link}: {}", page.body);
        let cursor = answer.headers.get(format!("{relation}-cursor"));
        if let (Some(cursor), false) = (cursor, is_positioned) {
            let link_with_cursor = format!("{path}?{query}&cursor={}", cursor.to_str().expect("a text"));
            let same_page = get(&link_with_cursor).expect("a valid URI");
            assert_eq!(same_page.body, page.body, "{link_with_cursor} and {link}");
        }
    }
    if let Some(next) = answer.body["next"].as_str() {
        if !has(&["cursor"]) {
            let link = format!("{path}?{query}&cursor={next}");
            let page = get(&link).expect("a valid URI");
            assert_eq!(page.status, 200, "{link}: {}", page.body);
            assert_eq!(page.body["total"], answer.body["total"], "{link}");
        }
    }
}

fn app_token() -> &'static str {
    static TOKEN: std::sync::LazyLock<String> =
        std::sync::LazyLock::new(|| crate::sample_log::app_token().expose().to_owned());
    &TOKEN
}
