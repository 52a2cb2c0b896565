//! Tests of opening the log, of TLS and of authentication.

use std::ops::Range;

use chat_domain::ExpectedRevision;
use chat_kurrentdb::{KurrentDbEventStore, KurrentDbUrl};
use chat_ports::contract_tests::event_store::scoped_log::{ScopedLog, event, within_deadline};
use chat_ports::event_store::{EventStore as _, EventStoreError, LogId};
use chat_testing::certificates::Authority;
use chat_testing::kurrentdb::FakeKurrentDb;
#[cfg(target_os = "linux")]
use chat_testing::sockets::wait_until_nagle_is_off;

use super::{SHORT_RETRIES, open_at, open_with};

/// The years in which a certificate is valid.
const VALID_YEARS: Range<i32> = 2020..3000;

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
async fn opening_an_existing_log_writes_nothing_to_an_empty_server() {
    let server = FakeKurrentDb::start().unwrap();
    let url = KurrentDbUrl::parse(&server.url()).unwrap();
    let refused = KurrentDbEventStore::open_existing(&url).await.map(drop);
    assert!(matches!(refused, Err(EventStoreError::Refused(_))), "{refused:?}");
    assert_eq!(server.append_count(), 0);
    let created = open_at(&server.url()).await.log_id().await.unwrap();
    let existing = KurrentDbEventStore::open_existing(&url).await.unwrap();
    assert_eq!(existing.log_id().await.unwrap(), created);
}

#[tokio::test]
async fn an_unreachable_server_is_a_retryable_error() {
    let server = FakeKurrentDb::start().unwrap();
    server.go_down();
    for (url, parts) in [
        (server.url(), ["no connection to 127.0.0.1:", "refused", "check that KurrentDB runs there"]),
        (
            "esdb://no-such-host.invalid:2113?tls=false".to_owned(),
            ["no-such-host.invalid", "does not resolve", "URL"],
        ),
    ] {
        let unreachable = try_open(&url).await.unwrap_err();
        assert!(unreachable.is_retryable(), "{unreachable:?}");
        let reason = chat_ports::error_chain(&unreachable);
        assert!(parts.iter().all(|part| reason.contains(part)), "{reason}");
    }
    server.come_up().unwrap();
    open_at(&server.url()).await;
}

#[tokio::test]
async fn works_over_tls_with_the_ca_file_of_the_url_or_without_verification() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new("authority").unwrap());
    let server =
        FakeKurrentDb::start_with_tls(&authority.sign(&["127.0.0.1"], VALID_YEARS).unwrap()).unwrap();
    server.require_authorization(AUTHORIZATION);
    let file = folder.path().join("ca.crt");
    std::fs::write(&file, authority.certificate()).unwrap();
    let user = "ops:correct%2Fhorse@127.0.0.1";
    for parameter in [format!("tlsCaFile={}", file.display()), "tlsVerifyCert=false".to_owned()] {
        let log = open_at(&format!("kurrentdb://{user}:{}?{parameter}", server.port())).await;
        let log = ScopedLog::new(log).await;
        log.append_to("s", ExpectedRevision::NoStream, vec![event("A")]).await.unwrap();
        assert_eq!(log.all().await.len(), 1);
    }
}

#[tokio::test]
async fn a_tls_failure_says_what_to_change() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, other) = (Authority::new("authority").unwrap(), Authority::new("other").unwrap());
    let file = |name: &str, content: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let (ca, other_ca) = (file("ca.crt", authority.certificate()), file("other.crt", other.certificate()));
    let (empty, missing) = (file("empty.crt", String::new()), folder.path().join("missing.crt"));
    let with_tls = |names: &[&str], years| {
        FakeKurrentDb::start_with_tls(&authority.sign(names, years).unwrap()).unwrap()
    };
    let server = with_tls(&["127.0.0.1"], VALID_YEARS);
    let (other_name, expired) =
        (with_tls(&["db.example"], VALID_YEARS), with_tls(&["127.0.0.1"], 2001..2002));
    let plain = FakeKurrentDb::start().unwrap();
    for (server, parameter, expected) in [
        (&server, format!("tlsCaFile={other_ca}"), "set tlsCaFile in the URL to the authority's certificate"),
        (&server, "tls=false".to_owned(), "is a TLS server: remove tls=false from the URL"),
        (&plain, format!("tlsCaFile={ca}"), "a server without TLS needs tls=false in the URL"),
        (&other_name, format!("tlsCaFile={ca}"), "is for other names"),
        (&expired, format!("tlsCaFile={ca}"), "is not valid at this time"),
        (&server, format!("tlsCaFile={}", missing.display()), "missing.crt, which can't be read"),
        (&server, format!("tlsCaFile={empty}"), "empty.crt, which holds no certificate"),
        (
            &server,
            format!("userCertFile={ca}&userKeyFile={empty}&tlsCaFile={ca}"),
            "userKeyFile in the URL names",
        ),
    ] {
        let refused = try_open(&format!("kurrentdb://127.0.0.1:{}?{parameter}", server.port())).await;
        let refused = refused.expect_err(&parameter);
        let reason = chat_ports::error_chain(&refused);
        assert!(matches!(refused, EventStoreError::Refused(_)), "{parameter}: {reason}");
        assert!(reason.contains(expected), "{parameter}: {reason}");
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn nagles_algorithm_is_off_on_every_connection() {
    let server = FakeKurrentDb::start().unwrap();
    let log = ScopedLog::new(open_at(&server.url()).await).await;
    let _subscription = log.subscribe(log.start).await.unwrap();
    log.append_to("s", ExpectedRevision::NoStream, vec![event("A")]).await.unwrap();
    // One connection is for calls, one for the subscription. A third one follows changes of metadata, and may not be
    // open yet.
    wait_until_nagle_is_off(&[server.port()], 2).await;
}

#[tokio::test]
async fn an_empty_server_in_place_of_the_old_one_is_detected_and_gets_no_log() {
    let server = FakeKurrentDb::start().unwrap();
    let (url, port) = (server.url(), server.port());
    let log = open_at(&url).await;
    log.verify_identity().await.unwrap();
    drop(server);
    let empty = FakeKurrentDb::start_at(port).unwrap();
    let replaced = within_deadline(async {
        loop {
            // While the server can't be reached, the check finds nothing.
            if let Err(replaced) = log.verify_identity().await {
                return replaced.to_string();
            }
        }
    });
    let replaced = replaced.await;
    assert!(replaced.contains("is missing now"), "{replaced}");
    assert_eq!(empty.append_count(), 0);
}

#[tokio::test]
async fn wrong_credentials_are_refused_and_not_retryable() {
    let server = FakeKurrentDb::start().unwrap();
    server.require_authorization(AUTHORIZATION);
    let url_with = |user: &str| server.url().replace("://", &format!("://{user}"));
    for wrong in ["", "ops:wrong@"] {
        let refused = try_open(&url_with(wrong)).await;
        assert!(
            matches!(&refused, Err(EventStoreError::Refused(cause)) if cause.to_string().contains("rights")),
            "{wrong:?}: {refused:?}"
        );
        assert!(!format!("{refused:?}").contains("wrong"), "the error shows the password: {refused:?}");
    }
    try_open(&url_with("ops:correct%2Fhorse@")).await.unwrap();
}

async fn try_open(url: &str) -> Result<(), EventStoreError> {
    open_with(SHORT_RETRIES, url).await.map(drop)
}
