//! TLS trust for venues: the system's roots, and a configured extra one for tests and proxies.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use thiserror::Error;
use tracing::warn;

/// Why there is no TLS configuration.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The extra CA file cannot be read.
    #[error("ca_file {path}: {source}")]
    CaFile {
        /// The file.
        path: String,
        /// What is wrong with it.
        source: rustls::pki_types::pem::Error,
    },
    /// A certificate in the CA file is not usable.
    #[error("ca_file {path}: {source}")]
    Certificate {
        /// The file.
        path: String,
        /// What is wrong with it.
        source: rustls::Error,
    },
    /// The TLS library refused its own defaults.
    #[error("no usable TLS version: {0}")]
    Version(#[source] rustls::Error),
}

/// A client configuration that trusts the system's roots and those in `ca_file`.
///
/// # Errors
///
/// The file cannot be read or holds no usable certificate.
pub fn client_config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(system.certs);
    if let Some(path) = ca_file {
        let shown = path.display().to_string();
        let certificates = CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|source| TlsError::CaFile { path: shown.clone(), source })?;
        for certificate in certificates {
            roots.add(certificate).map_err(|source| TlsError::Certificate { path: shown.clone(), source })?;
        }
    } else if roots.is_empty() {
        warn!("the system has no root certificates: no TLS connection will be trusted (install ca-certificates)");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Version)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
