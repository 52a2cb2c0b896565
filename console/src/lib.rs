//! The console: pages for operators, rendered on the server, in a browser.
//!
//! Most pages have a module with their handlers and a template of the same name under `templates/`. `page` is their
//! frame, `session` and `sign_in` identify the operator, `form` reads forms and refuses those of other sites, and
//! `app_address` gives apps addresses without their tokens. Pages read the same data as the command line and the admin
//! API, mostly through `chat-operations`. Every page works without scripts, except for live updates.

mod access;
mod action;
mod activity;
mod agreement;
mod app;
mod app_address;
mod app_lookup;
mod apps;
mod assets;
mod badge;
mod chart;
mod chat;
mod client_attempts;
mod console;
mod dead_letter;
mod dead_letters;
mod error_frame;
mod event;
mod event_view;
mod events;
mod field_problem;
mod find;
mod form;
mod jobs;
mod lost_subject;
mod message;
mod message_item;
mod metric_values;
mod operator_action_view;
mod origin;
mod overview;
mod page;
mod past_state;
mod projections;
mod promotion_facts;
mod proofs;
mod report_view;
mod samples;
mod search;
mod secret_text;
mod session;
mod shown_value;
mod sign_in;
mod snippet_view;
mod stream_dead_letters;
mod subject_address;
mod text;
mod text_difference;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::Response;
use axum::routing::{get, post};
use http::HeaderValue;
use http::header::{CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};

pub use console::{Console, ConsolePorts, LiveReaders};

use error_frame::frame_errors;
use page::{ConsoleError, see_other};

/// The program's version.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The maximum size of a sent sign-in form, in bytes. It is small because anyone may send the form.
const MAX_SIGN_IN_BYTES: usize = 16 * 1024;

/// Pages run only scripts that this server serves, load nothing from other servers, send forms only to this one, and
/// can't be embedded in a frame. So a stored text could run no script of its own, even if a page showed it as HTML.
const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                              connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// The routes of the console, with their whole paths. Begins to sample the projections' lag.
pub fn router(console: Console) -> Router {
    let projections = Arc::clone(&console.ports.projections);
    tokio::spawn(console.samples.clone().run(projections, console.shutdown.clone()));
    Router::new()
        .route("/console", get(overview::show))
        .route("/console/", get(async || see_other("/console")))
        .route("/console/{*rest}", get(async || ConsoleError::not_found("No page of the console is here.")))
        .route(
            "/console/sign-in",
            get(sign_in::show_sign_in).post(sign_in::sign_in).layer(DefaultBodyLimit::max(MAX_SIGN_IN_BYTES)),
        )
        .route("/console/sign-out", post(sign_in::sign_out))
        .route("/console/events", get(events::show))
        .route("/console/events/filter", get(async || see_other("/console/events")).post(events::filter))
        .route("/console/events/tail", get(events::tail))
        .route("/console/events/{event}", get(event::show))
        .route("/console/activity", get(activity::show))
        // The dry run, which is the response to the form, has this URL too. A GET of the URL leads back to the form.
        .route("/console/actions/{kind}", get(action::redirect_to_form).post(action::act))
        .route("/console/jobs", get(jobs::list))
        .route("/console/jobs/{id}", get(jobs::show))
        .route("/console/jobs/{id}/checkpoint", get(jobs::checkpoint))
        .route("/console/jobs/{id}/events", get(jobs::follow))
        .route("/console/projections", get(projections::show))
        .route("/console/proofs", get(proofs::show))
        .route("/console/proofs/check", get(async || see_other("/console/proofs")).post(proofs::check))
        .route("/console/proofs/event", get(async || see_other("/console/proofs")).post(proofs::prove_event))
        .route("/console/dead-letters", get(dead_letters::show))
        .route("/console/dead-letters/{position}", get(dead_letter::show))
        .route("/console/find", get(async || see_other("/console")).post(find::find))
        .route("/console/search", get(search::show).post(search::submit))
        .route("/console/apps", get(apps::show).post(apps::find))
        .route("/console/apps/{app}", get(app::show))
        .route("/console/apps/{app}/token", get(app::redirect_to_app).post(app::show_token))
        .route("/console/apps/{app}/diff", get(past_state::show_app_difference))
        .route("/console/apps/{app}/chats/{chat}", get(chat::show))
        .route("/console/apps/{app}/chats/{chat}/diff", get(past_state::show_chat_difference))
        .route("/console/apps/{app}/chats/{chat}/messages/{message}", get(message::show))
        .route(
            "/console/apps/{app}/chats/{chat}/messages/{message}/diff",
            get(past_state::show_message_difference),
        )
        .route("/console/assets/{name}", get(assets::serve))
        .layer(from_fn_with_state(console.clone(), frame_errors))
        .layer(map_response(add_headers))
        .with_state(console)
}

async fn add_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}
