//! Tests of arguments that `audit` refuses or warns about, and of the examples in its help.

use crate::fixture::{APP, Fixture};

#[tokio::test(flavor = "multi_thread")]
async fn invalid_arguments_are_named_and_exit_with_2() {
    let [fixture, _] = Fixture::on_each_engine().await;
    let (late, early) = (fixture.position(9), fixture.position(3));
    let cases: [(&[&str], &str); 18] = [
        (&["list", "--app", "x"], "no app has a token that begins with \"x\""),
        (&["list", "--app", ""], "--app must be"),
        (&["list", "--chat", "1"], "--chat"),
        (&["list", "--since", "soon"], "--since"),
        (&["list", "--since", "2h", "--from", "2026-09-21"], "--since"),
        (&["list", "--from", "yesterday"], "--from"),
        (&["list", "--to", "24:00"], "--to"),
        (&["list", "--after", "x1"], "--after"),
        (&["list", "--before", "x"], "--before"),
        (&["list", "--text", ""], "--text"),
        (&["list", "--limit", "0"], "--limit"),
        (&["list", "--order", "sideways"], "--order"),
        (&["show", "x"], "POSITION|EVENT_ID"),
        (&["show", "4000"], "no event is at position 4000: the last event is at 12"),
        (&["at", "someday", "app", APP], "POSITION|TIME"),
        (&["diff", &late, &early, "app", APP], "A is after B"),
        (&["explain", "app", "x"], "no app has a token that begins with \"x\""),
        (&["explain", "app", APP], "there is no read model"),
    ];
    for (arguments, expected) in cases {
        let output = fixture.audit(arguments).expect(2);
        assert!(output.stderr.contains(expected), "{arguments:?}: {}", output.stderr);
        assert!(output.stdout.is_empty(), "{arguments:?} wrote to stdout");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_misspelt_event_type_is_reported() {
    let [fixture, _] = Fixture::on_each_engine().await;
    let output = fixture.audit(&["list", "--type", "Messagedeleted"]).expect(0);
    let warning = "warning: no event type is called \"Messagedeleted\"; similar: \"MessageDeleted\"";
    assert!(output.stderr.starts_with(warning), "{}", output.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_help_of_a_verb_has_an_example() {
    let [fixture, _] = Fixture::on_each_engine().await;
    for verb in ["list", "tail", "show", "trace", "explain", "at", "diff", "stats", "export"] {
        let output = fixture.test_log.run_without_log_arguments(&["audit", verb, "-h"]).expect(0);
        assert!(output.stdout.contains("Example"), "{verb}: {}", output.stdout);
    }
}
