//! Tests of `audit explain`, `at` and `diff`.

use rusqlite::Connection;

use crate::fixture::{APP, Fixture};

#[tokio::test(flavor = "multi_thread")]
async fn a_row_is_explained_field_by_field() {
    for fixture in Fixture::on_each_engine().await {
        fixture.project().await;
        fixture.check_snapshot("explain_app", &fixture.audit(&["explain", "app", APP]).expect(0));
        fixture.check_snapshot("explain_chat", &fixture.audit(&["explain", "chat", APP, "1"]).expect(0));
        fixture.check_snapshot(
            "explain_message",
            &fixture.audit(&["explain", "message", APP, "1", "1"]).expect(0),
        );
        fixture.check_snapshot(
            "explain_deleted",
            &fixture.audit(&["explain", "message", APP, "1", "2"]).expect(0),
        );
        fixture.check_snapshot(
            "explain_absent",
            &fixture.audit(&["explain", "message", APP, "1", "9"]).expect(2),
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outdated_row_of_a_blocked_stream_is_a_finding() {
    for fixture in Fixture::on_each_engine().await {
        fixture.project().await;
        fixture
            .check_snapshot("explain_dead_letter", &fixture.audit(&["explain", "chat", APP, "2"]).expect(1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_altered_row_is_a_finding() {
    let [fixture, _] = Fixture::on_each_engine().await;
    fixture.project().await;
    let rows = Connection::open(fixture.test_log.path("read-model.db")).expect("the rows");
    rows.execute("UPDATE messages SET body = 'Something else' WHERE number = 1", []).expect("a change");
    drop(rows);
    fixture
        .check_snapshot("explain_changed", &fixture.audit(&["explain", "message", APP, "1", "1"]).expect(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_explained_event_lists_its_fields_and_whether_they_are_current() {
    for fixture in Fixture::on_each_engine().await {
        fixture.check_snapshot(
            "explain_event",
            &fixture.audit(&["explain", "event", &fixture.position(3)]).expect(0),
        );
        fixture.check_snapshot(
            "explain_action",
            &fixture.audit(&["explain", "event", &fixture.position(10)]).expect(0),
        );
        fixture.check_snapshot(
            "explain_broken",
            &fixture.audit(&["explain", "event", &fixture.position(12)]).expect(1),
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn at_shows_the_state_at_a_position_or_time() {
    for fixture in Fixture::on_each_engine().await {
        let before_the_edit = fixture.position(6);
        fixture.check_snapshot(
            "at_message",
            &fixture.audit(&["at", &before_the_edit, "message", APP, "1", "1"]).expect(0),
        );
        let time = "2026-09-21T14:17:59Z";
        fixture.check_snapshot("at_time", &fixture.audit(&["at", time, "chat", APP, "1"]).expect(0));
        fixture.check_snapshot(
            "at_first",
            &fixture.audit(&["at", &fixture.position(1), "chat", APP, "1"]).expect(0),
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_difference_shows_the_changes_and_their_events() {
    for fixture in Fixture::on_each_engine().await {
        let (from, to) = (fixture.position(3), fixture.position(12));
        fixture.check_snapshot(
            "diff_message",
            &fixture.audit(&["diff", &from, &to, "message", APP, "1", "1"]).expect(0),
        );
        fixture
            .check_snapshot("diff_chat", &fixture.audit(&["diff", &from, &to, "chat", APP, "1"]).expect(0));
        let times = ["diff", "2026-09-21", "2026-09-22", "app", APP];
        fixture.check_snapshot("diff_app", &fixture.audit(&times).expect(0));
        fixture.check_snapshot("diff_nothing", &fixture.audit(&["diff", &from, &from, "app", APP]).expect(0));
    }
}
