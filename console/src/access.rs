//! Access to the console.

use chat_web::admin_auth::AdminAccess;
use chat_web::operators::SessionKey;

/// The access policy of the console, and the key that its forms need where the policy is open.
#[derive(Clone, Debug)]
pub(crate) struct ConsoleAccess {
    pub(crate) policy: AdminAccess,
    /// Signs the forms if the console requires no sign-in. With sign-in, the session key of the operator signs them.
    pub(crate) open_session_key: SessionKey,
}
