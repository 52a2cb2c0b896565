//! Tests of opening the log and of authentication.

use chat_ports::event_store::{EventStoreError, LogId};
use chat_testing::kurrentdb::FakeKurrentDb;

use super::{open_at, open_with_short_timeouts};

/// `ops:correct/horse` as an HTTP authorization header.
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
async fn an_unreachable_server_is_retryable() {
    let server = FakeKurrentDb::start().unwrap();
    server.go_down();
    let unreachable = open_with_short_timeouts(&server.url()).await.map(drop);
    assert!(unreachable.as_ref().is_err_and(EventStoreError::is_retryable), "{unreachable:?}");
    let reason = unreachable.map_err(|error| chat_ports::error_chain(&error)).unwrap_err();
    assert!(reason.contains("no connection to 127.0.0.1:") && reason.contains("refused"), "{reason}");
    server.come_up().unwrap();
    open_with_short_timeouts(&server.url()).await.unwrap();
}

#[tokio::test]
async fn wrong_credentials_are_refused_and_not_retryable() {
    let server = FakeKurrentDb::start().unwrap();
    server.require_authorization(AUTHORIZATION);
    let with = |user: &str| server.url().replace("://", &format!("://{user}"));
    for wrong in ["", "ops:wrong@"] {
        let refused = try_open(&with(wrong)).await;
        assert!(
            matches!(&refused, Err(EventStoreError::Refused(cause)) if cause.to_string().contains("rights"))
        );
        assert!(!format!("{refused:?}").contains("wrong"), "{refused:?}");
    }
    try_open(&with("ops:correct%2Fhorse@")).await.unwrap();
}

async fn try_open(url: &str) -> Result<(), EventStoreError> {
    open_with_short_timeouts(url).await.map(drop)
}
