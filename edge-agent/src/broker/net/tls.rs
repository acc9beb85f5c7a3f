//! TLS for clients: certificate and key from files, reloaded while the agent runs, and the name in a client's own
//! certificate.
//!
//! Keys are never logged. A file that cannot be used leaves what is in force as it is.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// Where the keys are and what is asked of clients.
#[derive(Clone, Debug)]
pub struct TlsSettings {
    /// The server's certificate chain, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// Certificates that sign those of clients, PEM; without it none is asked for.
    pub client_ca: Option<PathBuf>,
    /// Clients without a certificate are refused.
    pub client_certificate_required: bool,
}

/// Why a listener cannot have TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or holds nothing of the kind.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls::pki_types::pem::Error,
    },
    /// A file holds no certificate.
    #[error("{0}: no certificate in it")]
    Empty(PathBuf),
    /// Certificate and key do not fit, or one of them cannot be used.
    #[error("certificate or key cannot be used: {0}")]
    Keys(#[from] rustls::Error),
    /// The certificates for clients cannot be used.
    #[error("client_ca: {0}")]
    ClientCa(#[from] rustls::server::VerifierBuilderError),
}

/// Keys in force.
pub struct Tls {
    settings: TlsSettings,
    acceptor: RwLock<TlsAcceptor>,
}

impl Tls {
    /// Reads the keys.
    pub fn load(settings: TlsSettings) -> Result<Self, TlsError> {
        let acceptor = RwLock::new(acceptor(&settings)?);
        Ok(Self { settings, acceptor })
    }

    /// Reads them again, for connections to come.
    pub fn reload(&self) -> Result<(), TlsError> {
        let acceptor = acceptor(&self.settings)?;
        *self.acceptor.write().unwrap_or_else(PoisonError::into_inner) = acceptor;
        Ok(())
    }

    /// The handshake. The second value is the common name of the client's certificate, if it has shown one that is
    /// signed as it should be.
    pub async fn accept(&self, stream: TcpStream) -> std::io::Result<(TlsStream<TcpStream>, Option<String>)> {
        let acceptor = self
            .acceptor
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let stream = acceptor.accept(stream).await?;
        let shown = stream.get_ref().1.peer_certificates();
        let name = shown.and_then(|chain| chain.first()).and_then(common_name);
        Ok((stream, name))
    }
}

fn acceptor(settings: &TlsSettings) -> Result<TlsAcceptor, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = certificates(&settings.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&settings.key).map_err(|source| TlsError::File {
        path: settings.key.clone(),
        source,
    })?;
    let builder =
        ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let builder = match &settings.client_ca {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(file)? {
                roots.add(certificate)?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = if settings.client_certificate_required {
                verifier
            } else {
                verifier.allow_unauthenticated()
            };
            builder.with_client_cert_verifier(verifier.build()?)
        }
    };
    Ok(Arc::new(builder.with_single_cert(chain, key)?).into())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let error = |source| TlsError::File {
        path: path.into(),
        source,
    };
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(error)?
        .collect::<Result<_, _>>()
        .map_err(error)?;
    if found.is_empty() {
        return Err(TlsError::Empty(path.into()));
    }
    Ok(found)
}

fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let name = parsed.subject().iter_common_name().next()?;
    name.as_str().ok().map(str::to_owned)
}
