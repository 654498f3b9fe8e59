//! Whom to believe: the server's own certificate as it is in a file, or one that a CA of the file signed.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::{ring, verify_tls12_signature, verify_tls13_signature, CryptoProvider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::settings::Tls;

/// A certificate of the file is believed as it is, whatever it is for: in a container the file is the
/// server's own. Every other has to be signed by one of the file, for the name.
#[derive(Debug)]
struct Trust {
    listed: Vec<CertificateDer<'static>>,
    signed: Option<Arc<WebPkiServerVerifier>>, // none: nothing in the file can sign
    provider: Arc<CryptoProvider>,
}

/// Return the configuration of the client's side.
pub fn client_config(tls: &Tls) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let listed = certificates(&tls.ca)?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(listed.iter().cloned());
    let signed = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let trust = Trust {
        listed,
        signed: signed.build().ok(),
        provider: provider.clone(),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions() // TLS 1.2 and 1.3
        .map_err(|error| error.to_string())?
        .dangerous() // rustls's word for every verifier that is not its own
        .with_custom_certificate_verifier(Arc::new(trust));
    let mut config = match &tls.own {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let pem = read(key)?;
            let own = PrivateKeyDer::from_pem_slice(&pem)
                .map_err(|error| format!("{}: expected a PEM key: {error}", key.display()))?;
            builder
                .with_client_auth_cert(certificates(certificate)?, own)
                .map_err(|error| format!("{}: {error}", certificate.display()))?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    let shown = path.display();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(format!("{shown}: expected PEM certificates, found none")),
        Err(error) => Err(format!("{shown}: expected PEM certificates: {error}")),
    }
}

/// Return the bytes of a file, or an error that names it.
pub fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{}: can't be read: {error}", path.display()))
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.listed.iter().any(|listed| listed == shown) {
            return Ok(ServerCertVerified::assertion()); // that it has the key, the handshake shows
        }
        match &self.signed {
            Some(signed) => signed.verify_server_cert(shown, chain, name, ocsp, now),
            None => Err(Error::General("it shows another certificate".into())),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}
