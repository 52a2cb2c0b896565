//! Opening the log, and who is let in.

use chat_ports::event_store::{EventStoreError, LogId};
use chat_testing::kurrentdb::FakeKurrentDb;

use super::{open_at, open_impatiently};

/// `ops:correct/horse`, as HTTP has it.
const AUTHORIZATION: &str = "Basic b3BzOmNvcnJlY3QvaG9yc2U=";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_start_at_once_agree_on_the_logs_identity() {
    let server = FakeKurrentDb::start().unwrap();
    let url = server.url();
    let opened = (0..8).map(|_| {
        let url = url.clone();
        tokio::spawn(async move { open_at(&url).await.log_id().await.unwrap() })
    });
    let ids: Vec<LogId> = futures::future::join_all(opened).await.into_iter().map(Result::unwrap).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let another = FakeKurrentDb::start().unwrap();
    assert_ne!(open_at(&another.url()).await.log_id().await.unwrap(), ids[0]);
}

#[tokio::test]
async fn a_server_that_is_away_is_worth_another_try() {
    let server = FakeKurrentDb::start().unwrap();
    server.go_down();
    let away = open_impatiently(&server.url()).await.map(drop);
    assert!(away.as_ref().is_err_and(EventStoreError::is_retryable), "{away:?}");
    server.come_up().unwrap();
    open_impatiently(&server.url()).await.unwrap();
}

#[tokio::test]
async fn a_user_who_is_not_let_in_is_told_so_and_not_to_try_again() {
    let server = FakeKurrentDb::start().unwrap();
    server.require_authorization(AUTHORIZATION);
    let with = |user: &str| server.url().replace("://", &format!("://{user}"));
    for wrong in ["", "ops:wrong@"] {
        let refused = open_at_least(&with(wrong)).await;
        assert!(
            matches!(&refused, Err(EventStoreError::Refused(cause)) if cause.to_string().contains("rights"))
        );
        assert!(!format!("{refused:?}").contains("wrong"), "{refused:?}");
    }
    open_at_least(&with("ops:correct%2Fhorse@")).await.unwrap();
}

async fn open_at_least(url: &str) -> Result<(), EventStoreError> {
    open_impatiently(url).await.map(drop)
}
