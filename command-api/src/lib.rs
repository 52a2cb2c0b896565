//! The command side of the chat API: the [`routes`] pass commands to the [`service`], and the [`writer`] behind it decides
//! them and appends their events.
//!
//! ```
//! # use std::sync::Arc;
//! use chat_command_api::command::Command;
//! use chat_command_api::service::CommandService;
//! use chat_command_api::writer::{WriterConfig, WriterHandle};
//! use chat_domain::{AppName, AppToken, Metadata, Position, Timestamp};
//! use chat_ports::counters::InProcessCounters;
//! use chat_ports::event_store::EventStore;
//! use chat_sqlite::{SqliteEventStore, SqliteIdempotencyStore};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! let event_store = Arc::new(SqliteEventStore::open(&folder.path().join("events.db"))?);
//! let log_id = event_store.log_id().await?;
//! let idempotency_store = SqliteIdempotencyStore::new(&folder.path().join("idempotency.db"), log_id)?;
//! let (writer, _task) = WriterHandle::spawn(WriterConfig {
//!     event_store,
//!     counters: Arc::new(InProcessCounters::default()),
//!     clock: || Timestamp::from_millis(0),
//!     queue_capacity: 100,
//!     cache_bytes: WriterConfig::DEFAULT_CACHE_BYTES,
//!     head: Position::START,
//! });
//! let service = CommandService::new(writer, Arc::new(idempotency_store), log_id);
//! let app = AppToken::generate(|bytes| bytes.fill(7));
//! let create = Command::CreateApp { app, name: AppName::parse("first_app".to_owned())? };
//! let outcome = service.execute(create, Metadata::default(), None).await?;
//! assert_eq!(outcome.event.event_type(), "AppCreated");
//! # Ok(())
//! # }
//! ```

pub mod command;
pub mod idempotency;
pub mod metrics;
pub mod routes;
pub mod service;
mod write_health;
pub mod writer;
