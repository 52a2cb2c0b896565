//! Features that need scripts: live rows, local times, keys, and the state at each position of a slider.

use serde_json::json;

use crate::harness::api::create_message;
use crate::site::{ENTER, Site, open_window};

/// The arrow keys and Escape in WebDriver.
const RIGHT: &str = "\u{E014}";
const LEFT: &str = "\u{E012}";
const ESCAPE: &str = "\u{E00C}";

#[tokio::test(flavor = "multi_thread")]
async fn new_events_appear_by_themselves_and_wait_while_paused() {
    let (site, window) = (Site::start().await, open_window().await);
    window.go_to(&site.page("/events")).await;
    window.wait_for_text("Live").await;
    create_message(site.client(), &site.token, 1, "came by itself").await;
    window.wait_for_text("came by itself").await;

    window.find(".tail button").await.click().await;
    window.wait_for_text("Paused").await;
    create_message(site.client(), &site.token, 1, "came while paused").await;
    window.wait_for_text("1 new event").await;
    let text = window.execute("return document.body.innerText", &json!([])).await;
    assert!(!text.to_string().contains("came while paused"), "the paused page shows a new event");
    window.find(".tail button").await.click().await;
    window.wait_for_text("came while paused").await;
    assert_eq!(window.console().await, Vec::<String>::new());
    window.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn times_in_charts_are_in_the_zone_of_the_reader() {
    let (site, window) = (Site::start().await, open_window().await);
    window.set_time_zone("Asia/Kolkata").await;
    window.go_to(&site.page("")).await;
    window.wait_for("a tooltip", "return document.querySelector('.chart .tip')", &json!([])).await;
    let script = "
        const column = document.querySelector('.chart g[data-datetime]');
        column.dispatchEvent(new PointerEvent('pointerenter'));
        const format = { timeZone: 'Asia/Kolkata', hour: '2-digit', minute: '2-digit' };
        const local = new Intl.DateTimeFormat('en-GB', format).format(new Date(column.dataset.datetime));
        const cell = document.querySelector('.chart td time').textContent;
        return [local, column.closest('figure').querySelector('.tip').textContent.split(' ').at(-1), cell];
    ";
    let times = window.execute(script, &json!([])).await;
    assert_eq!(
        (&times[1], &times[2]),
        (&times[0], &times[0]),
        "the tooltip or the table does not show the local time"
    );
    window.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_open_pages_rows_the_help_and_the_find_box() {
    let (site, window) = (Site::start().await, open_window().await);
    window.go_to(&site.page("")).await;
    // On a busy machine, an engine that does not answer in time is reported as a problem. The script reloads the page
    // until no problem is reported.
    let is_well = "return document.body.innerText.includes('No part of this process reports a problem')
        || void location.reload()";
    window.wait_for("no problem", is_well, &json!([])).await;
    window.find("[data-help]").await;
    window.press("ge").await;
    // The page handles keys once its script has run, which also sets the attribute `data-state`.
    window.find(".tail[data-state]").await;
    window.press("j").await;
    window.press("j").await;
    window.press(ENTER).await;
    window.wait_for_text("Rows and documents").await;
    window.go_back().await;
    window.find(".tail[data-state]").await;
    window.press("?").await;
    window.wait_for_text("Next row").await;
    window.press(ESCAPE).await;
    window.wait_for("no dialog", "return !document.querySelector('dialog[open]')", &json!([])).await;
    window.press("/").await;
    let is_focused = "return document.activeElement.id === 'find'";
    window.wait_for("the focus in the find box", is_focused, &json!([])).await;
    window.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_follows_the_time_slider_without_a_new_page() {
    let (site, window) = (Site::start().await, open_window().await);
    window.go_to(&site.page("/apps/1/chats/1/messages/2?at=5")).await;
    window.wait_for_text("onload").await;
    window.execute("window.isSamePage = true", &json!([])).await;
    // Message 2 was created at position 5 and edited at position 8.
    window.execute("document.getElementById('at-range').focus()", &json!([])).await;
    for _ in 5..8 {
        window.press(RIGHT).await;
    }
    window.wait_for_text("As of position 8").await;
    window.wait_for_text("edited <b>text</b>").await;
    window.press(LEFT).await;
    window.wait_for_text("As of position 7").await;
    let script = "return [location.search, document.getElementById('at-number').value, window.isSamePage,
        document.body.innerText.includes('edited <b>text</b>')]";
    assert_eq!(window.execute(script, &json!([])).await, json!(["?at=7", "7", true, false]));
    assert_eq!(window.console().await, Vec::<String>::new());
    window.close().await;
}
