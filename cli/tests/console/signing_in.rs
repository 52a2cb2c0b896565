//! Signing in and out, in one tab and in two.

use serde_json::json;

use crate::harness::api::create_app;
use crate::harness::deployment::folder;
use crate::harness::process::ProcessOptions;
use crate::site::{ENTER, open_window};

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_signs_in_and_out() {
    let folder = folder();
    let options = ProcessOptions::new("serve", folder.path()).with("--admin-token", "open-sesame");
    let server = options.start().await;
    let (window, events) = (open_window().await, format!("{}/console/events", server.url()));
    window.go_to(&events).await;
    window.find("#token").await.type_text(&format!("wrong{ENTER}")).await;
    window.wait_for_text("No operator has this token.").await;
    window.find("#token").await.type_text(&format!("open-sesame{ENTER}")).await;
    window.wait_for_text("The log is empty").await;
    assert_eq!(window.url().await, events, "signing in did not lead to the page that was asked for");
    let cookies = window.execute("return document.cookie", &json!([])).await;
    assert_eq!(cookies, "", "scripts can read a cookie");

    window.find(".who button").await.click().await;
    window.find("#token").await;
    window.go_back().await;
    window.find("#token").await;

    // A request without a session is rejected.
    let response = server.client().post("/console/sign-out", &json!({})).send().await;
    assert_eq!(response.status.as_u16(), 401);
    window.close().await;
    server.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_tab_shows_what_another_does_and_is_signed_out_with_it() {
    let folder = folder();
    let options = ProcessOptions::new("serve", folder.path()).with("--admin-token", "open-sesame");
    let server = options.start().await;
    create_app(&server.client(), "Helpdesk").await;
    let page = |path: &str| format!("{}/console{path}", server.url());
    let window = open_window().await;
    window.go_to(&page("/events")).await;
    window.find("#token").await.type_text(&format!("open-sesame{ENTER}")).await;
    window.wait_for_text("Live").await;
    let (first, second) = (window.tab().await, window.open_tab().await);

    // While the second tab is shown, the first one holds new rows back.
    window.switch_to(&second).await;
    window.go_to(&page("/proofs")).await;
    window.find("#verify-reason").await.type_text(&format!("by the second tab{ENTER}")).await;
    window.wait_for_text("Dry run: Verification").await;
    window.find("main form .primary").await.click().await;
    window.find("h1 .badge.ok").await;
    window.switch_to(&first).await;
    window.wait_for_text("JobEnded").await;
    window.find(".nav a[href='/console/activity']").await.click().await;
    // The page of events shows the reason, too, so the test first waits until it has been left.
    window.find(".nav a[href='/console/activity'][aria-current]").await;
    window.wait_for_text("by the second tab").await;
    // The script of the page shows this button after it has begun to listen for a sign-out in other tabs.
    window.find("[data-help]").await;

    window.switch_to(&second).await;
    window.find(".who button").await.click().await;
    window.find("#token").await;
    window.switch_to(&first).await;
    window.find("#token").await;
    window.close().await;
    server.shut_down().await;
}
