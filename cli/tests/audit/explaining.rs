//! `audit explain`, `at` and `diff`.

use rusqlite::Connection;

use crate::story::{APP, Stage};

#[tokio::test(flavor = "multi_thread")]
async fn a_row_is_explained_field_by_field() {
    for stage in Stage::both().await {
        stage.project().await;
        stage.check("explain_app", &stage.audit(&["explain", "app", APP]).expect(0));
        stage.check("explain_chat", &stage.audit(&["explain", "chat", APP, "1"]).expect(0));
        stage.check("explain_message", &stage.audit(&["explain", "message", APP, "1", "1"]).expect(0));
        stage.check("explain_deleted", &stage.audit(&["explain", "message", APP, "1", "2"]).expect(0));
        stage.check("explain_absent", &stage.audit(&["explain", "message", APP, "1", "9"]).expect(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_stays_behind_a_parked_event_is_a_finding() {
    for stage in Stage::both().await {
        stage.project().await;
        stage.check("explain_parked", &stage.audit(&["explain", "chat", APP, "2"]).expect(1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_somebody_changed_is_a_finding() {
    let [stage, _] = Stage::both().await;
    stage.project().await;
    let rows = Connection::open(stage.setting.path("read-model.db")).expect("the rows");
    rows.execute("UPDATE messages SET body = 'Something else' WHERE number = 1", []).expect("a change");
    drop(rows);
    stage.check("explain_changed", &stage.audit(&["explain", "message", APP, "1", "1"]).expect(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_says_what_it_touches_and_what_of_that_still_holds() {
    for stage in Stage::both().await {
        stage.check("explain_event", &stage.audit(&["explain", "event", &stage.position(3)]).expect(0));
        stage.check("explain_act", &stage.audit(&["explain", "event", &stage.position(10)]).expect(0));
        stage.check("explain_broken", &stage.audit(&["explain", "event", &stage.position(12)]).expect(1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_is_shown_as_it_was() {
    for stage in Stage::both().await {
        let before = stage.position(6);
        stage.check("at_message", &stage.audit(&["at", &before, "message", APP, "1", "1"]).expect(0));
        let time = "2026-09-21T14:17:59Z";
        stage.check("at_time", &stage.audit(&["at", time, "chat", APP, "1"]).expect(0));
        stage.check("at_first", &stage.audit(&["at", &stage.position(1), "chat", APP, "1"]).expect(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_between_two_points_is_shown_with_its_events() {
    for stage in Stage::both().await {
        let (from, to) = (stage.position(3), stage.position(12));
        stage.check("diff_message", &stage.audit(&["diff", &from, &to, "message", APP, "1", "1"]).expect(0));
        stage.check("diff_chat", &stage.audit(&["diff", &from, &to, "chat", APP, "1"]).expect(0));
        let times = ["diff", "2026-09-21", "2026-09-22", "app", APP];
        stage.check("diff_app", &stage.audit(&times).expect(0));
        stage.check("diff_nothing", &stage.audit(&["diff", &from, &from, "app", APP]).expect(0));
    }
}
