//! Actions of operators: a dry run, a confirmation, a job, and the event that the action leaves.

use std::time::Duration;

use chat_domain::event::ChatCreated;
use chat_domain::{ChatNumber, Metadata, OperatorAction, operator_action};
use chat_ports::event_store::{ReadStart, StreamRead};
use http::StatusCode;
use http::header::CONTENT_DISPOSITION;
use tokio::time::timeout;

use crate::fixture::{
    Fixture, Reply, SignedIn, app_created, app_stream, chat_stream, message_created, token,
};

impl Fixture {
    /// Sends the form of a dry run, confirms it with a reason, and returns the page of the ended job. Only for the first
    /// action in a fixture: after the dry run, it checks that the console has recorded no action at all.
    async fn execute(&self, operator: &SignedIn, kind: &str, fields: &[(&str, &str)]) -> Reply {
        let path = format!("/console/actions/{kind}");
        let dry_run = self.post(operator, &path, fields).await;
        assert_eq!(dry_run.status, StatusCode::OK, "{}", dry_run.text());
        dry_run.assert_shows(&["Nothing was changed.", "Do it"]);
        assert!(self.actions().await.iter().all(|(_, program)| program != "console"), "the dry run acted");
        let key = dry_run.hidden("idempotency_key");
        let mut confirmed = fields.to_vec();
        confirmed.extend([("execute", "true"), ("idempotency_key", &key), ("reason", "of a test")]);
        let accepted = self.post(operator, &path, &confirmed).await;
        assert_eq!(accepted.status, StatusCode::SEE_OTHER, "{}", accepted.text());
        // A confirmation that is sent again has the same idempotency key, so it leads to the same job.
        let again = self.post(operator, &path, &confirmed).await;
        assert_eq!(again.location(), accepted.location());
        self.ended_job(operator, accepted.location()).await
    }

    /// Waits until a job has ended, and returns its page.
    async fn ended_job(&self, operator: &SignedIn, path: &str) -> Reply {
        let ended = async {
            // The server-sent events of the progress end with the job.
            let progress = self.get(operator, &format!("{path}/events")).await;
            assert!(progress.body.contains("event: end"), "{}", progress.body);
            self.get(operator, path).await
        };
        timeout(Duration::from_mins(1), ended).await.unwrap()
    }

    /// The operator actions, each with the program that recorded it, without the events of the jobs themselves.
    async fn actions(&self) -> Vec<(OperatorAction, String)> {
        let read =
            StreamRead::all(operator_action::STREAM, ReadStart::Forwards(chat_domain::Revision::FIRST), 100);
        let events = self.log.read_stream(read).await.unwrap();
        let actions = events.iter().map(|event| {
            let action =
                OperatorAction::decode(&event.event_type, event.schema_version, &event.data).unwrap();
            let metadata: Metadata = serde_json::from_slice(&event.metadata).unwrap();
            assert!(metadata.actor.name.is_some());
            (action, metadata.actor.user_agent.unwrap())
        });
        let is_job_event = |action: &OperatorAction| action.event_type().starts_with("Job");
        actions.filter(|(action, _)| !is_job_event(action)).collect()
    }

    /// The types of the actions that the console recorded.
    async fn console_actions(&self) -> Vec<&'static str> {
        let actions = self.actions().await;
        let from_console = actions.iter().filter(|(_, program)| program == "console");
        from_console.map(|(action, _)| action.event_type()).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_retried_discarded_and_acknowledged() {
    let fixture = Fixture::new().await;
    let position = fixture.with_dead_letter().await;
    let (admin, dead_letter) = (fixture.admin().await, format!("read_model/{position}"));
    let fields = [("dead_letter", dead_letter.as_str())];
    let retried = fixture.execute(&admin, "dead_letters.retry", &fields).await;
    retried.assert_shows(&[
        "Retry of MessagePinned at position 4: read model",
        "ended with findings",
        "blocked again",
        "of a test",
    ]);
    assert!(!retried.body.contains(token().expose()));
    assert_eq!(fixture.console_actions().await, ["DeadLettersRetried"]);

    let path = "/console/actions/dead_letters.discard";
    let dry_run = fixture.post(&admin, path, &fields).await;
    dry_run.assert_shows(&["1 stream no longer blocked"]);
    let no_reason = fixture.post(&admin, path, &[fields[0], ("execute", "true"), ("reason", " ")]).await;
    no_reason.assert_shows(&["A reason is required"]);
    let confirmed = [fields[0], ("execute", "true"), ("reason", "broken")];
    let accepted = fixture.post(&admin, path, &confirmed).await;
    fixture.ended_job(&admin, accepted.location()).await.assert_shows(&["done", "no longer blocked"]);
    let page = fixture.get(&admin, &format!("/console/dead-letters/{position}")).await;
    page.assert_shows(&["discarded, not acknowledged", "by admin", "broken"]);

    let path = "/console/actions/dead_letters.acknowledge";
    let accepted = fixture.post(&admin, path, &confirmed).await;
    fixture.ended_job(&admin, accepted.location()).await.assert_shows(&["1 discard acknowledged"]);
    let again = fixture.post(&admin, "/console/actions/dead_letters.retry", &fields).await;
    again.assert_shows(&["Not possible now"]);
    let expected = ["DeadLettersRetried", "DeadLetterDiscarded", "DiscardAcknowledged"];
    assert_eq!(fixture.console_actions().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generation_is_rebuilt_promoted_and_shown() {
    let fixture = Fixture::new().await;
    let last = fixture.append(app_stream(), app_created("Helpdesk")).await;
    fixture.wait_until_projected(last).await;
    let admin = fixture.admin().await;
    let before = fixture.get(&admin, "/console/projections").await;
    before.assert_shows(&["Read model 1", "Search index 1", "There is no previous generation."]);
    let fields = [("projection", "read_model")];
    let done = fixture.execute(&admin, "projections.rebuild", &fields).await;
    done.assert_shows(&["Rebuild: read model", "Read model 2 now live", "the same"]);
    assert_eq!(fixture.console_actions().await, ["RebuildStarted", "ProjectionsPromoted"]);
    let after = fixture.get(&admin, "/console/projections").await;
    after.assert_shows(&["Read model 2", "previous"]);
    let plan = fixture.post(&admin, "/console/actions/projections.rollback", &fields).await;
    plan.assert_shows(&["Queries would move to Read model 1", "Read model 2 Read model 1"]);
    let none = fixture.post(&admin, "/console/actions/projections.rollback", &[]).await;
    assert_eq!(none.status, StatusCode::UNPROCESSABLE_ENTITY);
    none.assert_shows(&["Select at least one projection."]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_shows_the_rows_that_differ_and_is_promoted_and_rolled_back() {
    let fixture = Fixture::new().await;
    fixture.append(app_stream(), app_created("Helpdesk")).await;
    fixture.append(app_stream(), ChatCreated { chat_number: ChatNumber::FIRST }).await;
    let message = fixture.append(chat_stream(), message_created(1, "as it was written")).await;
    fixture.wait_until_projected(message).await;
    fixture.alter_read_model("UPDATE messages SET body = '<i>altered</i>' WHERE number = 1");
    let (admin, fields) = (fixture.admin().await, [("projection", "read_model")]);
    let rebuilt = fixture.execute(&admin, "projections.rebuild", &fields).await;
    rebuilt.assert_shows(&["1 row differs, so nothing was promoted", "message 1 of chat 1"]);
    assert!(rebuilt.body.contains("<del>&#60;i&#62;altered&#60;/i&#62;</del>"), "{}", rebuilt.body);
    assert!(rebuilt.body.contains("<ins>as it was written</ins>"));
    assert!(rebuilt.body.contains(&format!("href=\"/console/events/{message}\"")));
    assert!(!rebuilt.body.contains(token().expose()));
    let built = fixture.get(&admin, "/console/projections").await;
    built.assert_shows(&["Read model 2 built, not promoted"]);
    let plan = fixture.post(&admin, "/console/actions/projections.promote", &fields).await;
    plan.assert_shows(&["About the new generations", "Read model 2 none 1 row differed"]);
    let generation = [("generation", "read_model/2")];
    let plan = fixture.post(&admin, "/console/actions/projections.drop", &generation).await;
    plan.assert_shows(&["Read model 2 would be removed"]);
    let confirmed = [fields[0], ("execute", "true"), ("reason", "the new rows are right")];
    let promoted = fixture.post(&admin, "/console/actions/projections.promote", &confirmed).await;
    fixture.ended_job(&admin, promoted.location()).await.assert_shows(&["Read model 2 now live"]);
    let rolled_back = fixture.post(&admin, "/console/actions/projections.rollback", &confirmed).await;
    fixture.ended_job(&admin, rolled_back.location()).await.assert_shows(&["Read model 1 now live"]);
    let expected = ["RebuildStarted", "ProjectionsPromoted", "ProjectionsRolledBack"];
    assert_eq!(fixture.console_actions().await, expected);
    let activity = fixture.get(&admin, "/console/activity").await;
    activity.assert_shows(&["Rollback: read model done 2 events", "Promotion: read model done 2 events"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_proved_with_a_checkpoint_of_the_server() {
    let fixture = Fixture::new().await;
    let position = fixture.append(app_stream(), app_created("Helpdesk")).await;
    let admin = fixture.admin().await;
    fixture.get(&admin, "/console/proofs").await.assert_shows(&["No checkpoints yet"]);
    let made = fixture.execute(&admin, "audit.checkpoint", &[]).await;
    made.assert_shows(&["The checkpoint is made"]);
    assert_eq!(fixture.console_actions().await, ["SigningKeyUsed"]);
    let proofs = fixture.get(&admin, "/console/proofs").await;
    proofs.assert_shows(&["of a test", "admin", &fixture.public_key]);
    let jobs = fixture.get(&admin, "/console/jobs").await;
    let job = jobs.body.split("href=\"/console/jobs/").nth(1).unwrap().split('"').next().unwrap();
    let file = format!("/console/jobs/{job}/checkpoint");
    assert!(proofs.body.contains(&format!("href=\"{file}\" download")), "{}", proofs.body);
    let note = fixture.get(&admin, &file).await;
    let covered = note.body.lines().find_map(|line| line.strip_prefix("position ")).unwrap();
    let named = format!("attachment; filename=\"{covered}.checkpoint\"");
    assert_eq!(note.headers[CONTENT_DISPOSITION], named.as_str());
    let note = note.body.replace('\n', "\r\n");

    let fields = [("checkpoint", note.as_str()), ("public_key", &fixture.public_key)];
    let verify = [fields[0], fields[1], ("execute", "true"), ("reason", "of a test")];
    let verified = fixture.post(&admin, "/console/actions/audit.verify", &verify).await;
    let verified = fixture.ended_job(&admin, verified.location()).await;
    verified.assert_shows(&["The log is unaltered up to the checkpoint", "Signature good"]);

    let reader = fixture.reader().await;
    let event = fixture.get(&reader, &format!("/console/events/{position}")).await;
    let prove = format!("/console/proofs?position={position}");
    assert!(event.body.contains(&format!("href=\"{prove}#event-proof\"")));
    let proofs = fixture.get(&reader, &prove).await;
    assert!(proofs.body.contains(&format!("required value=\"{position}\"")));
    let position = position.to_string();
    let fields = [("position", position.as_str()), ("checkpoint", &note)];
    let proof = fixture.post(&reader, "/console/proofs/event", &fields).await;
    assert!(proof.body.starts_with("c2sp.org/tlog-proof@v1\n"), "{}", proof.body);
    let check = async |proof: &str, key: &str| {
        fixture.post(&reader, "/console/proofs/check", &[("proof", proof), ("public_key", key)]).await
    };
    let valid = check(&proof.body, &fixture.public_key).await;
    valid.assert_shows(&["The proof is valid", "AppCreated", "has the same event at this position"]);
    valid.assert_shows(&["Actor", "Name Helpdesk", &fixture.public_key]);
    check(&proof.body, "").await.assert_shows(&["The signature was not checked"]);
    let altered = proof.body.replacen("index 0", "index 1", 1);
    check(&altered, &fixture.public_key).await.assert_shows(&["The proof is not valid"]);
    let nonsense = check("nonsense", "").await;
    assert_eq!(nonsense.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(!valid.body.contains(token().expose()));
}

#[tokio::test]
async fn an_operator_who_only_reads_sees_disabled_forms_and_is_refused() {
    let fixture = Fixture::new().await;
    let position = fixture.with_dead_letter().await;
    let (reader, dead_letter) = (fixture.reader().await, format!("read_model/{position}"));
    for page in ["projections", "dead-letters", "proofs", &format!("dead-letters/{position}")] {
        let page = fixture.get(&reader, &format!("/console/{page}")).await;
        page.assert_shows(&["You can read, but not act", "scope act can"]);
        assert!(page.body.contains("<fieldset class=\"stack\" disabled>"));
    }
    for kind in ["dead_letters.discard", "projections.rebuild", "audit.checkpoint"] {
        let fields = [
            ("dead_letter", dead_letter.as_str()),
            ("projection", "read_model"),
            ("execute", "true"),
            ("reason", "x"),
        ];
        let refused = fixture.post(&reader, &format!("/console/actions/{kind}"), &fields).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN);
        refused.assert_shows(&["Nothing was done"]);
    }
    assert!(fixture.actions().await.is_empty());
    fixture.get(&reader, "/console/jobs").await.assert_shows(&["No jobs"]);
}

#[tokio::test]
async fn a_job_or_an_action_that_does_not_exist_is_not_found() {
    let fixture = Fixture::new().await;
    let admin = fixture.admin().await;
    for path in ["x", "00000000-0000-4000-8000-000000000000", "00000000-0000-4000-8000-000000000000/events"] {
        let missing = fixture.get(&admin, &format!("/console/jobs/{path}")).await;
        assert_eq!(missing.status, StatusCode::NOT_FOUND);
    }
    let missing = fixture.post(&admin, "/console/actions/projections.melt", &[]).await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
}
