//! The console in a real browser.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod harness;

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::Command;

use chat_testing::browser::{Browser, Window};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant, sleep};

use harness::api::{chat_path, create_app, create_chat, create_message, message_path};
use harness::client::Client;
use harness::deployment::{Deployment, folder};
use harness::process::ProcessOptions;

/// The program that checks the accessibility of pages, from the registry of Node packages.
const AXE: &str = "axe-core@4.11.1";

/// The key Enter in WebDriver.
const ENTER: &str = "\u{E007}";

/// Texts that would be more than texts if a page did not escape them.
const HOSTILE: [&str; 4] = [
    "<img src=x onerror=\"document.title='changed'\"><script>document.title='changed'</script>",
    "\"'><svg onload=document.title='changed'>",
    "javascript:document.title='changed'",
    "\u{202e}reversed\u{2066} {{ 7 * 7 }} &lt;b&gt;",
];

/// A running server with an app, two chats, and messages that were created, edited and deleted.
struct Site {
    deployment: Deployment,
    url: String,
    token: String,
}

impl Site {
    async fn start() -> Self {
        let deployment = Deployment::serve().await;
        let client = deployment.client();
        let token = create_app(client, HOSTILE[0]).await;
        for _ in 0..2 {
            create_chat(client, &token).await;
        }
        for text in HOSTILE {
            let message =
                json!({ "body": text, "sender": { "id": "u-1", "name": text }, "data": { "x": text } });
            client.post(format!("{}/messages", chat_path(&token, 1)), &message).send().await.expect(201);
        }
        let edit = json!({ "body": "edited <b>text</b>" });
        client.put(message_path(&token, 1, 2), &edit).send().await.expect(200);
        client.delete(message_path(&token, 1, 3)).send().await.expect(204);
        wait_until_projected(client, &token).await;
        let url = client.url_of("");
        Self { deployment, url, token }
    }

    fn client(&self) -> &Client {
        self.deployment.client()
    }
}

/// Waits until the read model has the deletion.
async fn wait_until_projected(client: &Client, token: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while client.get(message_path(token, 1, 3)).send().await.status.as_u16() != 410 {
        assert!(Instant::now() < deadline, "the read model does not follow the log");
        sleep(Duration::from_millis(20)).await;
    }
}

/// The pages, each with a text that it must show.
const PAGES: [(&str, &str); 20] = [
    ("/console", "No part of this process reports a problem"),
    ("/console/events", "MessageCreated"),
    ("/console/events?type=MessageDeleted&app=1", "MessageDeleted"),
    ("/console/events/4", "Rows and documents"),
    ("/console/apps", HOSTILE[0]),
    ("/console/apps/1", "Chats"),
    ("/console/apps/1?at=3", "3"),
    ("/console/apps/1/chats/1", "edited <b>text</b>"),
    ("/console/apps/1/chats/1?at=5", "5"),
    ("/console/apps/1/chats/1/messages/2", "edited <b>text</b>"),
    ("/console/apps/1/chats/1/messages/2/diff?from=5&to=9", "edited"),
    ("/console/apps/1/chats/1/messages/3", "deleted"),
    ("/console/search", "Search"),
    ("/console/search?app=1&query=text", "1 hit"),
    ("/console/projections", "Generations"),
    ("/console/dead-letters", "Dead letters"),
    ("/console/proofs", "Proofs"),
    ("/console/jobs", "Jobs"),
    ("/console/activity", "Activity"),
    ("/console/sign-in", "No part of this process reports a problem"),
];

/// Installs axe where it is missing, and returns its script. `None` without npm, with a note.
fn axe() -> Option<String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("axe");
    let script = folder.join("node_modules/axe-core/axe.min.js");
    if !script.exists() {
        // Not captured, unlike the macros.
        let mut note = io::stderr();
        if !Command::new("npm").arg("--version").output().is_ok_and(|output| output.status.success()) {
            let _ = writeln!(note, "the check of the console's accessibility was skipped: it needs npm");
            return None;
        }
        let _ = writeln!(note, "installing {AXE} for a test");
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("package.json"), "{}").expect("package.json");
        let arguments = ["install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock", AXE];
        let installed = Command::new("npm").args(arguments).current_dir(&folder).output().expect("npm");
        assert!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
    }
    Some(fs::read_to_string(script).expect("the script"))
}

/// What axe finds on a page.
async fn violations(window: &Window, axe: &str) -> Vec<String> {
    let run =
        format!("{axe}; axe.run().then((found) => {{ window.axeFound = found.violations }}); return true");
    window.execute(&run, &json!([])).await;
    let script = "return window.axeFound && { found: window.axeFound.map((violation) => violation.id + ': '
        + violation.help + ': ' + violation.nodes.map((node) => node.html).join(' ')) }";
    let found = window.wait_for("a report of axe", script, &json!([])).await;
    serde_json::from_value(found["found"].clone()).expect("texts")
}

/// The requests of a page to other servers.
async fn foreign_requests(window: &Window) -> Value {
    let script = "return performance.getEntriesByType('resource').map((entry) => entry.name)
        .filter((name) => !name.startsWith(location.origin))";
    window.execute(script, &json!([])).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_is_accessible_and_stored_text_does_nothing() {
    let (site, axe, browser) = (Site::start().await, axe(), Browser::start().expect("a browser"));
    let window = browser.open_window().await;
    for scheme in ["light", "dark"] {
        window.prefer_colors(scheme).await;
        for (path, text) in PAGES {
            window.go_to(&format!("{}{path}", site.url)).await;
            window.wait_for_text(text).await;
            let title = window.execute("return document.title", &json!([])).await;
            assert!(
                title.as_str().is_some_and(|title| title.ends_with(" · chat-api console")),
                "{path}: {title}"
            );
            if let Some(axe) = &axe {
                assert_eq!(
                    violations(&window, axe).await,
                    Vec::<String>::new(),
                    "{path} in {scheme} colours"
                );
            }
            assert_eq!(foreign_requests(&window).await, json!([]), "{path}");
            assert_eq!(window.console().await, Vec::<String>::new(), "{path}");
        }
    }
    drop(site);
}

#[tokio::test(flavor = "multi_thread")]
async fn new_events_appear_by_themselves_and_wait_while_paused() {
    let (site, browser) = (Site::start().await, Browser::start().expect("a browser"));
    let window = browser.open_window().await;
    window.go_to(&format!("{}/console/events", site.url)).await;
    window.wait_for_text("Live").await;
    create_message(site.client(), &site.token, 1, "came by itself").await;
    window.wait_for_text("came by itself").await;

    window.find(".tail button").await.click().await;
    window.wait_for_text("Paused").await;
    create_message(site.client(), &site.token, 1, "came while paused").await;
    window.wait_for_text("1 new event").await;
    let text = window.execute("return document.body.innerText", &json!([])).await;
    assert!(!text.to_string().contains("came while paused"));
    window.find(".tail button").await.click().await;
    window.wait_for_text("came while paused").await;
    assert_eq!(window.console().await, Vec::<String>::new());
    drop(site);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keyboard_reaches_everything() {
    let (site, browser) = (Site::start().await, Browser::start().expect("a browser"));
    let window = browser.open_window().await;
    window.go_to(&format!("{}/console", site.url)).await;
    window.find("[data-help]").await;
    window.press("ge").await;
    window.find(".tail").await;
    window.press("j").await;
    window.press("j").await;
    window.press(ENTER).await;
    window.wait_for_text("Rows and documents").await;
    window.go_back().await;
    window.find(".tail").await;
    window.press("?").await;
    window.wait_for_text("Next row").await;
    window.press("\u{E00C}").await;
    window.wait_for("no dialog", "return !document.querySelector('dialog[open]')", &json!([])).await;
    window.press("/").await;
    let is_focused = "return document.activeElement.id === 'find'";
    window.wait_for("the focus in the find box", is_focused, &json!([])).await;
    drop(site);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_is_rebuilt_and_rolled_back_with_the_console_alone() {
    let (site, browser) = (Site::start().await, Browser::start().expect("a browser"));
    let window = browser.open_window().await;
    let form = |kind: &str| format!("form[action='/console/actions/projections.{kind}']");
    for (kind, state) in [("rebuild", "Read model 2"), ("rollback", "Read model 1")] {
        window.go_to(&format!("{}/console/projections", site.url)).await;
        let reason = format!("{} input[name=reason]", form(kind));
        window.find(&reason).await.type_text(&format!("tried by hand{ENTER}")).await;
        // The dry run, with the button that does it, and then the page of the job.
        window.wait_for_text("Dry run: ").await;
        window.find(&format!("{} .primary", form(kind))).await.click().await;
        window.find("h1 .badge.ok").await;
        window.go_to(&format!("{}/console/projections", site.url)).await;
        let script = "return [...document.querySelectorAll('tbody tr')].some((row) =>
            row.cells[0].innerText === arguments[0] && row.cells[1].innerText === 'live')";
        window.wait_for(&format!("{state} live"), script, &json!([state])).await;
    }
    window.go_to(&format!("{}/console/activity", site.url)).await;
    window.wait_for_text("tried by hand").await;
    assert_eq!(window.console().await, Vec::<String>::new());
    drop(site);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_signs_in_and_out() {
    let folder = folder();
    let options = ProcessOptions::new("serve", folder.path()).with("--admin-token", "open-sesame");
    let server = options.start().await;
    let browser = Browser::start().expect("a browser");
    let (one, events) = (browser.open_window().await, format!("{}/console/events", server.url()));
    one.go_to(&events).await;
    one.find("#token").await.type_text(&format!("wrong{ENTER}")).await;
    one.wait_for_text("No operator has this token.").await;
    one.find("#token").await.type_text(&format!("open-sesame{ENTER}")).await;
    one.wait_for_text("The log is empty").await;
    assert_eq!(one.url().await, events, "the page that was asked for");
    let cookies = one.execute("return document.cookie", &json!([])).await;
    assert_eq!(cookies, "", "scripts can't read the session");

    one.find(".who button").await.click().await;
    one.find("#token").await;
    one.go_back().await;
    one.find("#token").await;

    // An API client needs no cookie, and a form of another site gets nothing.
    let form = server.client().post("/console/sign-out", &json!({})).send().await;
    assert_eq!(form.status.as_u16(), 401);
    server.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_work_without_scripts() {
    let (site, browser) = (Site::start().await, Browser::start().expect("a browser"));
    let window = browser.open_window_without_scripts().await;
    window.go_to(&format!("{}/console", site.url)).await;
    window.find_without_scripts(".nav a[href='/console/events']").await.click().await;
    window.find_without_scripts("details.filters summary").await.click().await;
    window.find_without_scripts("#text").await.type_text(&format!("edited{ENTER}")).await;
    window.find_without_scripts("td a[data-row]").await.click().await;
    window.find_without_scripts("#payload").await;
    let source = window.source().await;
    assert!(source.contains("edited &lt;b&gt;text&lt;/b&gt;"), "{source}");
    drop(site);
}
