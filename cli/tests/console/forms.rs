//! Forms without scripts, and the back button after a form.

use chat_testing::browser::{Browser, Window};

use crate::site::{DEAD_LETTER, ENTER, Site, open_window};

/// Types a text into a field of a page, submits the form, and waits for an element of the next page.
async fn submit(window: &Window, page: &str, field: &str, text: &str, next: &str) {
    window.go_to(page).await;
    type_and_submit(window, field, text).await;
    window.find_without_scripts(next).await;
}

/// Types a text into a field, submits the form, and waits until another page is shown: the page with the form may have
/// the elements that a test looks for next.
async fn type_and_submit(window: &Window, field: &str, text: &str) {
    let field = window.find_without_scripts(field).await;
    field.type_text(&format!("{text}{ENTER}")).await;
    field.wait_until_gone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_work_without_scripts() {
    let site = Site::with_dead_letter().await;
    let window = Browser::shared().open_window_without_scripts().await;
    window.go_to(&site.page("")).await;
    window.find_without_scripts(".nav a[href='/console/events']").await.click().await;
    window.find_without_scripts("details.filters summary").await.click().await;
    type_and_submit(&window, "#text", "edited").await;
    window.find_without_scripts("td a[data-row]").await.click().await;
    window.find_without_scripts("#payload").await;
    window.wait_for_source("edited &lt;b&gt;text&lt;/b&gt;").await;

    let chat = site.page("/apps/1/chats/1");
    for (page, field, text, next) in [
        (site.page(""), "#find", "pinned", "#query[value=pinned]"),
        (site.page("/events"), "#jump", "5", "td a[href='/console/events/5']"),
        (site.page("/apps"), "#app-query", "1", "#chat-number"),
        (site.page("/apps/1"), "#chat-number", "1", "#around"),
        (site.page("/apps/1"), "#at", "3", "#state-title"),
        (chat.clone(), "#around", "2", "#m2"),
        (chat.clone(), "#sender", "u-1", ".chip"),
        (chat.clone(), "#at", "6", "#state-title"),
        (format!("{chat}?at=6"), "#at-number", "", "#state-title"),
        (format!("{chat}/messages/2"), "#at", "6", "#state-title"),
        (format!("{chat}/messages/2/diff?from=5"), "#to", "", "#changes-title"),
        (site.page("/search?app=1"), "#query", "text", "#hits"),
    ] {
        submit(&window, &page, field, text, next).await;
    }
    window.go_to(&site.page("/apps/1")).await;
    window.find_without_scripts("form[data-copy-token] button").await.click().await;
    window.find_without_scripts("code[data-copy]").await;
    window.wait_for_source(&site.token).await;

    window.go_to(&site.page("/proofs")).await;
    window.find_without_scripts("#proof").await.type_text("nonsense").await;
    window.find_without_scripts("form[action='/console/proofs/check'] .primary").await.click().await;
    window.find_without_scripts("#proof-problem").await;

    for (page, field) in [
        (site.page("/projections"), "#rebuild"),
        (site.page(&format!("/dead-letters/{DEAD_LETTER}")), "#reason"),
    ] {
        submit(&window, &page, field, "of a test", "input[name=execute]").await;
    }
    let execute = window.find_without_scripts("form .primary").await;
    execute.click().await;
    execute.wait_until_gone().await;
    // The retry starts a job for each projection, so the next page is the list of jobs.
    window.find_without_scripts("td .badge").await;
    submit(&window, &site.page("/activity"), "#operator", "nobody", "#operator[value=nobody]").await;
    window.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_back_button_leads_from_a_dry_run_to_its_form() {
    let (site, window) = (Site::start().await, open_window().await);
    window.go_to(&site.page("/projections")).await;
    for attempt in ["first", "second"] {
        window.find("#rebuild").await.type_text(&format!(" {attempt}{ENTER}")).await;
        window.wait_for_text("Dry run: Rebuild").await;
        window.go_back().await;
        window.wait_for_text("Generations").await;
    }
    window.find("#rebuild").await.type_text(&format!(" third{ENTER}")).await;
    window.wait_for_text("Dry run: Rebuild").await;
    window.find("main form .primary").await.click().await;
    // At the end of the job, its page loads itself again, which must not get in the way of going back.
    window.find("h1 .badge.ok").await;
    let job = window.url().await;
    window.go_back().await;
    // The browser shows the dry run again, and not a page of its own that asks whether to send the form again.
    window.wait_for_text("Dry run: Rebuild").await;
    window.find("main form .primary").await.click().await;
    window.find("h1 .badge").await;
    assert_eq!(window.url().await, job, "the action was requested a second time");
    assert_eq!(window.console().await, Vec::<String>::new());
    window.close().await;
}
