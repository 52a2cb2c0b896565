//! Subscriptions with and without notifications.

use std::net::Ipv4Addr;

use chat_domain::Position;
use chat_ports::contract_tests::event_store::scoped_log::within_deadline;
use chat_ports::event_store::EventStore;
use chat_postgres::PostgresUrl;
use chat_testing::Postgres;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};

use crate::{Database, STREAM, fill, open};

/// The type of a notification in the protocol of Postgres.
const NOTIFICATION_RESPONSE: u8 = b'A';

/// Starts a proxy that forwards everything except notifications, as a connection pooler in transaction mode does.
/// Returns the port of the proxy.
async fn start_proxy_without_notifications(server_port: u16) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(forward(client, server_port));
        }
    });
    port
}

/// Forwards one connection until one side ends it.
async fn forward(client: TcpStream, server_port: u16) -> std::io::Result<()> {
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, server_port)).await?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    tokio::spawn(async move { copy(&mut from_client, &mut to_server).await });
    loop {
        let kind = from_server.read_u8().await?;
        let length = from_server.read_u32().await?;
        let mut body = vec![0; length as usize - 4];
        from_server.read_exact(&mut body).await?;
        if kind != NOTIFICATION_RESPONSE {
            to_client.write_u8(kind).await?;
            to_client.write_u32(length).await?;
            to_client.write_all(&body).await?;
        }
    }
}

#[tokio::test]
async fn events_of_other_processes_are_found_where_notifications_do_not_arrive() {
    let database = Database::new().unwrap();
    let port = Postgres::shared().port();
    let proxy = start_proxy_without_notifications(port).await;
    let url = database.url_text.replace(&format!(":{port}/"), &format!(":{proxy}/")) + "?sslmode=disable";
    let log = open(&PostgresUrl::parse(&url).unwrap()).await;
    let other = open(&database.url).await;
    let mut subscription = log.subscribe(Position::START).await.unwrap();
    for revision in 0..3 {
        fill(&other, STREAM, revision, 1).await;
        let batch = within_deadline(subscription.next(10)).await.unwrap();
        assert_eq!(batch.up_to, Position::new(revision + 1));
    }
}

#[tokio::test]
async fn a_subscription_goes_on_after_its_connections_are_terminated() {
    let database = Database::new().unwrap();
    let (log, other) = (open(&database.url).await, open(&database.url).await);
    let mut subscription = log.subscribe(Position::START).await.unwrap();
    for revision in 0..3 {
        database
            .run_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                 WHERE datname = current_database() AND pid <> pg_backend_pid()",
            )
            .await;
        fill(&other, STREAM, revision, 1).await;
        let batch = within_deadline(subscription.next(10)).await.unwrap();
        assert_eq!(batch.up_to, Position::new(revision + 1));
    }
}
