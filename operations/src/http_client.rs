//! The HTTP client of operator tasks.

use std::io;

use bytes::Bytes;
use http::Uri;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// A client of HTTP/1.1 servers, with and without TLS.
pub(crate) type HttpClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Creates a client for the server of a URL. Fails if TLS is needed and the system has no certificates.
pub(crate) fn http_client(url: &Uri) -> io::Result<HttpClient> {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    let provider = rustls::crypto::ring::default_provider();
    let https = if url.scheme_str() == Some("https") {
        HttpsConnectorBuilder::new().with_provider_and_native_roots(provider)?
    } else {
        // Plain HTTP needs no root certificates, and a machine may have none.
        HttpsConnectorBuilder::new().with_tls_config(tls_config_without_roots(provider)?)
    };
    let connector = https.https_or_http().enable_http1().wrap_connector(http);
    Ok(Client::builder(TokioExecutor::new()).build(connector))
}

fn tls_config_without_roots(provider: rustls::crypto::CryptoProvider) -> io::Result<rustls::ClientConfig> {
    let builder =
        rustls::ClientConfig::builder_with_provider(provider.into()).with_safe_default_protocol_versions();
    let builder = builder.map_err(io::Error::other)?;
    Ok(builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth())
}
