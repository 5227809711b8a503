//! The files that decide who is answered and by which certificate: read at the start, and again
//! whenever that is asked for.
//!
//! A file that does not do is no reason to lock everybody out, nor to let anybody in: what was read
//! of it before stays in force, and that is said.

use std::path::PathBuf;

use thiserror::Error;
use tokio_rustls::TlsAcceptor;

use super::{
    tls::{TlsError, tls},
    token::{Token, TokenError},
};

/// Where they are.
#[derive(Clone, Debug, Default)]
pub struct SecretFiles {
    /// `--token-file`
    pub token: Option<PathBuf>,
    /// `--tls-cert` and `--tls-key`
    pub tls: Option<(PathBuf, PathBuf)>,
}

/// What was in them.
pub struct Secrets {
    files: SecretFiles,
    pub(super) token: Option<Token>,
    pub(super) tls: Option<TlsAcceptor>,
}

/// Which file does not do, and why.
#[derive(Debug, Error)]
pub enum SecretsError {
    /// That of the token.
    #[error("--token-file {}", path.display())]
    Token {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: TokenError,
    },
    /// One of those of TLS.
    #[error("--tls-cert")]
    Tls(#[from] TlsError),
}

impl SecretFiles {
    fn token(&self) -> Result<Option<Token>, SecretsError> {
        let read = |path: &PathBuf| {
            Token::read(path).map_err(|source| SecretsError::Token { path: path.clone(), source })
        };
        self.token.as_ref().map(read).transpose()
    }

    fn tls(&self) -> Result<Option<TlsAcceptor>, SecretsError> {
        Ok(self.tls.as_ref().map(|(certificate, key)| tls(certificate, key)).transpose()?)
    }
}

impl Secrets {
    /// Reads them.
    ///
    /// # Errors
    /// One of them does not do.
    pub fn read(files: SecretFiles) -> Result<Self, SecretsError> {
        let (token, tls) = (files.token()?, files.tls()?);
        Ok(Self { files, token, tls })
    }

    /// Reads them again. Returns what is to be said of it, a line each.
    pub(super) fn read_again(&mut self) -> Vec<String> {
        let mut said = Vec::new();
        match self.files.token() {
            Ok(Some(token)) => {
                self.token = Some(token);
                said.push("SIGHUP: the token was read again".to_owned());
            }
            Ok(None) => {}
            Err(error) => said.push(kept(&error, "token")),
        }
        match self.files.tls() {
            Ok(Some(tls)) => {
                self.tls = Some(tls);
                said.push(
                    "SIGHUP: certificate and key were read again, for new connections".to_owned(),
                );
            }
            Ok(None) => {}
            Err(error) => said.push(kept(&error, "certificate")),
        }
        if said.is_empty() {
            said.push("SIGHUP: there are no files to read again".to_owned());
        }
        said
    }
}

/// The error with its causes, in one line.
fn kept(error: &SecretsError, what: &str) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(why) = cause {
        text += &format!(": {why}");
        cause = why.source();
    }
    format!("SIGHUP: {text}; the {what} from before stays in force")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_token_that_does_not_do_leaves_the_one_before_in_force() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        fs::write(&path, "0123456789abcdef\n").unwrap();
        let files = SecretFiles { token: Some(path.clone()), tls: None };
        let mut secrets = Secrets::read(files).unwrap();
        let takes = |secrets: &Secrets, token: &str| {
            let header = format!("Bearer {token}");
            secrets.token.as_ref().unwrap().is_in(Some(header.as_bytes()))
        };
        for broken in ["short\n", "", "not printable \u{1}\n"] {
            fs::write(&path, broken).unwrap();
            let said = secrets.read_again().concat();
            assert!(said.contains("stays in force") && said.contains("--token-file"), "{said}");
            assert!(takes(&secrets, "0123456789abcdef"));
        }
        fs::remove_file(&path).unwrap();
        assert!(secrets.read_again().concat().contains("No such file"));
        fs::write(&path, "fedcba9876543210\n").unwrap();
        assert_eq!(secrets.read_again(), ["SIGHUP: the token was read again"]);
        assert!(takes(&secrets, "fedcba9876543210") && !takes(&secrets, "0123456789abcdef"));
    }

    #[test]
    fn without_files_that_is_said() {
        let mut none = Secrets::read(SecretFiles::default()).unwrap();
        assert_eq!(none.read_again(), ["SIGHUP: there are no files to read again"]);
        assert!(none.token.is_none() && none.tls.is_none());
    }
}
