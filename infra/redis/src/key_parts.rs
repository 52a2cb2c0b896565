//! What keys are made of.

use chat_domain::AppToken;
use sha2::{Digest, Sha256};

use chat_ports::event_store::LogId;

/// An app, as keys name it: enough of its token's hash that no two apps meet. The token is a credential.
pub(crate) fn for_app(app: AppToken) -> String {
    let mut half = [0; 16];
    half.copy_from_slice(&Sha256::digest(app.expose())[..16]);
    format!("{:032x}", u128::from_be_bytes(half))
}

/// A log, as keys name it: the end of its id, which is random in every version of UUIDs, as the beginning is not. What is
/// left over in Redis from another log is not met.
pub(crate) fn for_log(log: LogId) -> String {
    log.0.simple().to_string().split_off(24)
}
