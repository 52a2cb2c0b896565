//! Finds out why no connection can be made: tries each step of a connection, and says what to change.

use std::io;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig, Error as TlsError};
use thiserror::Error;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::connection::{CallTimeouts, Connection};
use super::transport;
use super::url::Host;
use chat_ports::event_store::EventStoreError;

/// The reason why no connection can be made to a host.
#[derive(Debug, Error)]
pub(super) enum ConnectFailure {
    #[error("the host name of {host} does not resolve: check it in the URL, and this machine's name server")]
    UnknownHost {
        host: Host,
        #[source]
        error: io::Error,
    },
    #[error("no connection to {host}: check that KurrentDB runs there, and the port in the URL")]
    NoConnection {
        host: Host,
        #[source]
        error: io::Error,
    },
    #[error("{0} does not answer as a TLS server: a server without TLS needs tls=false in the URL")]
    PlainServer(Host),
    #[error("{0} is a TLS server: remove tls=false from the URL")]
    TlsServer(Host),
    #[error(
        "the certificate of {0} is signed by an authority that is not trusted: set tlsCaFile in the URL to the \
         authority's certificate"
    )]
    UntrustedAuthority(Host),
    #[error("the certificate of {host} is for other names: use one of them as the host in the URL")]
    OtherName {
        host: Host,
        #[source]
        error: TlsError,
    },
    #[error("the certificate of {host} is not valid at this time: renew it, or set this machine's clock")]
    OutsideValidity {
        host: Host,
        #[source]
        error: TlsError,
    },
    #[error("{host} and this program can't agree on TLS: check the certificates on both sides")]
    Handshake {
        host: Host,
        #[source]
        error: TlsError,
    },
}

impl From<ConnectFailure> for EventStoreError {
    fn from(failure: ConnectFailure) -> Self {
        match failure {
            // The server or the name may still appear.
            ConnectFailure::UnknownHost { .. } | ConnectFailure::NoConnection { .. } => {
                Self::Unavailable(failure.into())
            }
            _ => Self::Refused(failure.into()),
        }
    }
}

impl Connection {
    /// Checks the hosts of the URL, and returns why no connection can be made to the first one. `None` if a connection
    /// can be made to any host, or if the check of any host finds no reason.
    pub(super) async fn find_connect_failure(&self) -> Option<ConnectFailure> {
        let config = match self.url.tls.clone() {
            Some(settings) => {
                tokio::task::spawn_blocking(move || transport::tls_config(&settings)).await.ok()?
            }
            None => transport::unverified_tls_config(),
        };
        let config = Arc::new(config.ok()?);
        let mut first_failure = None;
        for host in &self.url.hosts {
            let failure = self.check_host(host, &config).await?;
            first_failure = first_failure.or(Some(failure));
        }
        first_failure
    }

    /// Returns why no connection can be made to the host; `None` if one can be made, or if the reason is not found.
    async fn check_host(&self, host: &Host, config: &Arc<ClientConfig>) -> Option<ConnectFailure> {
        let name = host.name.trim_start_matches('[').trim_end_matches(']');
        let addresses = match within(self.timeouts, lookup_host((name, host.port))).await {
            Ok(addresses) => addresses.collect::<Vec<_>>(),
            Err(error) => return Some(ConnectFailure::UnknownHost { host: host.clone(), error }),
        };
        let stream = match within(self.timeouts, TcpStream::connect(addresses.as_slice())).await {
            Ok(stream) => stream,
            Err(error) => return Some(ConnectFailure::NoConnection { host: host.clone(), error }),
        };
        let server = ServerName::try_from(name.to_owned()).ok()?;
        let connector = TlsConnector::from(Arc::clone(config));
        let handshake = within(self.timeouts, connector.connect(server, stream)).await.map(drop);
        if self.url.tls.is_some() {
            tls_failure(host.clone(), handshake.err()?)
        } else {
            // The URL has tls=false, so a server that answers with TLS is the reason.
            answers_with_tls(&handshake).then(|| ConnectFailure::TlsServer(host.clone()))
        }
    }
}

/// The meaning of a failed handshake with a server that should have TLS.
fn tls_failure(host: Host, handshake_error: io::Error) -> Option<ConnectFailure> {
    use CertificateError::{
        Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet, NotValidYetContext,
        UnknownIssuer,
    };
    let is_cut_off =
        matches!(handshake_error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset);
    let tls_error = handshake_error.into_inner().and_then(|inner| inner.downcast::<TlsError>().ok());
    let Some(tls_error) = tls_error else {
        return is_cut_off.then_some(ConnectFailure::PlainServer(host));
    };
    Some(match *tls_error {
        TlsError::InvalidMessage(_) => ConnectFailure::PlainServer(host),
        TlsError::InvalidCertificate(UnknownIssuer) => ConnectFailure::UntrustedAuthority(host),
        TlsError::InvalidCertificate(NotValidForName | NotValidForNameContext { .. }) => {
            ConnectFailure::OtherName { host, error: *tls_error }
        }
        TlsError::InvalidCertificate(
            Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. },
        ) => ConnectFailure::OutsideValidity { host, error: *tls_error },
        error => ConnectFailure::Handshake { host, error },
    })
}

/// Whether the server has taken part in a handshake, successfully or not.
fn answers_with_tls(handshake: &io::Result<()>) -> bool {
    let Err(error) = handshake else { return true };
    let tls_error = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>());
    tls_error.is_some_and(|tls_error| !matches!(tls_error, TlsError::InvalidMessage(_)))
}

async fn within<T>(timeouts: CallTimeouts, step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(timeouts.attempt, step).await.unwrap_or_else(|elapsed| Err(elapsed.into()))
}
