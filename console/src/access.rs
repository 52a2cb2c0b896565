//! Access to the console.

use chat_web::admin_auth::AdminAccess;
use chat_web::operators::SessionKey;

/// The users who may use the console.
#[derive(Clone, Debug)]
pub(crate) struct ConsoleAccess {
    pub(crate) access: AdminAccess,
    /// Signs forms if the console requires no sign-in.
    pub(crate) open_session_key: SessionKey,
}
