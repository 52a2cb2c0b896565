//! The frame of error pages.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use chat_ports::clock;

use crate::console::Console;
use crate::page::{ConsoleError, Page, Section};
use crate::session::session_of;

/// Shows an error in the frame of the operator who is signed in, with the navigation.
pub(crate) async fn frame_errors(State(console): State<Console>, request: Request, next: Next) -> Response {
    let session = session_of(&console.access, request.headers(), clock::now());
    let section = Section::from_path(request.uri().path());
    let response = next.run(request).await;
    match (session, response.extensions().get::<ConsoleError>()) {
        (Some(session), Some(error)) => error.to_page(Page::new(section, error.title, &session)),
        _ => response,
    }
}
