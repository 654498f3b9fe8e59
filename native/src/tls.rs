//! TLS of the gRPC port: the certificate and key of now, and whose clients get a connection.

use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::{ring, CryptoProvider};
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::server::TlsStream;
use tokio_rustls::TlsAcceptor;

const H2: &[u8] = b"h2";

/// The configuration that handshakes use: Python's thread replaces it, the io thread reads it.
pub struct Tls {
    current: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    pub fn new(config: ServerConfig) -> Self {
        Self {
            current: RwLock::new(Arc::new(config)),
        }
    }

    /// From here on handshakes use this configuration; connections that are there keep theirs.
    pub fn replace(&self, config: ServerConfig) {
        let config = Arc::new(config); // made before the lock is held
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = config;
    }

    /// Do the handshake; how long it may take is the caller's to say.
    ///
    /// A client that didn't agree on HTTP/2 is refused, as gRPC's core does: it gets its handshake
    /// and then the end. (One that offers other protocols only is told so by an alert.)
    pub async fn accept<S>(&self, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let config = self
            .current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let stream = TlsAcceptor::from(config).accept(stream).await?;
        match stream.get_ref().1.alpn_protocol() {
            Some(H2) => Ok(stream),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the client did not offer h2 (ALPN)",
            )),
        }
    }
}

/// Return the configuration of a certificate chain, its key and the CAs of clients, all PEM.
///
/// With CAs, a client without a certificate of theirs gets no connection. That the key is that of
/// the certificate is not checked here: Python did, with a library that reads more certificates.
pub fn server_config(
    chain_pem: &[u8],
    key_pem: &[u8],
    client_ca_pem: Option<&[u8]>,
) -> Result<ServerConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let chain = certificates(chain_pem).map_err(|reason| format!("certificate: {reason}"))?;
    let key = PrivateKeyDer::from_pem_slice(key_pem)
        .map_err(|error| format!("key: {}", pem_reason(error, "private key")))?;
    // rustls names no kind of key, and its own words ("failed to parse private key as RSA,
    // ECDSA, or EdDSA") leave out what it has against the key.
    let key = provider.key_provider.load_private_key(key).map_err(|_| {
        "key: expected an RSA key of 2048 to 8192 bits, or an elliptic-curve key of P-256 or P-384"
            .to_owned()
    })?;
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions() // TLS 1.2 and 1.3
        .map_err(|error| error.to_string())?;
    let builder = match client_ca_pem {
        None => builder.with_no_client_auth(),
        Some(pem) => builder.with_client_cert_verifier(
            client_verifier(pem, provider).map_err(|reason| format!("client CA: {reason}"))?,
        ),
    };
    // Not `with_single_cert`: it parses the certificate, and refuses those of version 1.
    let own = SingleCertAndKey::from(CertifiedKey::new(chain, key));
    let mut config = builder.with_cert_resolver(Arc::new(own));
    config.alpn_protocols = vec![H2.to_vec()];
    Ok(config)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| pem_reason(error, "certificate"))?;
    match found.len() {
        0 => Err(pem_reason(PemError::NoItemsFound, "certificate")),
        _ => Ok(found),
    }
}

fn pem_reason(error: PemError, what: &str) -> String {
    match error {
        PemError::NoItemsFound => format!("expected a PEM {what}, and found none"),
        error => format!("expected a PEM {what}: {error}"),
    }
}

fn client_verifier(
    pem: &[u8],
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
