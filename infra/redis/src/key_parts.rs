//! Parts of Redis keys that identify an app or a log.

use chat_domain::AppToken;
use sha2::{Digest, Sha256};

use chat_ports::event_store::LogId;

/// The key part of an app: half of a hash of its token, since the token itself is a credential.
pub(crate) fn for_app(app: AppToken) -> String {
    let mut half = [0; 16];
    half.copy_from_slice(&Sha256::digest(app.expose())[..16]);
    format!("{:032x}", u128::from_be_bytes(half))
}

/// The key part of a log: the end of its id, which is random in every version of UUIDs. It separates the keys of several
/// logs on one server.
pub(crate) fn for_log(log: LogId) -> String {
    log.0.simple().to_string().split_off(24)
}
