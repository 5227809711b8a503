//! TLS, from a certificate and a key in PEM files.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _},
};
use thiserror::Error;
use tokio_rustls::TlsAcceptor;

/// Why there is no TLS.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read, or holds no PEM.
    #[error("cannot read a {what} from {}: {why}", path.display())]
    Unreadable {
        /// What it should hold.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// The two do not fit together, or are not supported.
    #[error("certificate and key are refused: {0}")]
    Refused(#[from] rustls::Error),
}

/// What takes the client's side of a connection.
///
/// # Errors
/// What is wrong with the files.
pub fn tls(certificate: &Path, key: &Path) -> Result<TlsAcceptor, TlsError> {
    let unreadable = |what, path: &Path, why: pem::Error| TlsError::Unreadable {
        what,
        path: path.to_owned(),
        why: match why {
            pem::Error::Io(error) => error.to_string(),
            pem::Error::NoItemsFound => "there is none in PEM in it".to_owned(),
            other => other.to_string(),
        },
    };
    let no_chain = |why| unreadable("certificate", certificate, why);
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .and_then(|chain| if chain.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(chain) })
        .map_err(no_chain)?;
    let secret =
        PrivateKeyDer::from_pem_file(key).map_err(|why| unreadable("private key", key, why))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, secret)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
