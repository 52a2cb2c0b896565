//! The HTTP/2 transport of gRPC: connections to the nodes, with TLS where the URL asks for it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme, WantsVerifier,
};
use thiserror::Error;

use super::url::{CertificateVerification, KurrentDbUrl, TlsSettings};

/// Sends requests to any node, over one connection for each node. Connections are opened when they are needed.
pub(super) type Transport = Client<HttpsConnector<HttpConnector>, tonic::body::Body>;

/// The transport can't be set up: a setting or a file has to be changed.
#[derive(Debug, Error)]
pub(super) enum TransportSetupError {
    #[error("{parameter} in the URL names {}, which can't be read as a PEM file", path.display())]
    UnreadableFile {
        parameter: &'static str,
        path: PathBuf,
        #[source]
        error: pem::Error,
    },
    #[error("{parameter} in the URL names {}, which holds no certificate", path.display())]
    NoCertificate { parameter: &'static str, path: PathBuf },
    #[error("the system has no root certificates: install them, or set tlsCaFile in the URL")]
    NoSystemRoots(#[source] io::Error),
    #[error("the certificates of the URL can't be used")]
    InvalidCertificate(#[source] rustls::Error),
}

/// Creates a transport. Blocks: reads certificates from disk.
pub(super) fn transport(
    url: &KurrentDbUrl,
    connect_timeout: Duration,
) -> Result<Transport, TransportSetupError> {
    let config = match &url.tls {
        Some(settings) => tls_config(settings)?,
        // The connector needs a TLS configuration even for plain HTTP.
        None => config_builder()?.with_root_certificates(RootCertStore::empty()).with_no_client_auth(),
    };
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    // A call is sent in several small writes. With Nagle's algorithm, the second one would wait until the server
    // acknowledges the first, and the server may delay the acknowledgement by 40 ms.
    http.set_nodelay(true);
    http.set_connect_timeout(Some(connect_timeout));
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_or_http()
        .enable_http2()
        .wrap_connector(http);
    Ok(Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .http2_only(true)
        .http2_keep_alive_interval(url.keep_alive_interval)
        .http2_keep_alive_timeout(url.keep_alive_timeout)
        .build(connector))
}

/// Creates the TLS configuration of the settings. Blocks: reads certificates from disk.
pub(super) fn tls_config(settings: &TlsSettings) -> Result<ClientConfig, TransportSetupError> {
    let builder = config_builder()?;
    let with_roots = match &settings.ca_file {
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in read_certificates("tlsCaFile", path)? {
                roots.add(certificate).map_err(TransportSetupError::InvalidCertificate)?;
            }
            builder.with_root_certificates(roots)
        }
        // Without verification no root certificate is needed, and the machine may have none.
        None if settings.verification == CertificateVerification::Disabled => {
            builder.with_root_certificates(RootCertStore::empty())
        }
        None => builder.with_native_roots().map_err(TransportSetupError::NoSystemRoots)?,
    };
    let mut config = match &settings.client_files {
        Some((certificate, key)) => {
            let chain = read_certificates("userCertFile", certificate)?;
            let key = PrivateKeyDer::from_pem_file(key).map_err(unreadable("userKeyFile", key))?;
            let config = with_roots.with_client_auth_cert(chain, key);
            config.map_err(TransportSetupError::InvalidCertificate)?
        }
        None => with_roots.with_no_client_auth(),
    };
    if settings.verification == CertificateVerification::Disabled {
        let any = AnyCertificate(Arc::clone(config.crypto_provider()));
        config.dangerous().set_certificate_verifier(Arc::new(any));
    }
    Ok(config)
}

/// A configuration that accepts every server.
pub(super) fn unverified_tls_config() -> Result<ClientConfig, TransportSetupError> {
    let verification = CertificateVerification::Disabled;
    tls_config(&TlsSettings { verification, ..TlsSettings::default() })
}

fn config_builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, TransportSetupError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    builder.with_safe_default_protocol_versions().map_err(TransportSetupError::InvalidCertificate)
}

fn read_certificates(
    parameter: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TransportSetupError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = read.map_err(unreadable(parameter, path))?;
    if certificates.is_empty() {
        return Err(TransportSetupError::NoCertificate { parameter, path: path.to_owned() });
    }
    Ok(certificates)
}

fn unreadable(parameter: &'static str, path: &Path) -> impl FnOnce(pem::Error) -> TransportSetupError {
    let path = path.to_owned();
    move |error| TransportSetupError::UnreadableFile { parameter, path, error }
}

/// Accepts every certificate, for URLs with `tlsVerifyCert=false` and for diagnoses. The server still has to own the
/// certificate's key.
struct AnyCertificate(Arc<CryptoProvider>);

impl fmt::Debug for AnyCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnyCertificate")
    }
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
