//! Checks of the options before a role starts.

use std::net::SocketAddr;

use chat_operations::proof::key::SigningKey;
use chat_web::cors::CorsOrigins;

use crate::data_owner::file_failure;
use crate::failure::Failure;
use crate::listen_address::ListenAddress;
use crate::listeners::Addresses;
use crate::serve_options::{AppCreation, Role, ServeOptions};

/// Returns the addresses to listen on. Refuses those that [`check_exposure`] refuses.
pub(crate) fn wanted_addresses(role: Role, options: &ServeOptions) -> Result<Addresses, Failure> {
    let public = options.listen_addr.as_ref().map(ListenAddress::resolve).transpose()?;
    let admin = options.admin_listen_addr.as_ref().map(ListenAddress::resolve).transpose()?;
    let addresses = Addresses { public: public.unwrap_or_else(|| role.default_address()), admin };
    check_exposure(options, addresses.public)?;
    if let Some(admin) = addresses.admin {
        check_exposure(options, admin)?;
    }
    Ok(addresses)
}

/// Refuses to listen beyond this machine if no operator token is required. `GET /apps` and the admin routes of a
/// process that answers queries would then give every app's token to every client. The check is the same for all roles.
fn check_exposure(options: &ServeOptions, address: SocketAddr) -> Result<(), Failure> {
    if options.requires_token() || address.ip().is_loopback() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "refusing to listen on {address} without an admin token or operators: anyone who reaches a process that \
         answers queries could read every app's token. Set a token, for example with\n\n    \
         ADMIN_TOKEN=$(openssl rand -hex 32)\n\nin the environment, name operators with --operators, or listen on \
         127.0.0.1"
    )))
}

/// Refuses to let pages of all origins use the API if no operator token is required. All pages could then read every
/// app's token from a process that answers queries. The check is the same for all roles.
pub(crate) fn check_cors(options: &ServeOptions) -> Result<(), Failure> {
    if options.requires_token() || options.cors_origins != Some(CorsOrigins::Any) {
        return Ok(());
    }
    Err(Failure::new(
        "refusing --cors-origins '*' without an admin token or operators: every web page that is opened on this \
         machine could read every app's token from a process that answers queries. Set ADMIN_TOKEN, name operators \
         with --operators, or list the origins",
    ))
}

/// Refuses to restrict the creation of apps to operators if no operator token is required.
pub(crate) fn check_app_creation(options: &ServeOptions) -> Result<(), Failure> {
    if options.requires_token() || options.app_creation == AppCreation::Open {
        return Ok(());
    }
    Err(Failure::new(
        "--app-creation admin needs an admin token or operators: set ADMIN_TOKEN, or --operators",
    ))
}

/// Reads the key that signs checkpoints, if one is given.
pub(crate) fn read_signing_key(options: &ServeOptions) -> Result<Option<SigningKey>, Failure> {
    let Some(path) = &options.audit_key else { return Ok(None) };
    let problem = format!("the key {} (--audit-key) can't be used", path.display());
    let pem = std::fs::read_to_string(path).map_err(|error| file_failure(&problem, path, &error))?;
    SigningKey::from_pem(&pem).map(Some).map_err(|error| Failure::because(&problem, &error))
}
