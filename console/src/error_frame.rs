//! Middleware that shows errors as pages of the console, with its navigation.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use chat_ports::clock;

use crate::console::Console;
use crate::page::{ConsoleError, Page, Section};
use crate::session::session_of;

/// Renders an error again as a page with the navigation, if the request has a session. Without one, the error's page
/// stays as it is.
pub(crate) async fn frame_errors(State(console): State<Console>, request: Request, next: Next) -> Response {
    let session = session_of(&console.access, request.headers(), clock::now());
    let section = Section::from_path(request.uri().path());
    let response = next.run(request).await;
    match (session, response.extensions().get::<ConsoleError>()) {
        (Some(session), Some(error)) => error.to_page(Page::new(section, error.title, &session)),
        _ => response,
    }
}
