//! TLS for tests: a throw-away certificate authority, a certificate for this machine, and a look at a connection's
//! first byte, so that one port speaks with and without TLS.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

/// A server's TLS side and what clients need to trust it.
pub(super) struct Tls {
    /// Accepts TLS connections.
    pub(super) acceptor: TlsAcceptor,
    /// The authority's certificate, PEM.
    pub(super) ca_pem: String,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificates could not be made.
    #[error("making the loopback certificates: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The certificates could not be used.
    #[error("using the loopback certificates: {0}")]
    Config(#[from] rustls::Error),
}

impl Tls {
    /// Makes a new authority and a certificate for `localhost` and 127.0.0.1.
    ///
    /// # Errors
    ///
    /// See [`TlsError`].
    pub(super) fn make() -> Result<Self, TlsError> {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        authority.distinguished_name.push(DnType::CommonName, "tapeway loopback, for tests only");
        let authority_key = KeyPair::generate()?;
        let ca_pem = authority.self_signed(&authority_key)?.pem();
        let issuer = Issuer::new(authority, authority_key);

        let server = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
        let server_key = KeyPair::generate()?;
        let certificate = server.signed_by(&server_key, &issuer)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(server_key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)?;
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), ca_pem })
    }
}

/// Whether the client begins with a TLS handshake.
pub(super) async fn is_tls(stream: &TcpStream) -> bool {
    let mut first = [0_u8; 1];
    matches!(stream.peek(&mut first).await, Ok(1)) && first[0] == TLS_HANDSHAKE
}

const TLS_HANDSHAKE: u8 = 22;
