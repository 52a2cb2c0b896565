//! Arguments that `audit` refuses.

use crate::story::{APP, Stage};

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_understood_is_named_and_ends_with_2() {
    let [stage, _] = Stage::both().await;
    let (late, early) = (stage.position(9), stage.position(3));
    let cases: [(&[&str], &str); 17] = [
        (&["list", "--app", "x"], "--app"),
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
        (&["show", "4000"], "no event is at position 4000"),
        (&["at", "someday", "app", APP], "POSITION|TIME"),
        (&["diff", &late, &early, "app", APP], "A is after B"),
        (&["explain", "app", "x"], "TOKEN"),
        (&["explain", "app", APP], "there is no read model"),
    ];
    for (arguments, named) in cases {
        let said = stage.audit(arguments).expect(2);
        assert!(said.stderr.contains(named), "{arguments:?}: {}", said.stderr);
        assert!(said.stdout.is_empty(), "{arguments:?}: errors belong on stderr");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_that_is_misspelt_is_told() {
    let [stage, _] = Stage::both().await;
    let said = stage.audit(&["list", "--type", "Messagedeleted"]).expect(0);
    assert_eq!(said.stderr, "warning: no event type is called \"Messagedeleted\"\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn help_has_an_example_for_each_verb() {
    let [stage, _] = Stage::both().await;
    for verb in ["list", "tail", "show", "trace", "explain", "at", "diff", "stats", "export"] {
        let said = stage.setting.run_without_log(&["audit", verb, "-h"]).expect(0);
        assert!(said.stdout.contains("Example"), "{verb}: {}", said.stdout);
    }
}
