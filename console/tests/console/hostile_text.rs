//! Hostile names and texts: pages show them as text, whatever they hold.

use std::collections::BTreeSet;

use chat_domain::event::{ChatCreated, MessageCreated, MessageEdited};
use chat_domain::{ChatNumber, DataChange, MessageBody, MessageNumber, Sender, SenderId, SenderName};
use http::StatusCode;

use crate::fixture::{Fixture, app_created, app_stream, chat_stream};

/// Texts that a browser could interpret as markup, as a script, or as control characters. Each has the word `zebra`.
const TEXTS: [&str; 6] = [
    "<script>zebra()</script><img src=x onerror=zebra()>",
    "\"><svg onload=zebra()> ' onmouseover='zebra() {{ zebra }} {% zebra %}",
    "javascript:zebra() </textarea></title></p><!-- zebra --",
    "\u{202e}arbez\u{2066} zebra \u{200f}\u{202d}",
    "&lt;b&gt;zebra&amp;lt;mark&gt; <mark>zebra</mark> &#60;i&#62;",
    "zebra\u{0}\u{7}\u{1b}[31m\u{feff}\u{2028}",
];

/// The tags that a page may have.
const TAGS: [&str; 63] = [
    "!doctype", "a", "article", "bdi", "body", "button", "caption", "code", "datalist", "dd", "del",
    "details", "div", "dl", "dt", "em", "fieldset", "figure", "footer", "form", "h1", "h2", "h3", "head",
    "header", "html", "img", "input", "ins", "kbd", "label", "legend", "li", "link", "main", "mark", "meta",
    "nav", "ol", "option", "p", "path", "pre", "rect", "script", "section", "select", "small", "span",
    "strong", "summary", "svg", "table", "tbody", "td", "th", "thead", "time", "title", "tr", "ul", "use",
    "wbr",
];

/// The attributes that a page may have, apart from `data-…` and `aria-…`.
const ATTRIBUTES: [&str; 38] = [
    "action",
    "alt",
    "autocomplete",
    "autofocus",
    "charset",
    "checked",
    "class",
    "colspan",
    "content",
    "datetime",
    "for",
    "height",
    "hidden",
    "href",
    "id",
    "inputmode",
    "lang",
    "list",
    "max",
    "maxlength",
    "method",
    "min",
    "name",
    "open",
    "pattern",
    "placeholder",
    "rel",
    "required",
    "role",
    "scope",
    "selected",
    "size",
    "src",
    "tabindex",
    "type",
    "value",
    "width",
    "data",
];

/// Checks that a page has only the tags and attributes above, one script, and only addresses on this server.
fn assert_harmless(page: &str, path: &str) {
    let mut scripts = 0;
    for markup in page.split('<').skip(1) {
        let (tag, _) =
            markup.split_once('>').unwrap_or_else(|| panic!("{path}: a tag without an end: {markup}"));
        let tag_name: String =
            tag.trim_start_matches('/').chars().take_while(|c| !c.is_whitespace()).collect();
        assert!(TAGS.contains(&tag_name.to_lowercase().as_str()), "{path}: unexpected tag <{tag}>");
        scripts += usize::from(tag_name == "script" && !tag.starts_with('/'));
        // The values of attributes are quoted, and quotes in values are escaped: every second part is a value.
        let parts: Vec<&str> = tag.split('"').collect();
        assert!(parts.len() % 2 == 1, "{path}: unpaired quote in <{tag}>");
        for (index, part) in parts.iter().enumerate() {
            if index % 2 == 1 {
                let attribute = parts[index - 1].trim_end_matches('=').rsplit(' ').next().unwrap();
                if ["href", "src", "action"].contains(&attribute) {
                    let is_local =
                        part.starts_with("/console") || part.starts_with("/docs") || part.starts_with('#');
                    assert!(is_local, "{path}: address of another server: {attribute}={part}");
                }
                continue;
            }
            let names = part.split_whitespace().skip(usize::from(index == 0));
            for name in names.map(|name| name.trim_end_matches('=')).filter(|name| !name.is_empty()) {
                let is_known =
                    ATTRIBUTES.contains(&name) || name.starts_with("data-") || name.starts_with("aria-");
                assert!(
                    is_known || name == "html" || name == "/",
                    "{path}: unexpected attribute {name} in <{tag}>"
                );
            }
        }
    }
    assert_eq!(scripts, 1, "{path}: wrong number of scripts");
}

/// The beginning of a text, at most as long as a name may be.
fn hostile_name(text: &str) -> String {
    text.replace('\0', "").chars().take(120).collect()
}

#[tokio::test]
async fn hostile_names_and_texts_are_shown_as_text() {
    let fixture = Fixture::new().await;
    fixture.append(app_stream(), app_created(&hostile_name(&TEXTS.join(" ")))).await;
    fixture.append(app_stream(), ChatCreated { chat_number: ChatNumber::FIRST }).await;
    let long = format!("{} zebra", "<i>\u{202e}&".repeat(9_300));
    let bodies: Vec<String> = TEXTS.iter().map(|text| text.replace('\0', "")).chain([long]).collect();
    for (number, body) in (1..).zip(&bodies) {
        let sender: String = hostile_name(body).chars().filter(|c| !c.is_control()).collect();
        let created = MessageCreated {
            message_number: MessageNumber::try_from(number).unwrap(),
            body: MessageBody::parse(body.clone()).unwrap(),
            sender: Some(Sender {
                id: SenderId::parse(sender).unwrap(),
                name: Some(SenderName::parse(hostile_name(body)).unwrap()),
            }),
            data: Some(
                serde_json::json!({ hostile_name(body): body.chars().take(500).collect::<String>() })
                    .to_string()
                    .parse()
                    .unwrap(),
            ),
        };
        fixture.append(chat_stream(), created).await;
    }
    let edited = MessageEdited {
        message_number: MessageNumber::FIRST,
        body: MessageBody::parse(bodies[1].clone()).unwrap(),
        data: DataChange::Keep,
    };
    let last = fixture.append(chat_stream(), edited).await;
    fixture.wait_until_projected(last).await;
    let reader = fixture.reader().await;
    let mut paths: BTreeSet<String> = [
        "/console/apps",
        "/console/apps/1",
        "/console/apps/1?at=1",
        "/console/apps/1/diff",
        "/console/apps/1/chats/1",
        "/console/apps/1/chats/1?at=9",
        "/console/apps/1/chats/1/diff",
        "/console/search?query=zebra&app=1",
        "/console/search?query=zebra&app=1&fuzzy=true",
        "/console/search?query=zebra",
        "/console/apps/1/chats/1/messages/1/diff",
        "/console/apps/1/chats/1/messages/1?at=3",
    ]
    .into_iter()
    .map(str::to_owned)
    .collect();
    paths.extend((1..=bodies.len()).map(|number| format!("/console/apps/1/chats/1/messages/{number}")));
    for text in TEXTS {
        let text: String = form_urlencoded::byte_serialize(hostile_name(text).as_bytes()).collect();
        for url_start in [
            "search?app=1&query=",
            "search?query=",
            "search?query=x&app=1&sender=",
            "search?query=x&app=1&from=",
            "apps/1/chats/1?sender=",
        ] {
            paths.insert(format!("/console/{url_start}{text}"));
        }
    }
    for path in paths {
        let page = fixture.get(&reader, &path).await;
        assert!(
            [StatusCode::OK, StatusCode::UNPROCESSABLE_ENTITY].contains(&page.status),
            "{path}: {}",
            page.status
        );
        assert_harmless(&page.body, &path);
    }
    let message = fixture.get(&reader, "/console/apps/1/chats/1/messages/1").await;
    assert!(message.body.contains("&#60;script&#62;zebra()&#60;/script&#62;"), "{}", message.body);
    for text in TEXTS {
        for path in ["/console/apps", "/console/find"] {
            let page = fixture.post(&reader, path, &[("q", text)]).await;
            if page.status == StatusCode::OK {
                assert_harmless(&page.body, path);
            } else {
                assert!(page.location().starts_with("/console/"), "{path}");
            }
        }
    }
}
