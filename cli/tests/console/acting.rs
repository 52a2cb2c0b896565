//! Tests that operators can act with the console alone: on projections, dead letters, checkpoints and proofs. Also
//! tests a form with an error.

use std::fs;
use std::path::{Path, PathBuf};

use chat_testing::browser::Window;
use serde_json::json;

use crate::harness::deadline::eventually;
use crate::harness::deployment::folder;
use crate::site::{DEAD_LETTER, ENTER, Site, open_window};

/// Enters a reason, waits for the dry run, executes its action, and waits until the browser has left the page of the
/// dry run. A test that went on earlier could find on that page what it expects on the next one, or load another page,
/// which would cancel the form.
async fn confirm_dry_run(window: &Window, field: &str, button: &str, reason: &str) {
    window.find(field).await.type_text(reason).await;
    window.find(button).await.click().await;
    window.wait_for_text("Dry run: ").await;
    window.wait_for_text("Nothing was changed.").await;
    let execute = window.find("main form .primary").await;
    execute.click().await;
    execute.wait_until_gone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_is_rebuilt_and_rolled_back_with_the_console_alone() {
    let (site, window) = (Site::start().await, open_window().await);
    for (kind, generation) in [("rebuild", "Read model 2"), ("rollback", "Read model 1")] {
        window.go_to(&site.page("/projections")).await;
        let form = format!("form[action='/console/actions/projections.{kind}']");
        let (field, button) = (format!("{form} input[name=reason]"), format!("{form} .primary"));
        confirm_dry_run(&window, &field, &button, "tried by hand").await;
        window.find("h1 .badge.ok").await;
        window.go_to(&site.page("/projections")).await;
        let script = "return [...document.querySelectorAll('tbody tr')].some((row) =>
            row.cells[0].innerText === arguments[0] && row.cells[1].innerText === 'live')";
        window.wait_for(&format!("{generation} live"), script, &json!([generation])).await;
    }
    window.go_to(&site.page("/activity")).await;
    window.wait_for_text("tried by hand").await;
    assert_eq!(window.console().await, Vec::<String>::new());
    window.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_retried_discarded_and_acknowledged_with_the_console_alone() {
    let (site, window) = (Site::with_dead_letter().await, open_window().await);
    // The dead letters of both projections are retried at once, each by a job of its own.
    window.go_to(&site.page("/dead-letters")).await;
    window.find("[data-check-all]").await.click().await;
    window.wait_for_text("2 of 2 selected").await;
    confirm_dry_run(&window, "#reason", "form.stack .primary", "a newer program").await;
    window.wait_for_text("Retry of MessagePinned at position 10: read model").await;
    window.wait_for_text("Retry of MessagePinned at position 10: search index").await;
    // Each script reloads the page until its jobs have ended.
    let has_ended =
        "return document.querySelectorAll('td .badge.warn').length === 2 || void location.reload()";
    window.wait_for("two jobs whose retries were blocked again", has_ended, &json!([])).await;

    let dead_letter = site.page(&format!("/dead-letters/{DEAD_LETTER}"));
    for (action, reason) in [("discard", "it pins nothing"), ("acknowledge", "the team knows")] {
        window.go_to(&dead_letter).await;
        let button = match action {
            "discard" => "button[formaction$='dead_letters.discard']",
            _ => "button[formaction$='dead_letters.acknowledge']",
        };
        confirm_dry_run(&window, "#reason", button, reason).await;
        let all_ended = "return document.querySelectorAll('td .badge.ok').length >= arguments[0] || void location.reload()";
        // After the acknowledgement, the page lists its two jobs and the two of the discard.
        let count = if action == "discard" { 2 } else { 4 };
        window.wait_for(&format!("{count} jobs that ended well"), all_ended, &json!([count])).await;
    }
    window.go_to(&site.page("/dead-letters")).await;
    window.wait_for_text("No dead letters").await;
    window.go_to(&dead_letter).await;
    window.wait_for_text("it pins nothing").await;
    assert_eq!(window.console().await, Vec::<String>::new());
    window.close().await;
}

/// Waits for a file with this extension in a folder, and returns its path.
async fn saved_file(folder: &Path, extension: &str) -> PathBuf {
    eventually(&format!("a saved file .{extension}"), async || {
        let mut files = fs::read_dir(folder).expect("the folder").map(|file| file.expect("a file").path());
        files.find(|path| path.extension().is_some_and(|found| found == extension))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_is_made_and_an_event_proved_and_checked_with_the_console_alone() {
    let (site, window, files) = (Site::start().await, open_window().await, folder());
    window.save_files_in(files.path()).await;
    window.go_to(&site.page("/proofs")).await;
    confirm_dry_run(&window, "#make-reason", "form[action$='audit.checkpoint'] .primary", "for the auditor")
        .await;
    window.wait_for_text("The checkpoint is made").await;
    window.find("a[download]").await.click().await;
    let checkpoint = saved_file(files.path(), "checkpoint").await;

    window.go_to(&site.page("/events/4")).await;
    window.find("a[href='/console/proofs?position=4#event-proof']").await.click().await;
    let upload = async |field: &str, file: &Path| {
        let input = window.find(&format!("[data-text-into='{field}']")).await;
        input.type_text(file.to_str().expect("text")).await;
        let is_read = "return document.getElementById(arguments[0]).value !== ''";
        window.wait_for("the text of the file", is_read, &json!([field])).await;
    };
    upload("prove-checkpoint", &checkpoint).await;
    window.find("form[action='/console/proofs/event'] .primary").await.click().await;
    let proof = saved_file(files.path(), "tlog-proof").await;

    // The page of proofs has the key that an auditor needs.
    let shown_key =
        window.execute("return document.getElementById('public-key').innerText", &json!([])).await;
    let public_key = fs::read_to_string(&site.public_key).expect("the public key");
    assert!(public_key.starts_with(shown_key.as_str().expect("text")), "{shown_key}");
    upload("proof", &proof).await;
    window.find("#check-key").await.type_text(shown_key.as_str().expect("text")).await;
    window.find("form[action='/console/proofs/check'] .primary").await.click().await;
    window.wait_for_text("The proof is valid").await;
    window.wait_for_text("MessageCreated").await;
    assert_eq!(window.console().await, Vec::<String>::new());
    window.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_with_an_error_is_shown_again_with_its_values() {
    let (site, window) = (Site::start().await, open_window().await);
    window.go_to(&site.page("/events")).await;
    window.find("details.filters summary").await.click().await;
    window.find("#text").await.type_text("kept").await;
    window.find("#from").await.type_text(&format!("yesterday{ENTER}")).await;
    window.find("#from-problem").await;
    window.find(".nav").await;
    let script = "return ['text', 'from'].map((id) => document.getElementById(id).value)";
    assert_eq!(window.execute(script, &json!([])).await, json!(["kept", "yesterday"]));
    window.close().await;
}
