//! The command side of the chat API: [`routes`] take requests, the [`writer`] behind them decides and appends.
//!
//! ```
//! # use std::sync::Arc;
//! use chat_command_api::command::Command;
//! use chat_command_api::writer::{CommandHandler, WriterConfig};
//! use chat_domain::{AppName, AppToken, Metadata, Position, Timestamp};
//! use chat_ports::counters::InProcessCounters;
//! use chat_sqlite::SqliteEventStore;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! let (handler, _task) = CommandHandler::spawn(WriterConfig {
//!     event_store: Arc::new(SqliteEventStore::open(&folder.path().join("events.db"))?),
//!     counters: Arc::new(InProcessCounters::default()),
//!     clock: || Timestamp::from_millis(0),
//!     queue: WriterConfig::QUEUE,
//!     cache_bytes: WriterConfig::CACHE_BYTES,
//!     head: Position::START,
//! });
//! let app = AppToken::generate(|bytes| bytes.fill(7));
//! let create = Command::CreateApp { app, name: AppName::parse("first_app".to_owned())? };
//! let recorded = handler.handle(create, &Metadata::default()).await?;
//! assert_eq!(recorded.event.event_type(), "AppCreated");
//! # Ok(())
//! # }
//! ```

pub mod command;
pub mod routes;
pub mod service;
pub mod writer;
