//! Handshakes in memory, by rustls's own client and certificates made for the test.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::io::{duplex, AsyncReadExt, AsyncWriteExt};
use tokio::task::LocalSet;
use tokio_rustls::TlsConnector;

use super::{server_config, Tls};

struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, PEM.
struct Pair {
    chain: String,
    key: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    fn issue(&self, name: &str) -> Pair {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        Pair {
            chain: params.signed_by(&key, &self.0).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    fn client(
        &self,
        own: Option<&Pair>,
        alpn: &[&str],
        version: &'static SupportedProtocolVersion,
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some(pair) => builder
                .with_client_auth_cert(
                    CertificateDer::pem_slice_iter(pair.chain.as_bytes())
                        .map(Result::unwrap)
                        .collect(),
                    PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap(),
                )
                .unwrap(),
        };
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    }
}

fn tls(pair: &Pair, client_ca: Option<&Authority>) -> Rc<Tls> {
    let ca = client_ca.map(|authority| authority.0.pem());
    let ca = ca.as_ref().map(String::as_bytes);
    Rc::new(Tls::new(
        server_config(pair.chain.as_bytes(), pair.key.as_bytes(), ca).unwrap(),
    ))
}

/// Return how it went for the server, and the server's certificate as the client saw it.
fn connect(tls: &Rc<Tls>, client: ClientConfig) -> (io::Result<()>, Option<Vec<u8>>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let tasks = LocalSet::new();
    let (near, far) = duplex(1 << 16);
    let tls = tls.clone();
    let server = tasks.spawn_local(async move {
        let mut stream = tls.accept(far).await?;
        stream.write_all(b"served").await
    });
    tasks.block_on(&runtime, async {
        let client = async {
            let name = ServerName::try_from("localhost").unwrap();
            let connector = TlsConnector::from(Arc::new(client));
            let mut stream = connector.connect(name, near).await.ok()?;
            let seen = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
            let mut answer = [0; 6];
            stream.read_exact(&mut answer).await.ok()?;
            (answer == *b"served").then_some(seen)
        };
        let seen = client.await;
        (server.await.unwrap(), seen)
    })
}

#[test]
fn both_versions_are_spoken_over_h2() {
    let ours = Authority::new();
    let pair = ours.issue("localhost");
    let tls = tls(&pair, None);
    for version in [&TLS12, &TLS13] {
        for alpn in [&["h2"][..], &["http/1.1", "h2"]] {
            let (served, seen) = connect(&tls, ours.client(None, alpn, version));
            served.unwrap();
            let certificate = CertificateDer::from_pem_slice(pair.chain.as_bytes()).unwrap();
            assert_eq!(seen.as_deref(), Some(certificate.as_ref()));
        }
    }
}

#[test]
fn a_client_without_h2_gets_no_connection() {
    let ours = Authority::new();
    let tls = tls(&ours.issue("localhost"), None);
    for version in [&TLS12, &TLS13] {
        for alpn in [&[][..], &["http/1.1"]] {
            let (served, seen) = connect(&tls, ours.client(None, alpn, version));
            assert!(served.is_err());
            assert!(seen.is_none(), "it read what was served");
        }
    }
}

#[test]
fn only_clients_of_the_ca_get_a_connection() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let tls = tls(&ours.issue("localhost"), Some(&ours));
    let (own, stranger) = (ours.issue("caller"), theirs.issue("stranger"));
    for version in [&TLS12, &TLS13] {
        for (pair, is_ours) in [(None, false), (Some(&stranger), false), (Some(&own), true)] {
            let (served, seen) = connect(&tls, ours.client(pair, &["h2"], version));
            assert_eq!((served.is_ok(), seen.is_some()), (is_ours, is_ours));
        }
    }
}

#[test]
fn a_clients_certificate_needs_no_name_but_is_no_cas() {
    let ours = Authority::new();
    let tls = tls(&ours.issue("localhost"), Some(&ours));
    let key = KeyPair::generate().unwrap();
    let nameless = CertificateParams::new([]).unwrap();
    let nameless = Pair {
        chain: nameless.signed_by(&key, &ours.0).unwrap().pem(),
        key: key.serialize_pem(),
    };
    // As what `openssl req -x509` makes, which grpcio takes.
    let own_ca = Pair {
        chain: ours.0.pem(),
        key: ours.0.key().serialize_pem(),
    };
    for (pair, is_taken) in [(nameless, true), (own_ca, false)] {
        let (served, _) = connect(&tls, ours.client(Some(&pair), &["h2"], &TLS13));
        assert_eq!(served.is_ok(), is_taken);
    }
}

#[test]
fn a_new_handshake_sees_the_new_certificate() {
    let ours = Authority::new();
    let (first, second) = (ours.issue("localhost"), ours.issue("localhost"));
    let tls = tls(&first, None);
    let before = connect(&tls, ours.client(None, &["h2"], &TLS13)).1.unwrap();
    tls.replace(server_config(second.chain.as_bytes(), second.key.as_bytes(), None).unwrap());
    let after = connect(&tls, ours.client(None, &["h2"], &TLS13)).1.unwrap();
    assert_ne!(before, after);
}

#[test]
fn what_is_wrong_is_named() {
    let pair = Authority::new().issue("localhost");
    let (chain, key) = (pair.chain.as_bytes(), pair.key.as_bytes());
    let cut = &key[..key.len() / 2];
    for (given, part, reason) in [
        (server_config(b"", key, None), "certificate: ", "found none"),
        (server_config(key, key, None), "certificate: ", "found none"),
        (server_config(chain, chain, None), "key: ", "found none"),
        (
            server_config(chain, cut, None),
            "key: ",
            "expected a PEM private key: ",
        ),
        (
            server_config(chain, key, Some(b"")),
            "client CA: ",
            "found none",
        ),
        (
            server_config(chain, key, Some(key)),
            "client CA: ",
            "found none",
        ),
    ] {
        let text = given.err().unwrap();
        assert!(text.starts_with(part) && text.contains(reason), "{text}");
    }
}

#[test]
fn text_around_the_pem_is_no_matter() {
    let ours = Authority::new();
    let pair = ours.issue("localhost");
    let told = |pem: &str| format!("subject=me\r\n{}\r\n", pem.replace('\n', "\r\n"));
    let key = format!(
        "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n{}",
        pair.key
    );
    let config = server_config(told(&pair.chain).as_bytes(), told(&key).as_bytes(), None);
    let (served, _) = connect(
        &Rc::new(Tls::new(config.unwrap())),
        ours.client(None, &["h2"], &TLS13),
    );
    served.unwrap();
}
