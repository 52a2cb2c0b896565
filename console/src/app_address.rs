//! The address of an app in the console: the position of its creation in the log. An app's token is a secret, so no URL
//! of the console contains it. The position is unique, and no secret.

use chat_domain::{AppToken, Position, Revision, StreamId};
use chat_ports::event_store::{EventStoreError, ReadStart, StreamRead};

use crate::console::Console;
use crate::page::ConsoleError;

/// Returns the token of the app that was created at a position.
pub(crate) async fn app_at(console: &Console, position: Position) -> Result<AppToken, ConsoleError> {
    let event = console.log().event_at(position).await.map_err(|error| ConsoleError::unavailable(&error))?;
    let app = event.and_then(|event| match StreamId::parse(&event.stream) {
        // The event is not decoded: an app has a page even if its first event can't be decoded.
        Ok(StreamId::App(app)) if event.revision == Revision::FIRST => Some(app),
        _ => None,
    });
    let app =
        app.ok_or_else(|| ConsoleError::not_found(format!("No app was created at position {position}.")))?;
    console.remember_position(app, position);
    Ok(app)
}

/// Returns the position of an app's creation. `None` if the log has no such app.
pub(crate) async fn creation_position(
    console: &Console,
    app: AppToken,
) -> Result<Option<Position>, EventStoreError> {
    if let Some(position) = console.remembered_position(app) {
        return Ok(Some(position));
    }
    let stream = StreamId::App(app).to_string();
    let first = StreamRead::all(stream, ReadStart::Forwards(Revision::FIRST), 1);
    let Some(event) = console.log().read_stream(first).await?.pop() else { return Ok(None) };
    console.remember_position(app, event.position);
    Ok(Some(event.position))
}

/// The address of the page of the app that was created at a position.
pub(crate) fn app_path(creation_position: Position) -> String {
    format!("/console/apps/{creation_position}")
}
