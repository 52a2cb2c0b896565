//! Tests that pages are accessible, do not run stored texts as scripts, fit a narrow window, and have the same content
//! without scripts.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::Command;

use chat_testing::browser::Window;
use serde_json::{Value, json};

use crate::site::{PAGES, Site, open_window};

/// The program that checks the accessibility of pages, from the registry of Node packages.
const AXE: &str = "axe-core@4.11.1";

/// Returns the script of axe, after installing axe with npm if it is missing. If npm is missing, too, writes a note and
/// returns `None`.
fn axe() -> Option<String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("axe");
    let script = folder.join("node_modules/axe-core/axe.min.js");
    if !script.exists() {
        // Unlike the output of `eprintln!`, this is not captured.
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

/// The violations that axe finds on a page.
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

/// A script that returns the HTML of the elements that reach beyond the window or cut off their content. It leaves out
/// elements in a box that scrolls sideways, such as the box around a table.
const CUT_OFF: &str = "
    const isCut = (element) => {
        if (!element.checkVisibility() || element.closest('.visually-hidden, .skip, svg')) return false;
        const scroller = element.parentElement.closest('.table, pre, textarea');
        if (scroller) return false;
        const box = element.getBoundingClientRect();
        const style = getComputedStyle(element);
        const hides = style.overflowX === 'hidden' && style.textOverflow !== 'ellipsis';
        return box.left < -1 || box.right > innerWidth + 1 || (hides && element.scrollWidth > element.clientWidth + 1);
    };
    const found = [...document.body.querySelectorAll('*')].filter(isCut).map((element) => element.outerHTML.slice(0, 200));
    if (document.documentElement.scrollWidth > innerWidth) found.push('the page is ' + document.documentElement.scrollWidth);
    return found";

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_accessible_and_run_no_stored_text() {
    let (site, axe, window) = (Site::with_dead_letter().await, axe(), open_window().await);
    let job = site.ended_job().await;
    let pages: Vec<_> = PAGES.into_iter().chain([(job.as_str(), "The log is consistent")]).collect();
    for scheme in ["light", "dark"] {
        window.prefer_colors(scheme).await;
        for (path, text) in &pages {
            window.go_to(&site.page(path)).await;
            window.wait_for_text(text).await;
            let title = window.execute("return document.title", &json!([])).await;
            assert!(
                title.as_str().is_some_and(|title| title.ends_with(" · chat-api console")),
                "{path}: {title}"
            );
            if let Some(axe) = &axe {
                let found = violations(&window, axe).await;
                assert_eq!(found, Vec::<String>::new(), "{path} in {scheme} colours");
            }
            assert_eq!(foreign_requests(&window).await, json!([]), "{path} loads from other servers");
            let mut console = window.console().await;
            // Chromium logs the status of a page that is not found.
            console.retain(|message| !(*path == "/events/99" && message.contains("404 (Not Found)")));
            assert_eq!(console, Vec::<String>::new(), "{path} has errors in the browser's console");
        }
    }
    window.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_do_not_scroll_sideways_and_are_not_cut_at_360_pixels() {
    let (site, window) = (Site::with_dead_letter().await, open_window().await);
    let job = site.ended_job().await;
    window.resize(360).await;
    let mut cut = Vec::new();
    for (path, text) in PAGES.into_iter().chain([(job.as_str(), "The log is consistent")]) {
        window.go_to(&site.page(path)).await;
        window.wait_for_text(text).await;
        let found = window.execute(CUT_OFF, &json!([])).await;
        if found != json!([]) {
            cut.push(format!("{path}: {found:#}"));
        }
    }
    assert!(cut.is_empty(), "{}", cut.join("\n"));

    // The navigation is collapsed, without a script.
    window.find(".nav summary").await.click().await;
    window.find(".nav details a[href='/console/proofs']").await.click().await;
    window.wait_for_text("Make a checkpoint").await;
    window.close().await;
}

/// A script that returns the text of the main part of a page. If its argument is `true`, this is the text that the
/// server sends and a browser without scripts shows; otherwise, the text that the page shows now. The script leaves out
/// `noscript` and the elements that only scripts fill. It writes `#` for numbers, durations and sizes, because they
/// change between two requests.
const MAIN_TEXT: &str = r"
    const [asSent] = arguments;
    const source = asSent ? await (await fetch(location)).text() : null;
    const page = asSent ? new DOMParser().parseFromString(source, 'text/html') : document;
    const main = page.querySelector('main').cloneNode(true);
    const live = '.copy, .tail, .tip, [data-times], [data-help], [data-checked-count], svg title, noscript, [data-live]';
    for (const element of main.querySelectorAll(live)) element.remove();
    for (const time of main.querySelectorAll('time')) time.textContent = time.dataset.utc ?? time.textContent;
    const text = main.textContent.replace(/\s+/g, ' ');
    return text.replace(/(\d[\d.,:]*( ?(ms|s|min|h|d|B|KiB|MiB))?\b|–)/g, '#').replace(/#(, #)+/g, '#')";

/// How often the two texts of a page are compared before a difference fails the test: the state of the server may
/// change between the request for one text and that for the other.
const MAX_COMPARISONS: usize = 5;

#[tokio::test(flavor = "multi_thread")]
async fn pages_have_the_same_content_without_scripts() {
    let site = Site::with_dead_letter().await;
    let job = site.ended_job().await;
    let window = open_window().await;
    for (path, text) in PAGES.into_iter().chain([(job.as_str(), "The log is consistent")]) {
        for comparison in 1..=MAX_COMPARISONS {
            window.go_to(&site.page(path)).await;
            window.wait_for_text(text).await;
            let with_scripts = window.execute(MAIN_TEXT, &json!([false])).await;
            let without = window.execute(MAIN_TEXT, &json!([true])).await;
            if with_scripts == without {
                break;
            }
            assert!(comparison < MAX_COMPARISONS, "{path}: {with_scripts} differs from {without}");
        }
    }
    window.close().await;
}
