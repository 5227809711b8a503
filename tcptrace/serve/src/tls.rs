//! TLS, from PEM files: a certificate and a key to answer with, authorities to push by.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _},
};
use thiserror::Error;
use tokio_rustls::{TlsAcceptor, TlsConnector};

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
    /// There is no list of authorities where systems have one.
    #[error("this host has no list of certificate authorities: give one with --otlp-ca")]
    NoAuthorities,
    /// The two do not fit together, or are not supported.
    #[error("certificate and key are refused")]
    Refused(#[from] rustls::Error),
}

fn unreadable(what: &'static str, path: &Path, why: pem::Error) -> TlsError {
    let why = match why {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => "there is none in PEM in it".to_owned(),
        other => other.to_string(),
    };
    TlsError::Unreadable { what, path: path.to_owned(), why }
}

/// All in a file; at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .and_then(|all| if all.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(all) })
        .map_err(|why| unreadable("certificate", path, why))
}

/// What makes a connection to a server whose certificate is signed by one of those in
/// `authorities`; without, by one of those that this host trusts.
///
/// # Errors
/// What is wrong with the file, or that there is none.
pub fn tls_to(authorities: Option<&Path>) -> Result<TlsConnector, TlsError> {
    let of_host = || openssl_probe::probe().cert_file.ok_or(TlsError::NoAuthorities);
    let path = authorities.map_or_else(of_host, |path| Ok(path.to_owned()))?;
    let mut roots = RootCertStore::empty();
    // A host's list may have some that rustls does not read.
    let (usable, _) = roots.add_parsable_certificates(certificates(&path)?);
    if usable == 0 {
        return Err(unreadable("certificate", &path, pem::Error::NoItemsFound));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// What takes the client's side of a connection.
///
/// # Errors
/// What is wrong with the files.
pub fn tls(certificate: &Path, key: &Path) -> Result<TlsAcceptor, TlsError> {
    let chain = certificates(certificate)?;
    let secret =
        PrivateKeyDer::from_pem_file(key).map_err(|why| unreadable("private key", key, why))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, secret)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
