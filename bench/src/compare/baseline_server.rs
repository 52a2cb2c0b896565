//! The baseline: an axum server that does only the work that every server of this API must do. It parses the JSON of a
//! message and answers 201 without storing anything, or answers `GET /answer` with fixed bytes from memory.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use clap::Args;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::error::RunError;
use crate::output::write_stdout;
use crate::verdict::Verdict;

/// Arguments of `bare`.
#[derive(Debug, Args)]
pub struct BaselineArgs {
    /// The address to listen on.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// A file with the body of the response to `GET /answer`.
    #[arg(long, value_name = "FILE")]
    answer: Option<PathBuf>,
}

#[derive(Deserialize)]
struct CreateMessage {
    body: String,
}

#[derive(Serialize)]
struct MessageCreated {
    message: &'static str,
    message_number: u64,
}

struct BaselineState {
    last_number: AtomicU64,
    answer: Bytes,
}

/// Serves until the process ends. The first line of standard output is the address.
pub async fn run(arguments: BaselineArgs) -> Result<Verdict, RunError> {
    let answer = match arguments.answer {
        Some(path) => std::fs::read(path).map_err(RunError::Environment)?.into(),
        None => Bytes::new(),
    };
    let state = Arc::new(BaselineState { last_number: AtomicU64::new(0), answer });
    let routes = Router::new()
        .route("/api/v1/apps/{app_token}/chats/{chat_number}/messages", post(create_message))
        .route("/answer", get(answer_from_memory))
        .with_state(state);
    let listener = TcpListener::bind(arguments.listen).await.map_err(RunError::Environment)?;
    let address = listener.local_addr().map_err(RunError::Environment)?;
    write_stdout(&format!("{address}\n")).map_err(RunError::Output)?;
    axum::serve(listener, routes).await.map_err(RunError::Environment)?;
    Ok(Verdict::Passed)
}

async fn create_message(
    State(state): State<Arc<BaselineState>>,
    Path((_app, _chat)): Path<(String, u64)>,
    Json(message): Json<CreateMessage>,
) -> Response {
    if message.body.trim().is_empty() {
        return StatusCode::UNPROCESSABLE_ENTITY.into_response();
    }
    let message_number = state.last_number.fetch_add(1, Ordering::Relaxed) + 1;
    let created = MessageCreated { message: "Message created successfully", message_number };
    (StatusCode::CREATED, Json(created)).into_response()
}

async fn answer_from_memory(State(state): State<Arc<BaselineState>>) -> Response {
    let json = HeaderValue::from_static("application/json");
    ([(CONTENT_TYPE, json)], state.answer.clone()).into_response()
}
